"""A frame classifier for phonetic positions: fitted on a prepared corpus, kept in one file, put into models."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lhotse.cut import Cut
from torch import Tensor

from parvox import __version__
from parvox.corpora.prepared import PreparedCorpus
from parvox.data import iterate_utterances
from parvox.errors import ModelFileError, OutputError, RecipeError, TrainingError
from parvox.files import refuse_overwrite
from parvox.models import SpeakerModel
from parvox.models.contract import mask_from_lengths
from parvox.models.frame_classifier import NO_LABEL, FrameClassifier
from parvox.models.frontend import Fbank, FbankSettings
from parvox.models.positions import PhoneticPositions
from parvox.progress import progress
from parvox.training.checkpoint import load_tensors, save_tensors
from parvox.training.engine import chosen_device
from parvox.training.frame_labels import FrameLabels

_KIND = "frame classifier"
_MOST_BATCH_S = 3600


@dataclass(frozen=True, kw_only=True)
class FrameSettings:
    """How a frame classifier is fitted."""

    epochs: int = 20
    """Passes over the training utterances, whole ones."""
    learning_rate: float = 2e-3
    """Of AdamW at the start; falls to 0 with the cosine of the progress."""
    batch_s: float = 60.0
    """Seconds of speech a step, padding included."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise RecipeError(f"frames.epochs: {self.epochs} given; expected 1 or more")
        if not 1 <= self.batch_s <= _MOST_BATCH_S:
            raise RecipeError(f"frames.batch_s: {self.batch_s} given; expected 1 to {_MOST_BATCH_S}")
        if not 0 < self.learning_rate <= 10:
            raise RecipeError(f"frames.learning_rate: {self.learning_rate} given; expected more than 0, at most 10")


@dataclass(frozen=True)
class FittedFrames:
    """A frame classifier and what it was fitted for.

    Attributes:
        classifier: On the CPU, in evaluation mode.
        features: Of the front end.
        names: Its classes.
    """

    classifier: FrameClassifier
    features: FbankSettings
    names: list[str]


