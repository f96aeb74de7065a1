"""Run folders: what `parvox train` and `parvox distill` leave behind."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from parvox.errors import ModelFileError, OutputError
from parvox.losses.margin import SpeakerLoss
from parvox.models import SpeakerModel
from parvox.training.checkpoint import load_tensors
from parvox.training.recipe import Recipe, load_recipe

RECIPE, MODEL, CLASSIFIER, SPEAKERS = "recipe.yaml", "model.safetensors", "classifier.safetensors", "speakers.json"
SUMMARY, METRICS, CHECKPOINT, TENSORBOARD = "summary.json", "metrics.csv", "checkpoint.safetensors", "tensorboard"


@dataclass
class Run:
    """A finished training run.

    Attributes:
        folder: Where it lies.
        recipe: What it was made from, fully resolved.
        recipe_text: The same as YAML.
        model: In evaluation mode, on the CPU.
        classifier: The speaker head it was trained with.
        speakers: Training speakers, in class order.
        summary: What `summary.json` holds.
    """

    folder: Path
    recipe: Recipe
    recipe_text: str
    model: SpeakerModel
    classifier: SpeakerLoss
    speakers: list[str]
    summary: dict[str, Any]

    @property
    def corpus_folder(self) -> Path:
        """The prepared corpus it was trained on."""
        return Path(self.recipe.corpus)


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
    speakers = read_json(folder / SPEAKERS)["speakers"]
    model = SpeakerModel(recipe.model)
    classifier = recipe.loss.build(recipe.model.embedding_dim, classes(recipe, speakers))
    load_weights(model, folder / MODEL)
    load_weights(classifier, folder / CLASSIFIER)
    classifier.set_progress(1.0)
    return Run(
        folder=folder,
        recipe=recipe,
        recipe_text=(folder / RECIPE).read_text(encoding="utf-8"),
        model=model.eval(),
        classifier=classifier.eval(),
        speakers=speakers,
        summary=read_json(folder / SUMMARY),
    )


def classes(recipe: Recipe, speakers: list[str]) -> int:
    """Classes of the speaker head: each speed factor makes every speaker anew."""
    return len(speakers) * (1 + len(recipe.data.speed_perturbation))


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill `module` from a safetensors file; every tensor must match in name and shape."""
    tensors, _ = load_tensors(path)
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
    module.load_state_dict(tensors)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a run folder.

    Raises:
        ModelFileError: it is missing or damaged.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path} is missing or damaged; restore the run folder or train again") from error
    if not isinstance(data, dict):
        raise ModelFileError(f"{path} holds no JSON object; restore the run folder or train again")
    return data


def clear_run(folder: Path) -> None:
    """Delete a run folder that is to be overwritten; never a folder that holds anything else.

    Raises:
        OutputError: the folder is not empty and no run.
    """
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / RECIPE).is_file()):
        raise OutputError(f"{folder} exists and is no run folder, so it is not replaced: choose another name")
    shutil.rmtree(folder)
