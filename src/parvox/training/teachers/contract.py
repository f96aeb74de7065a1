"""What every frozen teacher gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from parvox.data.batch import Batch
from parvox.distillation.contract import Side, View
from parvox.losses import SpeakerLoss
from parvox.models import SpeakerModel


class Inputs:
    """What student and teacher are given of one batch, augmented alike.

    No dataclass on purpose, as `View`.

    Args:
        waveforms: (batch, samples).
        features: (batch, frames, bins) by the student's front end.
        labels: (batch,) int64; None for speech without labels.
        batch: Which utterances these are, and how they were cut.
        teacher_features: Likewise by the student's front end, but as augmentation has teachers hear them.
        augment: What augmentation does to features on the teacher's side; nothing if None.
    """

    def __init__(
        self,
        waveforms: Tensor,
        features: Tensor,
        labels: Tensor | None = None,
        batch: Batch | None = None,
        *,
        teacher_features: Tensor | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.waveforms = waveforms
        self.features = features
        self.labels = labels
        self.batch = batch
        self.teacher_features = features if teacher_features is None else teacher_features
        self.augment = augment

    @torch.no_grad()
    def own_features(self, teacher: SpeakerModel) -> Tensor:
        """Features (batch, frames, bins) by the front end of a teacher, augmented."""
        features, _ = teacher.extract_features(self.waveforms)
        return features if self.augment is None else self.augment(features)


class Teacher:
    """A frozen model that a student learns from: outside the trained, saved and replicated module.

    Attributes:
        side: What it can show, for the methods to check.
        sample_rate_hz: What it listens at.
        min_samples: The shortest waveform it takes.
        classifier: Its speaker head; None without one.
        speakers: Whom its classifier knows, in class order; None without a classifier.
        checksum: SHA-256 of its weights, and of how it is fed and read where these leave that open.
        told: What decides its embeddings beside its weights, in words of no particular form.
        note: What it is fed, and how that was found out; empty for a teacher that leaves no doubt.
        parameters: Its weights; 0 where they are not known.
    """

    side: Side
    sample_rate_hz: int
    min_samples: int = 1
    classifier: SpeakerLoss | None = None
    speakers: list[str] | None = None
    checksum: str = ""
    told: str = ""
    note: str = ""
    parameters: int = 0

    @property
    def checksums(self) -> list[str]:
        """`checksum`, or those of all who teach together."""
        return [self.checksum]

    def embed(self, waveforms: Tensor) -> Tensor:
        """Embeddings (batch, embedding_dim), not length-normalised and without gradients.

        Args:
            waveforms: (batch, samples) float in [-1, 1], all of one length.
        """
        raise NotImplementedError

    def view(self, inputs: Inputs) -> View:
        """Its result on a batch, without gradients.

        Args:
            inputs: The batch.
        """
        return View(self.embed(inputs.waveforms), self.classifier, inputs.labels, batch=inputs.batch)

    def hears(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """What of a batch decides its embeddings."""
        return (inputs.waveforms,)

    def show_embeddings_alone(self) -> None:
        """Hear that nobody will look inside, and compute ahead what fixed weights allow."""

    def give_head(self, name: str, classifier: SpeakerLoss, speakers: list[str]) -> None:
        """Put a speaker head of its own in place of whatever it has.

        Args:
            name: What messages call the teacher from now on.
            classifier: Frozen, for its embeddings.
            speakers: Whom it knows, in class order.
        """
        self.classifier, self.speakers = classifier, speakers
        self.side = dataclasses.replace(
            self.side, name=name, classes=classifier.classes, classifier=classifier, speakers=speakers
        )
