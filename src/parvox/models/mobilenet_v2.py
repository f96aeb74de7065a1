"""MobileNetV2 on the time-frequency plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from parvox.errors import RecipeError
from parvox.models.contract import Encoder, EncoderOutput, masked, strided_lengths
from parvox.models.layers import check_positive, initialise
from parvox.models.registry import ENCODERS

_NAME = "mobilenet_v2"
_STEM_CHANNELS = 32
# Expansion, channels, blocks, stride: table 2 of the paper.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_HALVINGS = 5


@ENCODERS.register(_NAME, source="Sandler et al., CVPR 2018, arXiv 1801.04381; on audio as in PANNs, arXiv 1912.10211")
@dataclass(frozen=True, kw_only=True)
class MobileNetV2Settings:
    """MobileNetV2 for audio; the defaults are the paper's sizes."""

    default_pooling: ClassVar[str] = "statistics"
    default_embedding_dim: ClassVar[int] = 192
    default_head: ClassVar[str] = "bn_linear"

    width: float = 1.0
    """What all channels are multiplied by (then rounded to multiples of 8)."""
    frames_dim: int = 1280
    """Channels of the frames that go to the pooling."""
    time_stride: int = 8
    """Feature frames per output frame: 1, 2, 4, 8, 16 or 32; frequency is always shortened 32-fold."""

    def __post_init__(self) -> None:
        check_positive(_NAME, frames_dim=self.frames_dim)
        if not 0.05 <= self.width <= 10:
            raise RecipeError(f"{_NAME}: width {self.width} given; expected 0.05 to 10 (1 is the paper's)")
        allowed = [2**halvings for halvings in range(_HALVINGS + 1)]
        if self.time_stride not in allowed:
            raise RecipeError(f"{_NAME}: time_stride {self.time_stride} given; expected one of {allowed}")

    def build(self, bins: int) -> Encoder:
        """The encoder for features of `bins` bins."""
        return MobileNetV2(self, bins)


class MobileNetV2(Encoder):
    """Inverted residual blocks; the frequency axis is averaged away at the end.

    Speech needs finer time than pictures need space: only the first of the five halvings apply to the time axis, as
    many as `time_stride` says.

    Args:
        settings: Sizes.
        bins: Feature bins.
    """

    def __init__(self, settings: MobileNetV2Settings, bins: int) -> None:
        super().__init__()
        check_positive(_NAME, bins=bins)
        self.frames_dim = settings.frames_dim
        self.time_stride = settings.time_stride
        halvings = settings.time_stride.bit_length() - 1
        time_strides = iter([2] * halvings + [1] * (_HALVINGS - halvings))

        def strides(stride: int) -> tuple[int, int]:
            return (2, next(time_strides)) if stride == 2 else (1, 1)

        channels = _scaled(_STEM_CHANNELS, settings.width)
        self.stem_stride = strides(2)
        self.stem = nn.Conv2d(1, channels, 3, stride=self.stem_stride, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels)
        blocks: list[nn.Module] = []
        for expansion, stage_channels, count, stride in _STAGES:
            outputs = _scaled(stage_channels, settings.width)
            for index in range(count):
                blocks.append(InvertedResidual(channels, outputs, expansion, strides(stride) if index == 0 else (1, 1)))
                channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.leave = nn.Conv2d(channels, settings.frames_dim, 1, bias=False)
        self.leave_norm = nn.BatchNorm2d(settings.frames_dim)
        initialise(self)

    def forward(self, features: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> EncoderOutput:
        """See `Encoder.forward`."""
        plane = masked(features.transpose(1, 2).unsqueeze(1), lengths)  # (batch, 1, bins, time)
        plane = nn.functional.relu6(self.stem_norm(self.stem(plane)))
        lengths = strided_lengths(lengths, 3, self.stem_stride[1], 1)
        for block in self.blocks:
            plane, lengths = block(plane, lengths)
        plane = nn.functional.relu6(self.leave_norm(self.leave(plane)))
        return EncoderOutput(frames=plane.mean(2), lengths=lengths)


class InvertedResidual(nn.Module):
    """Widen, filter each channel apart, narrow without rectification; residual where shapes allow.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        expansion: How many times wider the middle is; 1 leaves the widening layer out.
        strides: Of the depthwise convolution, along frequency and time.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, strides: tuple[int, int]) -> None:
        super().__init__()
        inner = inputs * expansion
        self.time_stride = strides[1]
        self.residual = strides == (1, 1) and inputs == outputs
        self.widen = nn.Conv2d(inputs, inner, 1, bias=False) if expansion > 1 else None
        self.widen_norm = nn.BatchNorm2d(inner) if expansion > 1 else None
        self.depthwise = nn.Conv2d(inner, inner, 3, stride=strides, padding=1, groups=inner, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(inner)
        self.narrow = nn.Conv2d(inner, outputs, 1, bias=False)
        self.narrow_norm = nn.BatchNorm2d(outputs)

    def forward(self, plane: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Transform `plane` (batch, channels, bins, time)."""
        inner = plane
        if self.widen is not None and self.widen_norm is not None:
            inner = nn.functional.relu6(self.widen_norm(self.widen(inner)))
        inner = nn.functional.relu6(self.depthwise_norm(self.depthwise(masked(inner, lengths))))
        inner = self.narrow_norm(self.narrow(inner))
        return plane + inner if self.residual else inner, strided_lengths(lengths, 3, self.time_stride, 1)


def _scaled(channels: int, width: float) -> int:
    """The nearest multiple of 8 that is not more than a tenth below `channels` × `width`, at least 8."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded
