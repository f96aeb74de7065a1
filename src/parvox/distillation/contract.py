"""What a distillation method sees, and what it owes.

A method is a module that looks at the student's and the frozen teacher's view of one batch and returns named loss
terms. What it needs from the pair it checks when it is built, before any data is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor, nn

from parvox.losses.margin import SpeakerLoss
from parvox.models.contract import SpeakerOutput
from parvox.models.speaker_model import SpeakerModel
from parvox.registry import Registry


class View:
    """One model's result on one batch.

    No dataclass on purpose: engines that cast or copy the inputs of a module would reach into one.

    Args:
        output: What the model gave; embedding (batch, embedding_dim).
        classifier: The model's own speaker head.
        labels: (batch,) int64 true speakers.
    """

    def __init__(self, output: SpeakerOutput, classifier: SpeakerLoss, labels: Tensor) -> None:
        self.output = output
        self.classifier = classifier
        self.labels = labels

    @cached_property
    def free_logits(self) -> Tensor:
        """(batch, classes), scaled, without margin."""
        return self.classifier.logits(self.output.embedding)

    @cached_property
    def margin_logits(self) -> Tensor:
        """(batch, classes), scaled, with the margin at the true speaker."""
        return self.classifier.logits(self.output.embedding, self.labels)

    def logits(self, margin: bool) -> Tensor:
        """(batch, classes) with or without margin; computed once a batch however many methods ask."""
        return self.margin_logits if margin else self.free_logits


@dataclass
class Side:
    """One of the pair, as a method sees it when it is built."""

    model: SpeakerModel
    classifier: SpeakerLoss


class DistillationMethod(nn.Module):
    """What the student owes the teacher, by one method.

    Parameters of its own (a projector, a head) are trained with the student, counted in every table, and never
    shipped.
    """

    def forward(self, student: View, teacher: View, progress: float) -> dict[str, Tensor]:
        """Loss terms of a batch, by name, unweighted.

        Args:
            student: With gradients.
            teacher: Without.
            progress: Fraction of the training done, from 0 to 1.
        """
        raise NotImplementedError


class MethodSettings(Protocol):
    """Settings of a method, as a recipe fills them."""

    @property
    def weight(self) -> float:
        """Weight of the method's terms in the sum."""
        ...

    def build(self, student: Side, teacher: Side) -> DistillationMethod:
        """The method for this pair.

        Raises:
            RecipeError: the pair lacks what the method needs.
        """
        ...


METHODS: Registry[MethodSettings] = Registry("distillation method")
