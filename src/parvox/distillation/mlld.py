"""Multi-level logit distillation: posteriors aligned by instance, class and batch, at several temperatures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from parvox.distillation.alignment import weighted_levels
from parvox.distillation.checks import expect_labels, expect_same_classes, not_negative, positive_temperature
from parvox.distillation.contract import METHODS, DistillationMethod, Pair, View
from parvox.errors import RecipeError

_NAME = "mlld"


@METHODS.register(_NAME, source="Jin et al., CVPR 2023; code github.com/Jin-Ying/Multi-Level-Logit-Distillation")
@dataclass(frozen=True, kw_only=True)
class MlldSettings:
    """Multi-level logit distillation: Σ_T (instance + class + batch alignment).

    Temperatures and normalisations are those of the authors' code. It trains on a weak and a strong augmentation of
    each image, and on the weak one leaves out what the teacher is surest of; there the mask is applied to terms that
    are already averaged, so that it only scales them. Here are one view, and with `uncertain` a mask by instance and
    class as the paper describes it.
    """

    reads_logits: ClassVar[bool] = True

    weight: float = 1.0
    """Weight of all terms."""
    temperatures: tuple[float, ...] = (2.0, 3.0, 4.0, 5.0, 6.0)
    """The terms are summed over these."""
    instance_weight: float = 1.0
    """Weight of the alignment of each instance's posteriors."""
    class_weight: float = 1.0
    """Weight of the alignment between classes."""
    batch_weight: float = 1.0
    """Weight of the alignment between instances."""
    margin: bool = False
    """Whether both logits carry the margin at the true speaker."""
    uncertain: bool = False
    """Whether only the half of the instances, and of the classes, counts of which the teacher is less sure."""

    def __post_init__(self) -> None:
        not_negative(
            _NAME,
            weight=self.weight,
            instance_weight=self.instance_weight,
            class_weight=self.class_weight,
            batch_weight=self.batch_weight,
        )
        if not self.temperatures:
            raise RecipeError(f"distillation.{_NAME}.temperatures: none given; expected one or more, such as [4]")
        for temperature in self.temperatures:
            positive_temperature(_NAME, temperature, field="temperatures")

    def build(self, pair: Pair) -> DistillationMethod:
        """The method for this pair; their classifiers must know the same speakers."""
        expect_same_classes(_NAME, pair)
        if self.margin:
            expect_labels(_NAME, pair)
        return MultiLevelDistillation(self)


class MultiLevelDistillation(DistillationMethod):
    """Instance, class and batch alignment, summed over temperatures.

    Args:
        settings: Temperatures and weights.
    """

    def __init__(self, settings: MlldSettings) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, student: View, teacher: View, progress: float) -> dict[str, Tensor]:
        """The terms `mlld_instance`, `mlld_class` and `mlld_batch`, each with its weight."""
        settings = self.settings
        ours, theirs = student.logits(settings.margin), teacher.logits(settings.margin)
        instances, classes = uncertain(theirs) if settings.uncertain else (None, None)
        weights = (settings.instance_weight, settings.class_weight, settings.batch_weight)
        return weighted_levels(_NAME, ours, theirs, settings.temperatures, weights, instances, classes)


def uncertain(teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
    """The instances of which the teacher is at most as sure as of the median one, and likewise the classes.

    Args:
        teacher_logits: (batch, classes).

    Returns:
        (batch,) and (classes,) float, 1 where kept and 0 elsewhere. A class's sureness is the sum of its posteriors.
    """
    posteriors = teacher_logits.float().softmax(-1)
    halves = []
    for sureness in (posteriors.amax(1), posteriors.sum(0)):
        halves.append((sureness <= sureness.median()).float())
    return halves[0], halves[1]
