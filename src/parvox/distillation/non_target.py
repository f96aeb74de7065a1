"""Emphasised knowledge of non-target speakers: what the teacher says about all the others counts more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from parvox.distillation.checks import expect_labels, expect_same_classes, fraction, not_negative, positive_temperature
from parvox.distillation.contract import METHODS, DistillationMethod, Pair
from parvox.distillation.decoupled import DecoupledDistillation, Emphasis, NonTargets
from parvox.errors import RecipeError

_NAME = "non_target"


@METHODS.register(_NAME, source="Truong et al., ICASSP 2024, arXiv 2309.14838")
@dataclass(frozen=True, kw_only=True)
class NonTargetSettings:
    """Emphasised non-target speakers: w T² [TSKD + γ NSKD].

    TSKD is the divergence of the posteriors of target against all others, NSKD that of the posteriors of the others
    among themselves. γ, the warm-up (20 of 150 epochs), T = 1 and logits with the margin are those of the authors'
    code (github.com/ductuantruong/enskd); there the teacher has its final margin, and the student the margin that
    its own schedule has reached. The margin changes TSKD alone; the inter-topK penalty of a loss with `top_k`, which
    comes with it, changes NSKD too. At a temperature above 1, or with that penalty, take logits without margin.
    How the paper varies the number of non-target speakers was not to be had: here `non_targets` restricts what
    both parts see, and the student's own loss goes on telling all speakers apart.
    """

    reads_logits: ClassVar[bool] = True

    weight: float = 1.0
    """Weight of both parts."""
    gamma: float = 2.0
    """Weight of the non-target part beside the target part."""
    temperature: float = 1.0
    """Softens both posteriors; the parts are multiplied by its square."""
    margin: bool = True
    """Whether both logits carry the margin at the true speaker."""
    warmup: float = 0.13
    """Fraction of the training in which both parts rise from zero."""
    non_targets: int = 0
    """Other speakers that are looked at, the same in all batches; 0 for all of them."""
    seed: int = 1
    """Decides which speakers those are."""

    def __post_init__(self) -> None:
        not_negative(_NAME, weight=self.weight, gamma=self.gamma, non_targets=self.non_targets, seed=self.seed)
        positive_temperature(_NAME, self.temperature)
        fraction(_NAME, warmup=self.warmup)

    def build(self, pair: Pair) -> DistillationMethod:
        """The method for this pair; their classifiers must know the same speakers, more than `non_targets`."""
        expect_same_classes(_NAME, pair)
        expect_labels(_NAME, pair)
        classes = pair.student.classes
        if self.non_targets >= classes:
            raise RecipeError(
                f"distillation.{_NAME}.non_targets: {self.non_targets} given; expected at most {classes - 1}, all "
                "other speaker classes, or 0"
            )
        others = NonTargets(classes, self.non_targets, self.seed) if self.non_targets else None
        emphasis = Emphasis(1.0, self.gamma, self.temperature, self.margin, self.warmup)
        return DecoupledDistillation(_NAME, emphasis, others)
