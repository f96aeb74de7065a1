"""What every frozen teacher gives."""

from __future__ import annotations

from torch import Tensor

from parvox.data.batch import Batch
from parvox.distillation.contract import Side, View


class Inputs:
    """What student and teacher are given of one batch, augmented alike.

    No dataclass on purpose, as `View`.

    Args:
        waveforms: (batch, samples).
        features: (batch, frames, bins) by the student's front end.
        labels: (batch,) int64; None for speech without labels.
        batch: Which utterances these are, and how they were cut.
    """

    def __init__(
        self, waveforms: Tensor, features: Tensor, labels: Tensor | None = None, batch: Batch | None = None
    ) -> None:
        self.waveforms = waveforms
        self.features = features
        self.labels = labels
        self.batch = batch


class Teacher:
    """A frozen model that a student learns from: outside the trained, saved and replicated module.

    Attributes:
        side: What it can show, for the methods to check.
        sample_rate_hz: What it listens at.
        speakers: Whom its classifier knows, in class order; None without a classifier.
    """

    side: Side
    sample_rate_hz: int
    speakers: list[str] | None = None

    def view(self, inputs: Inputs) -> View:
        """Its result on a batch, without gradients.

        Args:
            inputs: The batch.
        """
        raise NotImplementedError
