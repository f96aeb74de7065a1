"""ReDimNet2: one stream of frames that stages read as a time-frequency plane, and give back to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from parvox.errors import RecipeError, nearest
from parvox.models.contract import Encoder, EncoderOutput, mask_from_lengths, masked
from parvox.models.layers import SameConv1d, check_positive
from parvox.models.registry import ENCODERS

_NAME = "redimnet2"
_HEADS = 4
_CONTEXT_KERNELS = (7, 19, 31, 59)


class Stage(NamedTuple):
    """One stage: by how much it shortens frequency and time, its blocks, its width, how narrow its context is."""

    frequency_stride: int
    time_stride: int
    blocks: int
    expansion: float
    reduction: int


class Size(NamedTuple):
    """One published size."""

    channels: int
    leave_channels: int | None
    stages: tuple[Stage, ...]


SIZES: dict[str, Size] = {
    "b0": Size(
        12,
        64,
        (
            Stage(1, 1, 2, 2, 36),
            Stage(2, 1, 3, 1, 36),
            Stage(1, 2, 4, 1, 36),
            Stage(2, 1, 5, 1, 36),
            Stage(1, 2, 4, 1, 18),
            Stage(2, 1, 3, 1, 18),
        ),
    ),
    "b1": Size(
        16,
        None,
        (
            Stage(1, 1, 2, 2, 32),
            Stage(2, 1, 3, 1, 32),
            Stage(1, 2, 4, 1, 32),
            Stage(2, 1, 5, 1, 32),
            Stage(1, 2, 4, 1, 16),
            Stage(2, 1, 3, 1, 16),
        ),
    ),
    "b2": Size(
        20,
        None,
        (
            Stage(1, 1, 2, 2, 40),
            Stage(2, 1, 3, 1, 30),
            Stage(1, 2, 4, 1, 30),
            Stage(3, 1, 5, 1, 20),
            Stage(1, 2, 4, 1, 20),
            Stage(2, 1, 3, 1, 10),
        ),
    ),
}
"""Stages and channels as in WeSpeaker's presets. What goes to the pooling (leave_channels) is INFERRED: it is what
brings parameters and multiply-accumulates of all three to the published figures."""


@ENCODERS.register(_NAME, source="Yakovlev and Okhotnikov, Interspeech 2026, arXiv 2603.11841")
@dataclass(frozen=True, kw_only=True)
class ReDimNet2Settings:
    """ReDimNet2; published with 72 feature bins."""

    default_pooling: ClassVar[str] = "attentive_statistics"
    default_embedding_dim: ClassVar[int] = 192
    default_head: ClassVar[str] = "bn_linear"

    size: Literal["b0", "b1", "b2"] = "b0"
    """Published size: b0 (1.1 M parameters), b1 (2.1 M) or b2 (3.6 M)."""

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise RecipeError(f"{_NAME}: unknown size {self.size!r}: {nearest(self.size, SIZES)}")

    def build(self, bins: int) -> Encoder:
        """The encoder for features of `bins` bins; filled up with zeros where the strides do not divide them."""
        check_positive(_NAME, bins=bins)
        return ReDimNet2(SIZES[self.size], bins)


class ReDimNet2(Encoder):
    """The frame-level part of ReDimNet2 (figure 2 of the paper).

    All maps have as many numbers a frame, channels × bins. Each stage takes a weighted sum of all maps before it,
    reads it as a plane, shortens frequency (for more channels) and time, filters it in two dimensions, then in one,
    and brings it back to the full frame rate. Up to three frames at the end that do not fill a step of the coarsest
    time scale are dropped, as in the authors' code.

    Args:
        size: Stages and channels.
        bins: Feature bins.
    """

    def __init__(self, size: Size, bins: int) -> None:
        super().__init__()
        self.step = math.prod(stage.time_stride for stage in size.stages)
        self.min_frames = self.step
        frequency = math.prod(stage.frequency_stride for stage in size.stages)
        self.extra_bins = -bins % frequency
        bins += self.extra_bins
        volume = size.channels * bins
        self.stem = nn.Conv2d(1, size.channels, 3, padding=1)
        self.stem_norm = nn.LayerNorm(size.channels, eps=1e-6)
        stages: list[StageBlock] = []
        channels, time_stride = size.channels, 1
        for stage in size.stages:
            time_stride *= stage.time_stride
            stages.append(StageBlock(stage, len(stages) + 1, volume, channels, bins, time_stride))
            channels *= stage.frequency_stride
            bins //= stage.frequency_stride
        self.stages = nn.ModuleList(stages)
        self.gather = WeightedSum(len(stages) + 1, volume)
        self.channels, self.frame_bins = channels, bins
        leave = size.leave_channels
        self.leave = nn.Conv2d(channels, leave, 1) if leave else None
        self.frames_dim = (leave or channels) * bins

    def forward(self, features: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> EncoderOutput:
        """See `Encoder.forward`."""
        time = features.shape[1] // self.step * self.step
        if lengths is not None:
            lengths = lengths // self.step * self.step
        plane = nn.functional.pad(features[:, :time].transpose(1, 2), (0, 0, 0, self.extra_bins)).unsqueeze(1)
        plane = self.stem(masked(plane, lengths))
        plane = self.stem_norm(plane.movedim(1, -1)).movedim(-1, 1)
        maps = [_to_frames(plane)]
        for stage in self.stages:
            maps.append(stage(maps, lengths))
        plane = _to_plane(self.gather(maps), self.channels)
        if self.leave is not None:
            plane = self.leave(plane)
        return EncoderOutput(frames=plane.flatten(1, 2), lengths=lengths)


def _to_frames(plane: Tensor) -> Tensor:
    """(batch, channels, bins, time) to (batch, bins × channels, time)."""
    return plane.transpose(1, 2).flatten(1, 2)


def _to_plane(frames: Tensor, channels: int) -> Tensor:
    """(batch, bins × channels, time) to (batch, channels, bins, time)."""
    plane: Tensor = frames.unflatten(1, (-1, channels)).transpose(1, 2)
    return plane


class WeightedSum(nn.Module):
    """A convex sum of maps, with its own weights for each channel.

    Args:
        maps: How many.
        channels: Of each.
    """

    def __init__(self, maps: int, channels: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(maps, channels, 1)) if maps > 1 else None

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Sum `maps`, each (batch, channels, time)."""
        if self.scores is None:
            return maps[0]
        weights = self.scores.softmax(0).type_as(maps[-1])
        total: Tensor = maps[0] * weights[0]
        for frames, weight in zip(maps[1:], weights[1:], strict=True):
            total = total + frames * weight
        return total


