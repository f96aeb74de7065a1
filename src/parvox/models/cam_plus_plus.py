"""CAM++: a densely connected TDNN with context-aware masking behind a small two-dimensional front."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from parvox.errors import RecipeError
from parvox.models.contract import Encoder, EncoderOutput, mask_from_lengths, masked, strided_lengths
from parvox.models.layers import (
    SameConv1d,
    check_each_positive,
    check_odd,
    check_positive,
    initialise,
    masked_mean,
)
from parvox.models.registry import ENCODERS

_NAME = "cam_plus_plus"


@ENCODERS.register(_NAME, source="Wang et al., Interspeech 2023, arXiv 2303.00332; sizes of 3D-Speaker")
@dataclass(frozen=True, kw_only=True)
class CamPlusPlusSettings:
    """CAM++; the defaults are the published size."""

    default_pooling: ClassVar[str] = "statistics"
    default_embedding_dim: ClassVar[int] = 512
    default_head: ClassVar[str] = "linear_bn"

    front_channels: int = 32
    """Channels of the two-dimensional front."""
    channels: int = 128
    """Channels that enter the first dense block."""
    growth: int = 32
    """Channels that each dense layer adds."""
    bottleneck: int = 128
    """Channels inside a dense layer."""
    layers: tuple[int, ...] = (12, 24, 16)
    """Dense layers of each block."""
    dilations: tuple[int, ...] = (1, 2, 2)
    """Dilation in each block."""
    kernel: int = 3
    """Kernel of the dense layers."""
    segment: int = 100
    """Frames of a segment whose mean is a part of the context."""

    def __post_init__(self) -> None:
        check_positive(
            _NAME,
            front_channels=self.front_channels,
            channels=self.channels,
            growth=self.growth,
            bottleneck=self.bottleneck,
            segment=self.segment,
        )
        check_odd(_NAME, kernel=self.kernel)
        check_each_positive(_NAME, layers=self.layers, dilations=self.dilations)
        if len(self.layers) != len(self.dilations):
            raise RecipeError(
                f"{_NAME}: {len(self.layers)} layers and {len(self.dilations)} dilations given; "
                "expected one of each for every block"
            )

    def build(self, bins: int) -> Encoder:
        """The encoder for features of `bins` bins."""
        return CamPlusPlus(self, bins)


class CamPlusPlus(Encoder):
    """The frame-level part of CAM++ (figure 1 of the paper).

    Args:
        settings: Sizes.
        bins: Feature bins.
    """

    time_stride = 2

    def __init__(self, settings: CamPlusPlusSettings, bins: int) -> None:
        super().__init__()
        self.front = Front(settings.front_channels, bins)
        self.enter = nn.Conv1d(self.front.outputs, settings.channels, 5, stride=2, padding=2, bias=False)
        self.enter_norm = nn.BatchNorm1d(settings.channels)
        channels = settings.channels
        blocks: list[nn.Module] = []
        for count, dilation in zip(settings.layers, settings.dilations, strict=True):
            block = DenseBlock(settings, channels, count, dilation)
            channels = block.outputs
            blocks.append(block)
        self.blocks = nn.ModuleList(blocks)
        self.leave_norm = nn.BatchNorm1d(channels)
        self.frames_dim = channels
        initialise(self)

    def forward(self, features: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> EncoderOutput:
        """See `Encoder.forward`."""
        frames = self.enter_norm(self.enter(self.front(features.transpose(1, 2), lengths))).relu()
        lengths = strided_lengths(lengths, 5, 2, 2)
        for block in self.blocks:
            frames = block(frames, lengths)
        return EncoderOutput(frames=self.leave_norm(frames).relu(), lengths=lengths)


class Front(nn.Module):
    """A small ResNet that shortens the frequency axis eightfold and keeps the time axis.

    Args:
        channels: Channels throughout.
        bins: Feature bins.
    """

    def __init__(self, channels: int, bins: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.enter_norm = nn.BatchNorm2d(channels)
        self.blocks = nn.ModuleList(FrequencyBlock(channels, stride) for stride in (2, 1, 2, 1))
        self.leave = nn.Conv2d(channels, channels, 3, stride=(2, 1), padding=1, bias=False)
        self.leave_norm = nn.BatchNorm2d(channels)
        self.outputs = channels * -(-bins // 8)

    def forward(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        """Features (batch, bins, time) to (batch, outputs, time), zero where padded."""
        plane = masked(self.enter_norm(self.enter(features.unsqueeze(1))).relu(), lengths)
        for block in self.blocks:
            plane = block(plane, lengths)
        return masked(self.leave_norm(self.leave(plane)).relu(), lengths).flatten(1, 2)


class FrequencyBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut; only frequency is strided.

    Args:
        channels: Channels in and out.
        stride: Stride of the first convolution along frequency.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=(stride, 1), padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            narrow = nn.Conv2d(channels, channels, 1, stride=(stride, 1), bias=False)
            self.shortcut = nn.Sequential(narrow, nn.BatchNorm2d(channels))

    def forward(self, plane: Tensor, lengths: Tensor | None) -> Tensor:
        """Transform `plane` (batch, channels, bins, time), zero where padded; the result is zero there too."""
        inner = masked(self.norm1(self.conv1(plane)).relu(), lengths)
        inner = self.norm2(self.conv2(inner)) + self.shortcut(plane)
        return masked(inner.relu(), lengths)


class DenseBlock(nn.Module):
    """Dense layers, each of which sees the outputs of all before it, and a layer that halves the channels.

    Args:
        settings: Sizes.
        channels: Channels in.
        layers: How many dense layers.
        dilation: Of their convolutions.
    """

    def __init__(self, settings: CamPlusPlusSettings, channels: int, layers: int, dilation: int) -> None:
        super().__init__()
        widths = [channels + index * settings.growth for index in range(layers + 1)]
        self.layers = nn.ModuleList(DenseLayer(settings, width, dilation) for width in widths[:-1])
        self.outputs = widths[-1] // 2
        self.leave_norm = nn.BatchNorm1d(widths[-1])
        self.leave = SameConv1d(widths[-1], self.outputs, bias=False)

    def forward(self, frames: Tensor, lengths: Tensor | None) -> Tensor:
        """Transform `frames` (batch, channels, time)."""
        for layer in self.layers:
            frames = torch.cat([frames, layer(frames, lengths)], 1)
        result: Tensor = self.leave(self.leave_norm(frames).relu())
        return result


class DenseLayer(nn.Module):
    """A bottleneck and a convolution whose output is gated by its context (equations 1 to 5).

    The context of a frame is the mean of the utterance plus the mean of its segment. It is the same for all frames
    of a segment, so the gate is computed once a segment.

    Args:
        settings: Sizes.
        channels: Channels in.
        dilation: Of the convolution.
    """

    def __init__(self, settings: CamPlusPlusSettings, channels: int, dilation: int) -> None:
        super().__init__()
        inner = settings.bottleneck
        self.segment = settings.segment
        self.norm = nn.BatchNorm1d(channels)
        self.narrow = SameConv1d(channels, inner, bias=False)
        self.narrow_norm = nn.BatchNorm1d(inner)
        self.local = SameConv1d(inner, settings.growth, settings.kernel, dilation=dilation, bias=False)
        self.squeeze = nn.Conv1d(inner, max(inner // 2, 1), 1)
        self.excite = nn.Conv1d(max(inner // 2, 1), settings.growth, 1)

    def forward(self, frames: Tensor, lengths: Tensor | None) -> Tensor:
        """Frames (batch, channels, time) to (batch, growth, time)."""
        inner = self.narrow_norm(self.narrow(self.norm(frames).relu())).relu()
        context = masked_mean(inner, lengths).unsqueeze(-1) + segment_means(inner, lengths, self.segment)
        gate = self.excite(self.squeeze(context).relu()).sigmoid()
        gate = gate.unsqueeze(-1).expand(-1, -1, -1, self.segment).flatten(2)[..., : frames.shape[-1]]
        result: Tensor = self.local(inner, lengths) * gate
        return result


def segment_means(frames: Tensor, lengths: Tensor | None, segment: int) -> Tensor:
    """Means over consecutive segments, the last one over what is left; zero for segments that are all padding.

    Args:
        frames: (batch, channels, time).
        lengths: (batch,) int64 valid frames; None when every row is full.
        segment: Frames a segment.

    Returns:
        (batch, channels, segments), in the type of `frames`.
    """
    time = frames.shape[-1]
    count = (time + segment - 1) // segment
    padded = nn.functional.pad(masked(frames, lengths), (0, segment - 1))[..., : count * segment]
    precise = torch.promote_types(frames.dtype, torch.float32)
    sums = padded.unflatten(-1, (count, segment)).sum(-1, dtype=precise)
    valid = torch.full((1,), time, device=frames.device) if lengths is None else lengths
    inside = mask_from_lengths(valid, time)
    inside = nn.functional.pad(inside, (0, segment - 1))[..., : count * segment]
    frames_inside = inside.unflatten(-1, (count, segment)).sum(-1).clamp(min=1)
    means: Tensor = sums / frames_inside.unsqueeze(1).to(precise)
    return means.type_as(frames)
