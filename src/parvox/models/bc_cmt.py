"""BC-CMT: a small convolution-and-transformer net with broadcast residuals and attention over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parvox.errors import RecipeError
from parvox.models.bc_cmt_blocks import (
    BroadcastUnit,
    FeedForward,
    Padding,
    PlaneAttention,
    PlaneUnit,
    Pointwise,
    TemporalAttention,
    normalise,
    patches,
)
from parvox.models.bc_cmt_folded import FoldedBcCmt, TrainedBlock, TrainedStage
from parvox.models.contract import Encoder, EncoderOutput, masked, strided_lengths
from parvox.models.layers import MOST_CHANNELS, check_each_positive, check_positive
from parvox.models.registry import ENCODERS

_NAME = "bc_cmt"
_STRIDES = ((1, 2), (2, 2), (2, 1), (2, 1))  # (bins, time) of each stage's patches
_WIDTHS = {"tiny": 8, "small": 16, "base": 32}  # channels of the first stage


@ENCODERS.register(
    _NAME, source="Choi et al., IEEE/ACM TASLP 32, 2024, doi 10.1109/TASLP.2024.3463491; layout reconstructed"
)
@dataclass(frozen=True, kw_only=True)
class BcCmtSettings:
    """BC-CMT; the default is Tiny, which has the published 271.44 K parameters with its read-out at 80 bins.

    The papers' full texts were not to be had: the number of parameters, attention over time and broadcast residuals
    are stated; the layout, and the sub-bands of BC-ResNet's normalisation, are not. It is one of many with that
    number. Small and Base are Tiny made two and four times as wide, with 0.83 M and 2.78 M parameters; the paper's
    own sizes are unknown.
    """

    default_pooling: ClassVar[str] = "fsd_asp"
    default_embedding_dim: ClassVar[int] = 256
    default_head: ClassVar[str] = "bn_linear_bn"

    size: Literal["tiny", "small", "base"] = "tiny"
    """Width of the net, where `widths` does not say otherwise."""
    widths: tuple[int, int, int, int] | None = None
    """Channels of each stage; None takes those of `size`. The stem is as wide as the first stage."""
    blocks: tuple[int, int, int, int] = (3, 3, 3, 3)
    """Blocks of each stage."""
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    """Attention heads of each stage; the same for every size, so that maps of two sizes can be compared."""
    reductions: tuple[int, int, int, int] = (8, 4, 2, 1)
    """Frames per key and value of each stage's attention."""
    expansion: int = 2
    """Channels inside the feed-forward layers, as a multiple."""
    attention: Literal["1d", "2d"] = "1d"
    """Attention over time alone, or over bins and time as in the net of 2022."""
    groups: int = 1
    """Groups of the attention's projections; the net of 2022 had more than that of 2024, how many is not stated."""
    sub_bands: int = 5
    """Sub-bands of the normalisation, which must divide each stage's bins; 1 is batch normalisation."""
    broadcast_perception: bool = True
    """Whether the local perception units are broadcast-residual; if not, they are CMT's 3×3 convolutions."""
    broadcast_attention: bool = True
    """Whether attention over time has a frequency convolution beside it; two-dimensional attention never has."""
    broadcast_feed_forward: bool = True
    """Whether the feed-forward layers' middle is broadcast-residual; if not, it is CMT's 3×3 convolution."""

    def __post_init__(self) -> None:
        if self.size not in _WIDTHS:
            raise RecipeError(f"{_NAME}: size {self.size!r} given; expected tiny, small or base")
        if self.attention not in ("1d", "2d"):
            raise RecipeError(f"{_NAME}: attention {self.attention!r} given; expected 1d or 2d")
        check_positive(_NAME, expansion=self.expansion, groups=self.groups, sub_bands=self.sub_bands)
        check_each_positive(_NAME, blocks=self.blocks, heads=self.heads, reductions=self.reductions)
        check_each_positive(_NAME, MOST_CHANNELS, widths=self.channels)
        for field in ("widths", "blocks", "heads", "reductions"):
            values = getattr(self, field)
            if values is not None and len(values) != len(_STRIDES):
                raise RecipeError(f"{_NAME}: {field} {list(values)} given; expected {len(_STRIDES)} numbers")
        for width, heads in zip(self.channels, self.heads, strict=True):
            if width % heads or width % self.groups:
                raise RecipeError(
                    f"{_NAME}: a stage of {width} channels with {heads} heads and {self.groups} groups given; "
                    "expected both to divide the channels"
                )

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return self.widths or tuple(_WIDTHS[self.size] * 2**stage for stage in range(len(_STRIDES)))

    def bins(self, bins: int) -> list[int]:
        """Bins of each stage for features of `bins` bins.

        Raises:
            RecipeError: the sub-bands do not divide them, or too few are left.
        """
        left, remaining = [], (bins + 1) // 2
        for stride, _ in _STRIDES:
            remaining //= stride
            left.append(remaining)
        if left[-1] < 1 or any(count % self.sub_bands for count in left):
            raise RecipeError(
                f"{_NAME}: {bins} feature bins given, which leave {left} in the stages; expected a multiple of "
                f"{self.sub_bands} in each: set features.bins to {16 * self.sub_bands}"
                f"{', or sub_bands to 1' if left[-1] else ''}"
            )
        return left

    def build(self, bins: int) -> Encoder:
        """The encoder for features of `bins` bins."""
        return BcCmt(self, bins)


