"""Attention transfer: the student's frames are active where the teacher's are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from parvox.distillation.checks import expect_models, not_negative
from parvox.distillation.contract import METHODS, DistillationMethod, Pair, View

_NAME = "attention_transfer"


@METHODS.register(_NAME, source="Zagoruyko and Komodakis, ICLR 2017, arXiv 1612.03928")
@dataclass(frozen=True, kw_only=True)
class AttentionTransferSettings:
    """Activation-based attention transfer over time, between encoders of any kind.

    The paper compares maps over an image's plane after several stages; here is one over time, of the frames that the
    encoder gives. Where the encoders have different strides, the longer map is averaged down to the shorter.
    """

    looks_inside: ClassVar[bool] = True

    weight: float = 1.0
    """Weight of the term."""

    def __post_init__(self) -> None:
        not_negative(_NAME, weight=self.weight)

    def build(self, pair: Pair) -> DistillationMethod:
        """The method for this pair; both must show their frames."""
        expect_models(_NAME, pair)
        return AttentionTransfer()


class AttentionTransfer(DistillationMethod):
    """‖Q_T / ‖Q_T‖ - Q_S / ‖Q_S‖‖², the mean over the batch, with Q(t) = Σ_c F[c, t]² of frames F."""

    def forward(self, student: View, teacher: View, progress: float) -> dict[str, Tensor]:
        """The term `attention_transfer`."""
        assert student.encoded is not None  # asked for when the method was built
        assert teacher.encoded is not None
        ours, theirs = activity(student.encoded.frames), activity(teacher.encoded.frames)
        shorter = min(ours.shape[1], theirs.shape[1])
        ours, theirs = (F.normalize(averaged(each, shorter)) for each in (ours, theirs))
        return {_NAME: (theirs - ours).square().sum(1).mean()}


def activity(frames: Tensor) -> Tensor:
    """Mean squared activation of each frame, (batch, time).

    Args:
        frames: (batch, channels, time).
    """
    return frames.float().square().mean(1)


def averaged(values: Tensor, length: int) -> Tensor:
    """`values` (batch, time) averaged down to (batch, length), by windows as even as can be.

    Args:
        values: What to average.
        length: At most the time.
    """
    time = values.shape[1]
    if time == length:
        return values
    # As a product of matrices: the gradient of adaptive pooling is not reproducible on a GPU.
    windows = F.adaptive_avg_pool1d(torch.eye(time, device=values.device), length)
    with torch.autocast(values.device.type, enabled=False):
        return values @ windows