def fit_frames(
    corpus: PreparedCorpus,
    out: Path,
    *,
    settings: FrameSettings | None = None,
    features: FbankSettings | None = None,
    alignments: Path | None = None,
    seed: int = 1,
    device: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Fit a classifier of frames on the training utterances, and write it to one safetensors file.

    Args:
        corpus: With texts of single words, alignments in its manifest, or `alignments`.
        out: The file, for `model.frame_classifier`.
        settings: How to fit.
        features: Of the front end; the model's must be the same. The corpus's sample rate is taken.
        alignments: A CTM file: what is said when in the corpus's utterances.
        seed: Of weights and order.
        device: Where, as PyTorch names it; a GPU if there is one by default.
        overwrite: Replace a file that is there.

    Returns:
        Classes, where labels came from, and which part of the labelled dev frames is classified rightly, and would be
        if every frame got the most frequent class.

    Raises:
        CorpusError: the corpus has no usable labels.
        TrainingError: it diverged.
        OutputError: `out` exists, is nothing that this wrote, or cannot be written.
    """
    started = time.monotonic()
    settings = settings or FrameSettings()
    features = dataclasses.replace(features or FbankSettings(), sample_rate_hz=corpus.info.sample_rate_hz)
    refuse_overwrite(out, overwrite)
    _expect_own(out)
    cuts, dev = list(corpus.cuts("train")), list(corpus.cuts("dev")) if "dev" in corpus.splits else []
    labels = FrameLabels(cuts, dev, alignments)
    where = chosen_device(device)
    torch.manual_seed(seed)
    classifier = FrameClassifier(features.bins, len(labels.names)).to(where)
    batches = _LabelledBatches(labels, Fbank(features).to(where), settings.batch_s)
    optimizer = torch.optim.AdamW(classifier.parameters(), settings.learning_rate)
    frequent = torch.zeros(len(labels.names), dtype=torch.long)
    for epoch in progress(range(settings.epochs), f"{out.name}: {len(labels.names)} classes", unit="epoch"):
        optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
        for inputs, targets, lengths in batches.of(cuts, order_seed=seed * settings.epochs + epoch):
            optimizer.zero_grad()
            classifier.loss(inputs, targets, lengths).backward()
            optimizer.step()
            frequent += torch.bincount(targets[targets != NO_LABEL].cpu(), minlength=len(frequent))
    if not _finite(classifier):
        raise TrainingError(
            "the frame classifier's weights are no longer finite; lower frames.learning_rate "
            f"({settings.learning_rate})"
        )
    state: dict[str, Any] = {
        "kind": _KIND,
        "names": labels.names,
        "features": dataclasses.asdict(features),
        "labels": labels.source,
        "corpus": corpus.info.name,
        "corpus_fingerprint": corpus.info.fingerprint,
        "parvox_version": __version__,
        **_accuracy(classifier.eval(), batches.of(dev) if dev else (), int(frequent.argmax())),
    }
    save_tensors(out, classifier.state_dict(), state)
    return {**state, "seconds": round(time.monotonic() - started, 1)}


def load_frames(path: Path) -> FittedFrames:
    """What `fit_frames` wrote.

    Raises:
        ModelFileError: the file is missing, damaged, or another kind's.
    """
    if not path.is_file():
        raise ModelFileError(f"{path} is missing; expected a file written by parvox fit-frames")
    tensors, state = load_tensors(path)
    try:
        if state.get("kind") != _KIND:
            raise ValueError(state.get("kind"))
        features, names = FbankSettings(**state["features"]), [str(name) for name in state["names"]]
        if len(set(names)) < len(names):
            raise ValueError("a class twice")
        if any(tensor.is_complex() for tensor in tensors.values()):
            raise ValueError("weights that are not real")
        classifier = FrameClassifier(features.bins, len(names))
        classifier.load_state_dict(tensors)
        if not _finite(classifier):
            raise ValueError("weights that are not finite")
    except (KeyError, TypeError, ValueError, RuntimeError, RecipeError) as error:
        raise ModelFileError(
            f"{path} holds no frame classifier; expected a file written by parvox fit-frames"
        ) from error
    return FittedFrames(classifier.eval(), features, names)


def _expect_own(out: Path) -> None:
    """Raise `OutputError` where something lies that is not a frame classifier."""
    try:
        if out.exists():
            load_frames(out)
    except ModelFileError as error:
        raise OutputError(
            f"{out} is nothing that parvox fit-frames wrote, so it is not replaced; choose another name"
        ) from error


def _finite(classifier: FrameClassifier) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in classifier.state_dict().values())


def give_frames(model: SpeakerModel) -> None:
    """Put the frame classifier that a model's settings name into it; nothing for models without phonetic positions.

    Raises:
        RecipeError: the settings name none, or it does not fit the model.
        ModelFileError: there is no such file, or it is damaged.
    """
    positions = getattr(model.encoder, "positions", None)
    if not isinstance(positions, PhoneticPositions):
        return
    path: str = getattr(model.settings.encoder, "frame_classifier", "")
    if not path:
        raise RecipeError(
            "model.frame_classifier: nothing given, and positions are phonetic; expected a file written by parvox "
            "fit-frames"
        )
    if not Path(path).is_file():
        raise RecipeError(f"model.frame_classifier: {path} is missing; fit it first: parvox fit-frames PREPARED {path}")
    fitted = load_frames(Path(path))
    if len(fitted.names) != positions.classifier.classes:
        raise RecipeError(
            f"model.phones: {positions.classifier.classes} given, but the frame classifier in {path} tells "
            f"{len(fitted.names)} classes apart; set it to {len(fitted.names)}"
        )
    if fitted.features != model.settings.features:
        differing = [
            f"{field.name} {getattr(fitted.features, field.name)}"
            for field in dataclasses.fields(FbankSettings)
            if getattr(fitted.features, field.name) != getattr(model.settings.features, field.name)
        ]
        raise RecipeError(
            f"model.frame_classifier: the one in {path} has other features than model.features ({differing[0]}); fit "
            "it with the model's --features"
        )
    positions.classifier.load_state_dict(fitted.classifier.state_dict())


@dataclass
class _LabelledBatches:
    """Padded utterances with a label for each frame."""

    labels: FrameLabels
    frontend: Fbank
    batch_s: float

    def of(self, cuts: list[Cut], order_seed: int | None = None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Features (batch, frames, bins), targets (batch, frames) and valid frames (batch,), where any is labelled."""
        device = self.frontend.mel.device
        for batch in iterate_utterances(cuts, max_batch_s=self.batch_s, order_seed=order_seed):
            with torch.no_grad():
                features, lengths = self.frontend(batch.waveforms.to(device), batch.lengths.to(device))
            frames = features.shape[1]
            targets = [self.labels.targets(name, frames, self.frontend.settings) for name in batch.ids]
            padded = ~mask_from_lengths(lengths, frames)
            stacked = torch.stack(targets).to(device).masked_fill(padded, NO_LABEL)
            if bool((stacked != NO_LABEL).any()):
                yield features, stacked, lengths


@torch.no_grad()
def _accuracy(
    classifier: FrameClassifier, batches: Iterable[tuple[Tensor, Tensor, Tensor]], frequent: int
) -> dict[str, float | None]:
    """How many of the labelled frames are right, and how many are of the class `frequent`, as fractions."""
    right = same = count = 0
    for features, targets, lengths in batches:
        right += int((classifier(features, lengths).argmax(-1) == targets).sum())
        same += int((targets == frequent).sum())
        count += int((targets != NO_LABEL).sum())
    return {
        "dev_accuracy": right / count if count else None,
        "dev_accuracy_of_one_class": same / count if count else None,
    }
