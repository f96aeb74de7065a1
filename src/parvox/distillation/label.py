"""Label-level distillation: the student follows the teacher's posteriors over speakers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from parvox.distillation.alignment import instance_alignment
from parvox.distillation.checks import expect_labels, expect_same_classes, not_negative, positive_temperature
from parvox.distillation.contract import METHODS, DistillationMethod, Pair, View


@METHODS.register("label", source="Hinton et al. 2015; for speakers Wang et al., ICASSP 2019")
@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """Label-level distillation: Kullback-Leibler divergence of softened speaker posteriors."""

    reads_logits: ClassVar[bool] = True

    weight: float = 1.0
    """Weight of the term."""
    temperature: float = 4.0
    """Softens both posteriors; the term is multiplied by its square, so that gradients keep their size."""
    margin: bool = False
    """Whether both logits carry the margin at the true speaker."""

    def __post_init__(self) -> None:
        not_negative("label", weight=self.weight)
        positive_temperature("label", self.temperature)

    def build(self, pair: Pair) -> LabelDistillation:
        """The method for this pair; their classifiers must know the same speakers."""
        expect_same_classes("label", pair)
        if self.margin:
            expect_labels("label", pair)
        return LabelDistillation(self)


class LabelDistillation(DistillationMethod):
    """T² KL(softmax(z_T / T) ‖ softmax(z_S / T)), the mean over the batch.

    Args:
        settings: Temperature and whether the logits carry the margin.
    """

    def __init__(self, settings: LabelSettings) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, student: View, teacher: View, progress: float) -> dict[str, Tensor]:
        """The term `label_kl`."""
        temperature, margin = self.settings.temperature, self.settings.margin
        term = instance_alignment(student.logits(margin), teacher.logits(margin), temperature)
        return {"label_kl": term}
