"""A small TDNN of depthwise-separable blocks, meant for int8 on a processor core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from parvox.errors import RecipeError
from parvox.models.contract import Encoder, EncoderOutput, masked, strided_lengths
from parvox.models.layers import (
    MOST_CHANNELS,
    MOST_LAYERS,
    SameConv1d,
    SqueezeExcitation,
    check_each_positive,
    check_odd,
    check_positive,
    initialise,
)
from parvox.models.registry import ENCODERS

_NAME = "depthwise_tdnn"


@ENCODERS.register(
    _NAME, source="Parvox; blocks after Liu et al., CVPR 2022 (ConvNeXt) and Heo et al., ICASSP 2024 (NeXt-TDNN)"
)
@dataclass(frozen=True, kw_only=True)
class DepthwiseTdnnSettings:
    """Small depthwise-separable TDNN; the defaults make a model of under one million parameters."""

    default_pooling: ClassVar[str] = "attentive_statistics"
    default_embedding_dim: ClassVar[int] = 192
    default_head: ClassVar[str] = "bn_linear"

    channels: int = 128
    """Channels between the blocks."""
    expansion: int = 2
    """How many times wider the blocks are inside."""
    kernel: int = 7
    """Kernel of the depthwise convolutions."""
    dilations: tuple[int, ...] = (1, 2, 3, 4, 1, 2, 3, 4)
    """Dilation of each block; as many blocks as there are numbers."""
    stem_kernel: int = 5
    """Kernel of the first convolution."""
    stride: int = 2
    """Feature frames per frame inside the network."""
    se_dim: int = 32
    """Width of the squeeze-excitation bottleneck; 0 leaves it out."""
    frames_dim: int = 256
    """Channels of the frames that go to the pooling."""

    def __post_init__(self) -> None:
        check_positive(
            _NAME,
            channels=self.channels,
            expansion=self.expansion,
            frames_dim=self.frames_dim,
        )
        check_positive(_NAME, MOST_LAYERS, stride=self.stride)
        check_odd(_NAME, kernel=self.kernel, stem_kernel=self.stem_kernel)
        check_each_positive(_NAME, dilations=self.dilations)
        if not 0 <= self.se_dim <= MOST_CHANNELS:
            raise RecipeError(f"{_NAME}: se_dim {self.se_dim} given; expected 0 (none) to {MOST_CHANNELS}")

    def build(self, bins: int) -> Encoder:
        """The encoder for features of `bins` bins."""
        return DepthwiseTdnn(self, bins)


class DepthwiseTdnn(Encoder):
    """A strided convolution, residual depthwise-separable blocks, and a pointwise layer.

    Every normalisation follows a convolution directly, so that export folds it away.

    Args:
        settings: Sizes.
        bins: Feature bins.
    """

    def __init__(self, settings: DepthwiseTdnnSettings, bins: int) -> None:
        super().__init__()
        self.frames_dim = settings.frames_dim
        self.time_stride = settings.stride
        self.stem = nn.Conv1d(
            bins,
            settings.channels,
            settings.stem_kernel,
            stride=settings.stride,
            padding=settings.stem_kernel // 2,
            bias=False,
        )
        self.stem_norm = nn.BatchNorm1d(settings.channels)
        self.blocks = nn.ModuleList(SeparableBlock(settings, dilation) for dilation in settings.dilations)
        self.leave = SameConv1d(settings.channels, settings.frames_dim, bias=False)
        self.leave_norm = nn.BatchNorm1d(settings.frames_dim)
        initialise(self)

    def forward(self, features: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> EncoderOutput:
        """See `Encoder.forward`."""
        kernel = self.stem.kernel_size[0]
        frames = self.stem_norm(self.stem(masked(features.transpose(1, 2), lengths))).relu()
        lengths = strided_lengths(lengths, kernel, self.time_stride, kernel // 2)
        for block in self.blocks:
            frames = block(frames, lengths)
        return EncoderOutput(frames=self.leave_norm(self.leave(frames)).relu(), lengths=lengths)


class SeparableBlock(nn.Module):
    """Depthwise convolution, then two pointwise layers, the first wider; squeeze-excitation; residual.

    Args:
        settings: Sizes.
        dilation: Spacing of the depthwise kernel's taps.
    """

    def __init__(self, settings: DepthwiseTdnnSettings, dilation: int) -> None:
        super().__init__()
        channels, inner = settings.channels, settings.channels * settings.expansion
        self.depthwise = SameConv1d(channels, channels, settings.kernel, dilation=dilation, groups=channels, bias=False)
        self.depthwise_norm = nn.BatchNorm1d(channels)
        self.widen = SameConv1d(channels, inner, bias=False)
        self.widen_norm = nn.BatchNorm1d(inner)
        self.narrow = SameConv1d(inner, channels, bias=False)
        self.narrow_norm = nn.BatchNorm1d(channels)
        self.gate = SqueezeExcitation(channels, settings.se_dim) if settings.se_dim else None

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Transform `frames` (batch, channels, time)."""
        inner = self.depthwise_norm(self.depthwise(frames, lengths))
        inner = self.widen_norm(self.widen(inner)).relu()
        inner = self.narrow_norm(self.narrow(inner))
        if self.gate is not None:
            inner = self.gate(inner, lengths)
        result: Tensor = (frames + inner).relu()
        return result