class StageBlock(nn.Module):
    """One stage.

    Args:
        stage: Strides, blocks and widths.
        maps: How many maps there are before it.
        volume: Numbers a frame of each map.
        channels: Channels of the plane it reads the sum as.
        bins: Bins of that plane.
        time_stride: Frames of the input per frame inside.
    """

    def __init__(self, stage: Stage, maps: int, volume: int, channels: int, bins: int, time_stride: int) -> None:
        super().__init__()
        outputs = stage.frequency_stride * channels
        inner = int(outputs * stage.expansion)
        strides = (stage.frequency_stride, time_stride)
        self.inputs, self.time_stride = channels, time_stride
        self.gather = WeightedSum(maps, volume)
        self.shorten = nn.Conv2d(channels, inner, strides, stride=strides, groups=math.gcd(channels, inner))
        self.blocks = nn.ModuleList(PlaneBlock(inner) for _ in range(stage.blocks))
        self.narrow: nn.Module = nn.Identity()
        if inner != outputs:
            self.narrow = nn.Sequential(nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs, eps=1e-6))
        self.context = TimeContext(volume, max(volume // stage.reduction // _HEADS, 1) * _HEADS)

    def forward(self, maps: list[Tensor], lengths: Tensor | None) -> Tensor:
        """The next map (batch, volume, time) from all before it."""
        if lengths is not None:
            lengths = lengths // self.time_stride  # whole: see ReDimNet2.step
        plane = self.shorten(_to_plane(self.gather(maps), self.inputs))
        for block in self.blocks:
            plane = block(plane, lengths)
        frames: Tensor = self.context(_to_frames(self.narrow(plane)), lengths)
        if self.time_stride == 1:
            return frames
        return frames.unsqueeze(-1).expand(-1, -1, -1, self.time_stride).flatten(2)


class PlaneBlock(nn.Module):
    """Two depthwise-separable 3×3 convolutions and a residual connection.

    Args:
        channels: Channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise1 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise1 = nn.Conv2d(channels, channels, 1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.depthwise2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, plane: Tensor, lengths: Tensor | None) -> Tensor:
        """Transform `plane` (batch, channels, bins, time)."""
        inner = self.norm1(self.pointwise1(self.depthwise1(masked(plane, lengths))).relu())
        inner = self.norm2(self.pointwise2(self.depthwise2(masked(inner, lengths))))
        result: Tensor = (plane + inner).relu()
        return result


class TimeContext(nn.Module):
    """Ever longer depthwise convolutions along time, then attention over all frames, in few channels; residual.

    Args:
        channels: Channels in and out.
        hidden: Channels inside; divisible by the heads.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.narrow = SameConv1d(channels, hidden)
        self.narrow_norm = nn.LayerNorm(hidden, eps=1e-6)
        self.depthwise = nn.ModuleList(
            SameConv1d(hidden, hidden, kernel, groups=hidden, bias=False) for kernel in _CONTEXT_KERNELS
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in _CONTEXT_KERNELS)
        self.pointwise = nn.ModuleList(SameConv1d(hidden, hidden) for _ in _CONTEXT_KERNELS)
        self.attention = AttentionLayer(hidden)
        self.widen = SameConv1d(hidden, channels)

    def forward(self, frames: Tensor, lengths: Tensor | None) -> Tensor:
        """Transform `frames` (batch, channels, time)."""
        inner = self.narrow_norm(self.narrow(frames).transpose(1, 2)).transpose(1, 2)
        for depthwise, norm, pointwise in zip(self.depthwise, self.norms, self.pointwise, strict=True):
            inner = inner + pointwise(nn.functional.gelu(norm(depthwise(inner, lengths))))
        result: Tensor = frames + self.widen(self.attention(inner.transpose(1, 2), lengths).transpose(1, 2))
        return result


class AttentionLayer(nn.Module):
    """Self-attention and a feed-forward layer, each with a residual connection and normalised behind it.

    Args:
        channels: Divisible by the heads.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(channels, 3 * channels)
        self.leave = nn.Linear(channels, channels)
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.feed1 = nn.Linear(channels, channels)
        self.feed2 = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, states: Tensor, lengths: Tensor | None) -> Tensor:
        """Transform `states` (batch, time, channels); padded frames are never attended to."""
        mask = None if lengths is None else mask_from_lengths(lengths, states.shape[1])[:, None, None, :]
        queries, keys, values = self.project(states).unflatten(-1, (3, _HEADS, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        found = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        states = self.norm1(states + self.leave(found.transpose(1, 2).flatten(2)))
        inner = nn.functional.gelu(self.feed1(states), approximate="tanh")
        result: Tensor = self.norm2(states + self.feed2(inner))
        return result
