"""Run folders: what `parvox train` and `parvox distill` leave behind."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from parvox.errors import ModelFileError, RecipeError
from parvox.losses import SpeakerLoss
from parvox.models import POOLINGS, SpeakerModel
from parvox.models.tokens import ClassDistillationTokenSettings
from parvox.training.checkpoint import load_tensors
from parvox.training.recipe import Recipe, load_recipe

RECIPE, MODEL, CLASSIFIER, SPEAKERS = "recipe.yaml", "model.safetensors", "classifier.safetensors", "speakers.json"
SUMMARY, METRICS, CHECKPOINT, TENSORBOARD = "summary.json", "metrics.csv", "checkpoint.safetensors", "tensorboard"
CHECKSUMS = "sha256"
"""Where `summary.json` holds the checksum of each file of weights."""
EMBEDS_LIKE = "embeds_like"
"""Where `summary.json` names the teachers, by the checksum of their weights, whose embeddings a student was trained to
give: those may be compared with its own."""


@dataclass
class Run:
    """A finished training run.

    Attributes:
        folder: Where it lies.
        recipe: What it was made from, fully resolved.
        recipe_text: The same as YAML.
        model: In evaluation mode, on the CPU.
        classifier: The speaker head it was trained with; None if it was trained without one.
        speakers: Whom that knows, in class order: the training speakers, or for speech without labels the teacher's.
        summary: What `summary.json` holds.
        read: Which token states are the embedding; nothing where the recipe's own read-out is.
    """

    folder: Path
    recipe: Recipe
    recipe_text: str
    model: SpeakerModel
    classifier: SpeakerLoss | None
    speakers: list[str]
    summary: dict[str, Any]
    read: str = ""

    @property
    def corpus_folder(self) -> Path:
        """The prepared corpus it was trained on."""
        return Path(self.recipe.corpus)

    def reading(self, read: Literal["class", "distillation", "both"]) -> Run:
        """The same weights with other token states as the embedding: see `ClassDistillationTokenSettings.read`.

        The classifier stays that of the class token.

        Raises:
            RecipeError: the model has no distillation token, or layers of its own behind the class token.
        """
        settings = self.recipe.model
        if not isinstance(settings.pooling, ClassDistillationTokenSettings):
            raise RecipeError(
                f"read {read}: {self.folder} has {POOLINGS.name_of(settings.pooling)} pooling; expected "
                "class_distillation_token, whose states can be read apart"
            )
        if settings.head != "none":
            raise RecipeError(
                f"read {read}: {self.folder} has model.head {settings.head}, which was trained for the class token "
                "alone; states can be read apart in models trained with model.head none"
            )
        pooling = dataclasses.replace(settings.pooling, read=read)
        size = self.model.encoder.frames_dim * (2 if read == "both" else 1)
        settings = dataclasses.replace(settings, pooling=pooling, embedding_dim=size)
        model = SpeakerModel(settings)
        model.load_state_dict(self.model.state_dict())
        recipe = dataclasses.replace(self.recipe, model=settings)
        summary = {**self.summary, EMBEDS_LIKE: []}
        return dataclasses.replace(
            self, recipe=recipe, recipe_text=recipe.to_yaml(), model=model.eval(), summary=summary, read=read
        )


def load_run(folder: Path) -> Run:
    """Read a finished run.

    Raises:
        ModelFileError: the folder is missing, holds no finished run, or is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelFileError(f"{folder} is not a folder; expected a run folder written by parvox train or distill")
    if not (folder / RECIPE).is_file():
        raise ModelFileError(f"{folder} holds no {RECIPE}; expected a run folder written by parvox train or distill")
    if not (folder / SUMMARY).is_file():
        raise ModelFileError(f"{folder} holds an unfinished run; finish it with --resume")
    recipe = load_recipe(folder / RECIPE)
    known = read_json(folder / SPEAKERS)
    speakers, classes = known.get("speakers"), known.get("classes")
    if not isinstance(speakers, list) or not isinstance(classes, int) or bool(speakers) != bool(classes) or classes < 0:
        raise ModelFileError(f"{folder / SPEAKERS} names no speakers; restore the run folder or train again")
    model = SpeakerModel(recipe.model)
    classifier = recipe.loss.build(recipe.model.embedding_dim, classes) if classes else None
    summary = read_json(folder / SUMMARY)
    load_weights(model, folder / MODEL, known_checksum(summary, MODEL))
    if classifier is not None:
        load_weights(classifier, folder / CLASSIFIER, known_checksum(summary, CLASSIFIER))
        classifier.set_progress(1.0)
        classifier.eval()
    return Run(
        folder=folder,
        recipe=recipe,
        recipe_text=(folder / RECIPE).read_text(encoding="utf-8"),
        model=model.eval(),
        classifier=classifier,
        speakers=speakers,
        summary=summary,
    )


def load_weights(module: nn.Module, path: Path, checksum: str | None = None) -> None:
    """Fill `module` from a safetensors file; every tensor must match in name and shape, and be finite.

    Args:
        module: What to fill.
        path: The file.
        checksum: Its SHA-256, where that is known.

    Raises:
        ModelFileError: the file is missing, damaged, or another model's.
    """
    tensors, _ = load_tensors(path)
    if checksum is not None and file_checksum(path) != checksum:
        raise ModelFileError(f"{path} is damaged: its checksum is not the one in {SUMMARY}; restore it or train again")
    expected: dict[str, Tensor] = module.state_dict()
    differing = sorted(
        (expected.keys() ^ tensors.keys())
        | {name for name in expected.keys() & tensors.keys() if expected[name].shape != tensors[name].shape}
    )
    if differing:
        raise ModelFileError(
            f"{path} does not fit its recipe: {len(differing)} tensors differ in name or shape, such as "
            f"{differing[0]}; restore the folder's own {RECIPE}"
        )
    broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise ModelFileError(f"{path}: weights that are NaN or infinite, such as those of {broken[0]}; train again")
    module.load_state_dict(tensors)


def file_checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_checksum(summary: dict[str, Any], name: str) -> str | None:
    """What a summary says of the SHA-256 of a file of weights; None where it says nothing."""
    sums = summary.get(CHECKSUMS)
    return sums.get(name) if isinstance(sums, dict) else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a run folder.

    Raises:
        ModelFileError: it is missing or damaged.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is missing or damaged; restore the run folder or train again") from error
    if not isinstance(data, dict):
        raise ModelFileError(f"{path} holds no JSON object; restore the run folder or train again")
    return data
