"""Decoupled knowledge distillation: target and non-target parts with weights of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from parvox.distillation.checks import expect_labels, expect_same_classes, fraction, not_negative, positive_temperature
from parvox.distillation.contract import METHODS, DistillationMethod, Pair
from parvox.distillation.decoupled import DecoupledDistillation, Emphasis

_NAME = "dkd"


@METHODS.register(_NAME, source="Zhao et al., CVPR 2022, arXiv 2203.08679")
@dataclass(frozen=True, kw_only=True)
class DkdSettings:
    """Decoupled distillation: w T² [α TCKD + β NCKD].

    The parts are those of `non_target`. Defaults are the authors' for CIFAR-100 (github.com/megvii-research/mdistiller,
    20 of 240 epochs of warm-up); for ImageNet they take β = 0.5, T = 1.
    """

    reads_logits: ClassVar[bool] = True

    weight: float = 1.0
    """Weight of both parts."""
    alpha: float = 1.0
    """Weight of the target part."""
    beta: float = 8.0
    """Weight of the non-target part."""
    temperature: float = 4.0
    """Softens both posteriors; the parts are multiplied by its square."""
    margin: bool = False
    """Whether both logits carry the margin at the true speaker."""
    warmup: float = 0.08
    """Fraction of the training in which both parts rise from zero."""

    def __post_init__(self) -> None:
        not_negative(_NAME, weight=self.weight, alpha=self.alpha, beta=self.beta)
        positive_temperature(_NAME, self.temperature)
        fraction(_NAME, warmup=self.warmup)

    def build(self, pair: Pair) -> DistillationMethod:
        """The method for this pair; their classifiers must know the same speakers."""
        expect_same_classes(_NAME, pair)
        expect_labels(_NAME, pair)
        emphasis = Emphasis(self.alpha, self.beta, self.temperature, self.margin, self.warmup)
        return DecoupledDistillation(_NAME, emphasis)
