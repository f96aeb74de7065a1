"""ResNet on the time-frequency plane, with small channels and no max-pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from parvox.errors import RecipeError
from parvox.models.contract import Encoder, EncoderOutput, masked, strided_lengths
from parvox.models.layers import check_each_positive, check_positive, initialise
from parvox.models.registry import ENCODERS

_NAME = "resnet34"


@ENCODERS.register(_NAME, source="He et al., CVPR 2016; sizes of WeSpeaker's r-vector ResNet34")
@dataclass(frozen=True, kw_only=True)
class ResNetSettings:
    """Two-dimensional ResNet; the defaults are the ResNet34 usual for speakers."""

    default_pooling: ClassVar[str] = "statistics"
    default_embedding_dim: ClassVar[int] = 256
    default_head: ClassVar[str] = "linear"

    base_channels: int = 32
    """Channels of the first stage; each further stage doubles them."""
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    """Residual blocks of each stage; every stage after the first halves time and frequency."""
    block: Literal["basic", "bottleneck"] = "basic"
    """Kind of block: two 3×3 convolutions, or 1×1, 3×3, 1×1 with four times the channels out."""

    def __post_init__(self) -> None:
        check_positive(_NAME, base_channels=self.base_channels)
        check_each_positive(_NAME, blocks=self.blocks)
        if self.block not in ("basic", "bottleneck"):
            raise RecipeError(f"{_NAME}: block {self.block!r} given; expected basic or bottleneck")

    def build(self, bins: int) -> Encoder:
        """The encoder for features of `bins` bins."""
        return ResNet(self, bins)


class ResNet(Encoder):
    """The frame-level part of a two-dimensional ResNet.

    Args:
        settings: Sizes.
        bins: Feature bins.
    """

    def __init__(self, settings: ResNetSettings, bins: int) -> None:
        super().__init__()
        channels = settings.base_channels
        self.stem = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels)
        self.frame_bins = bins
        kind = BasicBlock if settings.block == "basic" else BottleneckBlock
        blocks: list[nn.Module] = []
        for stage, count in enumerate(settings.blocks):
            for index in range(count):
                stride = 2 if stage and index == 0 else 1
                block = kind(channels, settings.base_channels * 2**stage, stride)
                channels = block.channels
                blocks.append(block)
            if stage:
                self.frame_bins = (self.frame_bins + 1) // 2
                self.time_stride *= 2
        self.blocks = nn.ModuleList(blocks)
        self.frames_dim = channels * self.frame_bins
        initialise(self)

    def forward(self, features: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> EncoderOutput:
        """See `Encoder.forward`."""
        plane = features.transpose(1, 2).unsqueeze(1)  # (batch, 1, bins, time)
        plane = masked(self.stem_norm(self.stem(plane)).relu(), lengths)
        for block in self.blocks:
            plane, lengths = block(plane, lengths)
        return EncoderOutput(frames=plane.flatten(1, 2), lengths=lengths)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut.

    Args:
        inputs: Channels in.
        width: Channels out.
        stride: Stride of the first convolution, on both axes.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.channels = width
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(inputs, self.channels, stride)

    def forward(self, plane: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Transform `plane` (batch, channels, bins, time), zero where padded; the result is zero there too."""
        out_lengths = strided_lengths(lengths, 3, self.stride, 1)
        inner = masked(self.norm1(self.conv1(plane)).relu(), out_lengths)
        inner = self.norm2(self.conv2(inner)) + self.shortcut(plane)
        return masked(inner.relu(), out_lengths), out_lengths


class BottleneckBlock(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and a shortcut.

    Args:
        inputs: Channels in.
        width: Channels of the 3×3 convolution; four times as many come out.
        stride: Stride of the 3×3 convolution, on both axes.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.channels = 4 * width
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, self.channels, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(self.channels)
        self.shortcut = _shortcut(inputs, self.channels, stride)

    def forward(self, plane: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Transform `plane` (batch, channels, bins, time), zero where padded; the result is zero there too."""
        out_lengths = strided_lengths(lengths, 3, self.stride, 1)
        inner = masked(self.norm1(self.conv1(plane)).relu(), lengths)
        inner = self.norm2(self.conv2(inner)).relu()
        inner = self.norm3(self.conv3(inner)) + self.shortcut(plane)
        return masked(inner.relu(), out_lengths), out_lengths


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
