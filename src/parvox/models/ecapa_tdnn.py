"""ECAPA-TDNN: dilated Res2 blocks with channel attention and aggregation over depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from parvox.errors import RecipeError
from parvox.models.contract import Encoder, EncoderOutput
from parvox.models.layers import (
    SameConv1d,
    SqueezeExcitation,
    check_each_positive,
    check_odd,
    check_positive,
    initialise,
)
from parvox.models.registry import ENCODERS

_NAME = "ecapa_tdnn"


@ENCODERS.register(_NAME, source="Desplanques et al., Interspeech 2020, arXiv 2005.07143")
@dataclass(frozen=True, kw_only=True)
class EcapaTdnnSettings:
    """ECAPA-TDNN; the defaults are its smaller published size (C = 512)."""

    default_pooling: ClassVar[str] = "attentive_statistics"
    default_embedding_dim: ClassVar[int] = 192
    default_head: ClassVar[str] = "bn_linear"

    channels: int = 512
    """Channels of the blocks (512 or 1024 in the paper)."""
    frames_dim: int = 1536
    """Channels of the frames that go to the pooling."""
    scale: int = 8
    """Parts a Res2 layer splits its channels into."""
    kernel: int = 3
    """Kernel of the dilated convolutions."""
    dilations: tuple[int, ...] = (2, 3, 4)
    """Dilation of each block; as many blocks as there are numbers."""
    stem_kernel: int = 5
    """Kernel of the first convolution."""
    se_dim: int = 128
    """Width of the squeeze-excitation bottleneck."""

    def __post_init__(self) -> None:
        check_positive(_NAME, channels=self.channels, frames_dim=self.frames_dim, se_dim=self.se_dim, scale=self.scale)
        check_odd(_NAME, kernel=self.kernel, stem_kernel=self.stem_kernel)
        check_each_positive(_NAME, dilations=self.dilations)
        if self.scale < 2 or self.channels % self.scale:
            raise RecipeError(
                f"{_NAME}: scale {self.scale} with {self.channels} channels given; "
                "expected 2 or more that divides the channels"
            )

    def build(self, bins: int) -> Encoder:
        """The encoder for features of `bins` bins."""
        return EcapaTdnn(self, bins)


class EcapaTdnn(Encoder):
    """The frame-level part of ECAPA-TDNN.

    Convolutions are followed by rectification, then normalisation, as in the paper's figure 2; the last layer,
    which gathers all blocks' outputs, is rectified only. As in WeSpeaker, a block's input is the output of the one
    before, where the paper sums those of all before, and nothing normalises the embedding behind the head's linear
    layer.

    Args:
        settings: Sizes.
        bins: Feature bins.
    """

    def __init__(self, settings: EcapaTdnnSettings, bins: int) -> None:
        super().__init__()
        channels = settings.channels
        self.frames_dim = settings.frames_dim
        self.stem = ConvReluNorm(bins, channels, settings.stem_kernel)
        self.blocks = nn.ModuleList(SeRes2Block(settings, dilation) for dilation in settings.dilations)
        self.gather = SameConv1d(channels * len(settings.dilations), settings.frames_dim)
        initialise(self)

    def forward(self, features: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> EncoderOutput:
        """See `Encoder.forward`."""
        frames = self.stem(features.transpose(1, 2), lengths)
        outputs = []
        for block in self.blocks:
            frames = block(frames, lengths)
            outputs.append(frames)
        return EncoderOutput(frames=self.gather(torch.cat(outputs, 1)).relu(), lengths=lengths)


class ConvReluNorm(nn.Module):
    """Convolution along time, rectification, batch normalisation.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        kernel: Odd kernel size.
        dilation: Spacing of the kernel's taps.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = SameConv1d(inputs, outputs, kernel, dilation=dilation)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Transform `frames` (batch, channels, time)."""
        result: Tensor = self.norm(self.conv(frames, lengths).relu())
        return result


class Res2Layer(nn.Module):
    """Parts of the channels, convolved one after the other, each with the result of the one before added.

    Source: Gao et al., "Res2Net", TPAMI 2021, equation 1, but for the part that passes unchanged: the last, not the
    first, as in the public ECAPA implementations.

    Args:
        settings: Sizes.
        dilation: Spacing of the kernels' taps.
    """

    def __init__(self, settings: EcapaTdnnSettings, dilation: int) -> None:
        super().__init__()
        self.scale = settings.scale
        width = settings.channels // settings.scale
        self.convs = nn.ModuleList(
            ConvReluNorm(width, width, settings.kernel, dilation) for _ in range(settings.scale - 1)
        )

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Transform `frames` (batch, channels, time)."""
        *parts, unchanged = frames.chunk(self.scale, 1)
        outputs: list[Tensor] = []
        for part, conv in zip(parts, self.convs, strict=True):
            outputs.append(conv(part + outputs[-1] if outputs else part, lengths))
        return torch.cat([*outputs, unchanged], 1)


class SeRes2Block(nn.Module):
    """Two pointwise layers around a Res2 layer, squeeze-excitation, and a residual connection.

    Args:
        settings: Sizes.
        dilation: Dilation of the Res2 layer.
    """

    def __init__(self, settings: EcapaTdnnSettings, dilation: int) -> None:
        super().__init__()
        channels = settings.channels
        self.enter = ConvReluNorm(channels, channels)
        self.res2 = Res2Layer(settings, dilation)
        self.leave = ConvReluNorm(channels, channels)
        self.gate = SqueezeExcitation(channels, settings.se_dim)

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Transform `frames` (batch, channels, time)."""
        inner = self.leave(self.res2(self.enter(frames), lengths))
        result: Tensor = frames + self.gate(inner, lengths)
        return result
