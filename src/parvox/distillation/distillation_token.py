"""A token of its own for what the teacher says, beside the class token, which follows the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from parvox.distillation.alignment import instance_alignment
from parvox.distillation.checks import expect_labels, expect_same_classes, not_negative, positive_temperature
from parvox.distillation.contract import METHODS, DistillationMethod, Pair, View
from parvox.errors import RecipeError
from parvox.losses import SpeakerLoss
from parvox.losses.margin import MOST_SCALE, AmSoftmaxSettings, SoftmaxSettings
from parvox.models.tokens import ClassDistillationTokenSettings

_NAME = "distillation_token"


@METHODS.register(_NAME, source="Mingote et al., arXiv 2111.03842; after Touvron et al., DeiT, ICML 2021")
@dataclass(frozen=True, kw_only=True)
class DistillationTokenSettings:
    """Distillation token: the state of the student's second token follows the teacher's posteriors."""

    reads_logits: ClassVar[bool] = True

    weight: float = 1.0
    """Weight of the term."""
    temperature: float = 1.0
    """Softens both posteriors; the term is multiplied by its square, so that gradients keep their size."""
    margin: bool = False
    """Whether the teacher's logits carry its margin at the true speaker; the token's own head has none."""
    head: Literal["cosine", "linear"] = "cosine"
    """The token's own head: scaled cosines with a centre for each class, or a linear layer."""
    scale: float = 32.0
    """What cosines are multiplied by; best as in the teacher's loss."""

    def __post_init__(self) -> None:
        not_negative(_NAME, weight=self.weight)
        positive_temperature(_NAME, self.temperature)
        if self.head not in ("cosine", "linear"):
            raise RecipeError(f"distillation.{_NAME}.head: {self.head!r} given; expected cosine or linear")
        if not 0 < self.scale <= MOST_SCALE:
            raise RecipeError(
                f"distillation.{_NAME}.scale: {self.scale} given; expected more than 0, at most {MOST_SCALE}"
            )

    def build(self, pair: Pair) -> DistillationToken:
        """The method for this pair; the student must have the token, the teacher the student's classes."""
        expect_same_classes(_NAME, pair)
        expect_labels(_NAME, pair)  # which alone train the class token, and that is what is shipped
        student = pair.student.model
        pooling = student.settings.pooling if student else None
        if student is None or not isinstance(pooling, ClassDistillationTokenSettings):
            raise RecipeError(
                f"distillation.{_NAME}: {pair.student.name} has no distillation token; give it one with "
                "model.pooling.name class_distillation_token, on an encoder that takes tokens, such as "
                "memory_attention"
            )
        if pooling.read != "class":
            raise RecipeError(
                f"distillation.{_NAME}: model.pooling.read {pooling.read} given, by which labels would train the token "
                "that is to follow the teacher; expected class: the other read-outs need no training of their own"
            )
        return DistillationToken(self, self._head(student.encoder.frames_dim, pair.student.classes))

    def _head(self, width: int, classes: int) -> SpeakerLoss:
        if self.head == "linear":
            return SoftmaxSettings().build(width, classes)
        return AmSoftmaxSettings(scale=self.scale, margin=0.0).build(width, classes)


class DistillationToken(DistillationMethod):
    """T² KL(softmax(z_T / T) ‖ softmax(h(x_dist) / T)), the mean over the batch.

    x_dist is the distillation token's state after the last block, h a head of its own: labels reach neither, except
    through what the two tokens share. The head is not shipped; at test the state itself may be read.

    Source: Mingote et al., arXiv 2111.03842; the abstract says that the token mimics the teacher's predictions,
    temperature and kind of head are inferred.

    Args:
        settings: Temperature, and whether the teacher's logits carry the margin.
        head: From the token's state to logits.
    """

    def __init__(self, settings: DistillationTokenSettings, head: SpeakerLoss) -> None:
        super().__init__()
        self.settings = settings
        self.head = head

    def forward(self, student: View, teacher: View, progress: float) -> dict[str, Tensor]:
        """The term `distillation_token`."""
        assert student.encoded is not None  # it was asked for when the method was built
        assert student.encoded.tokens is not None
        logits = self.head.logits(student.encoded.tokens[:, 1])
        return {_NAME: instance_alignment(logits, teacher.logits(self.settings.margin), self.settings.temperature)}
