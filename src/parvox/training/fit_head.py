"""A speaker classifier for a teacher that has none, so that label-level methods can learn from it."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from parvox import __version__
from parvox.corpora.prepared import PreparedCorpus
from parvox.data import AugmentationSettings, Augmenter, Batches, DataSettings, UtteranceBatch
from parvox.errors import AudioError, OutputError, RecipeError, TrainingError
from parvox.files import atomic_folder, refuse_overwrite
from parvox.losses import LOSSES, LossSettings, SpeakerLoss
from parvox.losses.margin import MarginSoftmax
from parvox.progress import progress
from parvox.training import run as names
from parvox.training.checkpoint import save_tensors
from parvox.training.checks import expect_teacher_hears
from parvox.training.dev import DevScores, dev_scores
from parvox.training.engine import chosen_device, hardware
from parvox.training.teacher_settings import HEAD, TRANSFORMERS, TeacherOptions, teacher_path
from parvox.training.teachers import Teacher, load_teacher

_MOST_PASSES = 1000


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """How a head is fitted to frozen embeddings."""

    passes: int = 3
    """Times the teacher hears every utterance, each time cut and augmented anew; the embeddings stay in memory."""
    epochs: int = 30
    """Times the head sees every embedding."""
    batch_size: int = 512
    """Embeddings a step."""
    learning_rate: float = 0.01
    """Of AdamW at the start; falls to 0 with the cosine of the progress."""

    def __post_init__(self) -> None:
        for name in ("passes", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise RecipeError(f"head.{name}: {getattr(self, name)} given; expected 1 or more")
        if self.passes > _MOST_PASSES:  # all of them lie in memory
            raise RecipeError(f"head.passes: {self.passes} given; expected at most {_MOST_PASSES}")
        if not 0 < self.learning_rate <= 10:
            raise RecipeError(f"head.learning_rate: {self.learning_rate} given; expected more than 0, at most 10")


@dataclass(frozen=True, kw_only=True)
class HeadRecipe:
    """Everything a head is made from."""

    teacher: str
    """Any teacher, as `distillation.teacher` names it."""
    corpus: str
    """Folder of the prepared corpus whose training speakers it is to know."""
    seed: int
    """Decides the order of utterances and every draw."""
    loss: LossSettings
    head: HeadSettings = field(default_factory=HeadSettings)
    data: DataSettings = field(default_factory=DataSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    options: TeacherOptions = field(default_factory=TeacherOptions)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise RecipeError(f"seed: {self.seed} given; expected 0 to {2**63 - 1}")

    def to_dict(self) -> dict[str, Any]:
        """As plain data, the teacher and the corpus by their full paths."""
        parts = {name: dataclasses.asdict(getattr(self, name)) for name in ("head", "data", "augmentation", "options")}
        prefix = TRANSFORMERS if self.teacher.startswith(TRANSFORMERS) else ""
        teacher = prefix + os.path.abspath(teacher_path(self.teacher))
        loss = {"name": LOSSES.name_of(self.loss), **dataclasses.asdict(self.loss)}  # type: ignore[call-overload]
        plain: dict[str, Any] = json.loads(json.dumps({"loss": loss, **parts}))  # tuples become lists
        return {"teacher": teacher, "corpus": os.path.abspath(self.corpus), "seed": self.seed, **plain}


def fit_head(recipe: HeadRecipe, out: Path, *, device: str | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Train a speaker head on the frozen embeddings of a teacher, and write the folder that names both.

    Args:
        recipe: What to do.
        out: Folder to write, whole or not at all; `distillation.teacher` takes it.
        device: Where the teacher runs, as PyTorch names it; a GPU if there is one by default.
        overwrite: Replace a folder of this kind that is there.

    Returns:
        What `summary.json` holds.

    Raises:
        ModelFileError: there is no such teacher.
        CorpusError: the prepared corpus is missing or damaged.
        TrainingError: the teacher listens at another rate.
        OutputError: `out` exists, or cannot be written.
    """
    started = time.monotonic()
    _expect_outside(recipe, out)
    refuse_overwrite(out, overwrite, holds=HEAD)
    where = chosen_device(device)
    teacher = load_teacher(recipe.teacher, None, where, recipe.options)
    corpus = PreparedCorpus.load(Path(recipe.corpus))
    expect_teacher_hears(teacher, corpus.info.sample_rate_hz, recipe.data)
    batches = Batches(corpus, recipe.data, recipe.augmentation, seed=recipe.seed, pin_memory=where.type == "cuda")
    torch.manual_seed(recipe.seed)
    classifier = recipe.loss.build(teacher.side.embedding_dim, batches.classes)
    scores = score_teacher(teacher, corpus, where)
    embeddings, labels = _embeddings(teacher, batches, recipe.head.passes, where)
    embedded = time.monotonic()
    accuracy = _fit(classifier.to(where), embeddings, labels, recipe)
    _expect_finite(classifier)
    summary = {
        "teacher": teacher.side.name,
        "teacher_note": teacher.note,
        "embedding_dim": teacher.side.embedding_dim,
        "classes": batches.classes,
        "embeddings": len(labels),
        "training_accuracy": round(accuracy, 6),
        "teacher_dev_eer": scores.eer if scores else None,
        "seconds_embedding": round(embedded - started, 1),
        "seconds": round(time.monotonic() - started, 1),
        "hardware": hardware(),
        "corpus": corpus.info.name,
        "corpus_fingerprint": corpus.info.fingerprint,
        "synthetic": corpus.info.synthetic,
        "parvox_version": __version__,
    }
    with atomic_folder(out, overwrite=overwrite, holds=HEAD) as folder:
        save_tensors(folder / names.CLASSIFIER, classifier.state_dict())
        summary[names.CHECKSUMS] = {names.CLASSIFIER: names.file_checksum(folder / names.CLASSIFIER)}
        told = {"checksum": teacher.checksum, **recipe.to_dict()}
        (folder / HEAD).write_text(yaml.safe_dump(told, sort_keys=False, allow_unicode=True), encoding="utf-8")
        speakers = {"speakers": batches.speakers, "classes": batches.classes}
        (folder / names.SPEAKERS).write_text(json.dumps(speakers, indent=1), encoding="utf-8")
        (folder / names.SUMMARY).write_text(json.dumps(summary, indent=1), encoding="utf-8")
    return summary


