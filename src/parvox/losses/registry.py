"""What a speaker loss is, and the losses a recipe can name."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from parvox.errors import RecipeError
from parvox.registry import Registry


class SpeakerLoss(nn.Module):
    """A classifier over training speakers, with its loss.

    Attributes:
        embedding_dim: Size of the embeddings it takes.
        classes: Training speakers.
    """

    def __init__(self, embedding_dim: int, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise RecipeError(f"loss: {classes} speakers given; expected at least 2 to tell apart")
        self.embedding_dim = embedding_dim
        self.classes = classes

    @property
    def margin(self) -> float:
        """The margin in force, after the schedule."""
        return 0.0

    def set_progress(self, progress: float) -> None:
        """Say how much of the training is done, from 0 to 1; the margin's schedule follows."""

    def scores(self, embeddings: Tensor) -> Tensor:
        """Closeness of embeddings (batch, embedding_dim) to each speaker, (batch, classes); cosines, with a margin."""
        raise NotImplementedError

    def logits(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the softmax is taken of.

        Args:
            embeddings: (batch, embedding_dim).
            labels: (batch,) int64 true speakers, to which the margin applies; None for logits without margin.

        Returns:
            (batch, classes) float32, scaled.
        """
        return self.logits_of(self.scores(embeddings), labels)

    def logits_of(self, scores: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits of what `scores` gave, so that those with and without margin share its product.

        Args:
            scores: (batch, classes).
            labels: As for `logits`.
        """
        raise NotImplementedError

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of embeddings (batch, embedding_dim) against true speakers (batch,)."""
        logits = self.logits(embeddings, labels)
        with torch.autocast(logits.device.type, enabled=False):
            return nn.functional.cross_entropy(logits, labels)


class LossSettings(Protocol):
    """Settings of a speaker loss, as a recipe fills them."""

    def build(self, embedding_dim: int, classes: int) -> SpeakerLoss:
        """The loss for embeddings of this size and so many training speakers.

        Raises:
            RecipeError: the settings do not fit the number of speakers.
        """
        ...


LOSSES: Registry[LossSettings] = Registry("loss")