class BcCmt(Encoder):
    """The frame-level part of BC-CMT.

    Frames have channels × bins of the last stage; four features make one. With `expose_attention`, maps are named
    ``stage1.block1`` to ``stage4.block3``; their sizes depend on the length alone (for 100 features 1×50×7, 2×25×7,
    4×25×13 and 8×25×25), not on the width.

    Args:
        settings: Sizes.
        bins: Feature bins.
    """

    def __init__(self, settings: BcCmtSettings, bins: int) -> None:
        super().__init__()
        channels = settings.channels
        self.stage_bins = settings.bins(bins)
        self.frame_bins = self.stage_bins[-1]
        self.frames_dim = channels[-1] * self.frame_bins
        self.time_stride = self.min_frames = 4
        self.stem = Stem(channels[0])
        self.stages = nn.ModuleList(
            Stage(settings, stage, channels[max(stage - 1, 0)]) for stage in range(len(_STRIDES))
        )

    def forward(self, features: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> EncoderOutput:
        """See `Encoder.forward`."""
        plane = self.stem(features, lengths)
        maps: dict[str, Tensor] = {}
        for number, stage in enumerate(self.stages, 1):
            plane, lengths, stage_maps = stage(plane, lengths, self.expose_attention)
            maps.update({f"stage{number}.block{block}": values for block, values in stage_maps.items()})
        return EncoderOutput(frames=plane.permute(2, 0, 1, 3).flatten(1, 2), lengths=lengths, attention_maps=maps)

    def for_inference(self) -> Encoder:
        """See `Encoder.for_inference`; variants for comparison stay as they are."""
        trained = []
        for stage, bins in zip(self.stages, self.stage_bins, strict=True):
            assert isinstance(stage, Stage)
            blocks = [block.trained() for block in stage.blocks if isinstance(block, Block)]
            foldable = [block for block in blocks if block is not None]
            if len(foldable) < len(blocks):
                return self
            trained.append(TrainedStage(stage.stride, stage.patch.weight, stage.norm, foldable, bins))
        return FoldedBcCmt(self.stem.layers(), trained)


def _channels_last(plane: Tensor) -> Tensor:
    """The layout in which convolutions of few channels are fastest, above all backwards."""
    return plane.contiguous(memory_format=torch.channels_last)


class Stem(nn.Module):
    """Three 3×3 convolutions, each normalised and activated; the first halves the bins.

    Args:
        channels: Channels out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=False)
            for inputs, stride in ((1, (2, 1)), (channels, 1), (channels, 1))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in self.convs)

    def layers(self) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """Convolutions, each with its normalisation."""
        pairs = zip(self.convs, self.norms, strict=True)
        return [(c, n) for c, n in pairs if isinstance(c, nn.Conv2d) and isinstance(n, nn.BatchNorm2d)]

    def forward(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        """Features (batch, frames, bins), zero where padded, to a plane (channels, bins / 2, batch, time)."""
        plane = features.transpose(1, 2).unsqueeze(1)
        for index, (conv, norm) in enumerate(self.layers()):
            if index:
                plane = masked(plane, lengths)
            plane = F.gelu(norm(conv(_channels_last(plane))))
        if self.training and plane.requires_grad:
            plane.register_hook(_channels_last)
        return plane.permute(1, 2, 0, 3)


class Stage(nn.Module):
    """Patches, then blocks at one resolution.

    Patches do not overlap, and what does not fill one is dropped: an utterance's last frame may go unseen, and no
    padded frame is ever mixed with a real one.

    Args:
        settings: Sizes.
        index: Number of the stage, from 0.
        inputs: Channels in.
    """

    def __init__(self, settings: BcCmtSettings, index: int, inputs: int) -> None:
        super().__init__()
        channels = settings.channels[index]
        self.stride = _STRIDES[index]
        self.patch = Pointwise(inputs * self.stride[0] * self.stride[1], channels)
        self.norm = nn.BatchNorm1d(channels)
        self.blocks = nn.ModuleList(Block(settings, index) for _ in range(settings.blocks[index]))

    def forward(
        self, plane: Tensor, lengths: Tensor | None, expose: bool
    ) -> tuple[Tensor, Tensor | None, dict[int, Tensor]]:
        """Transform `plane` (channels, bins, batch, time) with valid frames `lengths`.

        Returns:
            The new plane, its lengths, and attention maps by number of the block, if `expose`.
        """
        plane = normalise(self.patch(patches(plane, *self.stride)), self.norm)
        lengths = strided_lengths(lengths, self.stride[1], self.stride[1], 0)
        padding = Padding.of(plane, lengths)
        maps: dict[int, Tensor] = {}
        for number, block in enumerate(self.blocks, 1):
            plane, weights = block(plane, padding, expose)
            if weights is not None:
                maps[number] = weights
        return plane, lengths, maps


class Block(nn.Module):
    """Local perception, attention, feed-forward.

    Args:
        settings: Sizes.
        index: Number of the stage, from 0.
    """

    def __init__(self, settings: BcCmtSettings, index: int) -> None:
        super().__init__()
        channels, heads, reduction = settings.channels[index], settings.heads[index], settings.reductions[index]
        bands, groups = settings.sub_bands, settings.groups
        self.perception = BroadcastUnit(channels, bands) if settings.broadcast_perception else PlaneUnit(channels)
        self.attention = (
            TemporalAttention(channels, bands, heads, reduction, groups, settings.broadcast_attention)
            if settings.attention == "1d"
            else PlaneAttention(channels, heads, reduction, groups)
        )
        self.feed_forward = FeedForward(channels, settings.expansion, bands, settings.broadcast_feed_forward)

    def trained(self) -> TrainedBlock | None:
        """The parts, if they are those of the published net; None in a variant for comparison."""
        if (
            isinstance(self.perception, BroadcastUnit)
            and isinstance(self.attention, TemporalAttention)
            and self.attention.frequency is not None
            and isinstance(self.feed_forward.unit, BroadcastUnit)
        ):
            return TrainedBlock(self.perception, self.attention, self.feed_forward)
        return None

    def forward(self, plane: Tensor, padding: Padding | None, expose: bool) -> tuple[Tensor, Tensor | None]:
        """Transform `plane` (channels, bins, batch, time); the second result is the attention map, if `expose`."""
        plane, weights = self.attention(self.perception(plane, padding), padding, expose)
        return self.feed_forward(plane, padding), weights