def score_teacher(teacher: Teacher, corpus: PreparedCorpus, device: torch.device) -> DevScores | None:
    """EER and minDCF of a teacher on the dev trials, each utterance whole; None without trials."""

    def embed(batch: UtteranceBatch) -> Tensor:
        rows = []
        for waveform, length, name in zip(batch.waveforms, batch.lengths.tolist(), batch.ids, strict=True):
            if length < teacher.min_samples:
                raise AudioError(f"{name}: too short for the teacher {teacher.side.name}")
            rows.append(teacher.embed(waveform[None, :length].to(device)))
        return torch.cat(rows)

    return dev_scores(corpus, embed)


def _expect_outside(recipe: HeadRecipe, out: Path) -> None:
    for what, folder in (("the corpus", Path(recipe.corpus)), ("the teacher", teacher_path(recipe.teacher))):
        path = Path(os.path.realpath(folder))
        if Path(os.path.realpath(out)) in (path, *path.parents):
            raise OutputError(f"{out} holds {what}, {folder}; choose another --out")


def _embeddings(teacher: Teacher, batches: Batches, passes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(items, embedding_dim) float32 and (items,) classes, on the CPU."""
    augmenter = Augmenter(batches.sample_rate_hz)
    total = passes * batches.batches_per_epoch
    rows: list[Tensor] = []
    labels: list[Tensor] = []
    everything = (batch for number in range(passes) for batch in batches.epoch(number))
    for batch in progress(everything, f"{teacher.side.name}: embed", total=total, unit="batch"):
        labels.append(batch.labels)
        moved = batch.to(device, non_blocking=True)
        with torch.no_grad():
            rows.append(teacher.embed(augmenter.augment_waveforms(moved)).float().cpu())
    return torch.cat(rows), torch.cat(labels)


def _fit(classifier: SpeakerLoss, embeddings: Tensor, labels: Tensor, recipe: HeadRecipe) -> float:
    """Train the head; the share of the embeddings that it then gives to their speakers."""
    settings = recipe.head
    device = next(classifier.parameters()).device
    _start_from_means(classifier, embeddings, labels)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    steps = settings.epochs * -(-len(labels) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(recipe.seed)
    for step, rows in progress(_rows(len(labels), settings, generator), "head", total=steps, unit="step"):
        classifier.set_progress(step / steps)
        loss = classifier(embeddings[rows].to(device), labels[rows].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    classifier.set_progress(1.0)
    with torch.no_grad():
        hits = sum(
            int((classifier.logits(part.to(device)).argmax(-1).cpu() == truth).sum())
            for part, truth in zip(embeddings.split(4096), labels.split(4096), strict=True)
        )
    return hits / len(labels)


def _expect_finite(classifier: SpeakerLoss) -> None:
    if not all(bool(parameter.isfinite().all()) for parameter in classifier.parameters()):
        raise TrainingError(
            "the head's weights are no longer finite, so nothing is written; lower head.learning_rate or loss.scale"
        )


def _rows(count: int, settings: HeadSettings, generator: torch.Generator) -> Iterator[tuple[int, Tensor]]:
    """Steps and the embeddings of each."""
    step = 0
    for _ in range(settings.epochs):
        for rows in torch.randperm(count, generator=generator).split(settings.batch_size):
            yield step, rows
            step += 1


def _start_from_means(classifier: SpeakerLoss, embeddings: Tensor, labels: Tensor) -> None:
    """Put each centre of a margin loss at its speaker's mean direction, from which little is left to learn."""
    if not isinstance(classifier, MarginSoftmax) or classifier.settings.sub_centres > 1:
        return
    sums = torch.zeros(classifier.classes, embeddings.shape[1])
    sums.index_add_(0, labels, torch.nn.functional.normalize(embeddings))
    with torch.no_grad():
        classifier.weight.copy_(torch.nn.functional.normalize(sums))
