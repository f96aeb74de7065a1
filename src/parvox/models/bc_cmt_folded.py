"""BC-CMT as it runs after training: the same function in fewer and larger operations.

Once normalisations are fixed, all that BC-CMT does along the bins of a plane is linear, channel by channel. Let the
depthwise convolution and sub-spectral normalisation of the local perception unit be the affine map x to D₁ x + b₁ of
a channel's bins, those of the attention unit D₂ x + b₂. Then the two units together are

    (I + D₂) ((I + D₁) x + b₁ + z 1) + b₂ + a 1 = [(I + D₂) (I + D₁), (I + D₂) 1, 1, (I + D₂) b₁ + b₂] [x; z; a; 1]

where z and a, the broadcast terms, come from means over bins, which are linear in x and z too. So on the plane there
remain one small product before attention and one after it and, in the feed-forward layer, the two pointwise layers
with all normalisations inside and one product between them. The convolution before keys and values, its
normalisation and their projections are one linear layer.

Results agree with the trained network's to rounding. Products with dense matrices of bins take more multiplications
than the network's own (for which alone operations should be counted) and a third less time.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from parvox.models.attention import join_heads, split_heads
from parvox.models.bc_cmt_blocks import BroadcastUnit, FeedForward, FrequencyResidual, TemporalAttention
from parvox.models.contract import Encoder, EncoderOutput, mask_from_lengths, masked, strided_lengths


class TrainedBlock(NamedTuple):
    """The parts of a block of BC-CMT."""

    perception: BroadcastUnit
    attention: TemporalAttention
    feed_forward: FeedForward


class TrainedStage(NamedTuple):
    """The parts of a stage of BC-CMT.

    Attributes:
        stride: Bins and frames of a patch.
        patch: (channels, inputs × bins × frames).
        norm: Normalisation after it.
        blocks: Its blocks.
        bins: Bins of its planes.
    """

    stride: tuple[int, int]
    patch: Tensor
    norm: nn.BatchNorm1d
    blocks: Sequence[TrainedBlock]
    bins: int


class Frames(NamedTuple):
    """What is the same for all blocks of a stage.

    Attributes:
        batch: Rows.
        time: Frames of each row.
        mask: (batch, time), 1 where valid; None where every row is full.
        ones: (1, 1, batch × time).
    """

    batch: int
    time: int
    mask: Tensor | None
    ones: Tensor


def scale_and_shift(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """What batch normalisation multiplies with and adds, by channel, in float64."""
    state = {name: values.detach().double() for name, values in norm.state_dict().items()}
    scale = state["weight"] / (state["running_var"] + norm.eps).sqrt()
    return scale, state["bias"] - state["running_mean"] * scale


def map_of_bins(unit: FrequencyResidual, bins: int) -> tuple[Tensor, Tensor]:
    """D (channels, bins, bins) and b (channels, bins, 1) of a unit's convolution and normalisation, in float64."""
    scale, shift = (
        part.view(unit.conv.out_channels, -1, 1).repeat_interleave(bins // unit.sub_bands, 1)
        for part in scale_and_shift(unit.norm)
    )
    return unit.matrices(bins).detach().double() * scale, shift


class FoldedTime(nn.Module):
    """SiLU(BN(depthwise 1×3 convolution)) of a `BroadcastUnit`.

    Args:
        unit: Trained.
    """

    def __init__(self, unit: BroadcastUnit) -> None:
        super().__init__()
        scale, shift = scale_and_shift(unit.norm)
        channels = len(scale)
        self.conv = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1), groups=channels)
        _set(self.conv, unit.time.weight.detach().double() * scale.view(-1, 1, 1, 1), shift)

    def forward(self, mean: Tensor, frames: Frames) -> Tensor:
        """(channels, 1, batch × time) to the same."""
        plane = mean.view(1, mean.shape[0], frames.batch, frames.time)
        if frames.mask is not None:
            plane = plane * frames.mask
        return F.silu(self.conv(plane)).view(mean.shape)


class FoldedAttention(nn.Module):
    """The attention of a `TemporalAttention`, from the mean over bins to the broadcast term.

    Args:
        unit: Trained.
    """

    def __init__(self, unit: TemporalAttention) -> None:
        super().__init__()
        parts = unit.attention
        self.heads, self.reduction, self.norm = parts.heads, unit.reduction, copy.deepcopy(unit.norm)
        weights, biases = {}, {}
        for name in ("query", "key", "value", "out"):
            layer = getattr(parts, name)
            weights[name] = torch.block_diag(*layer.weight.detach().double()).T  # (out, in)
            biases[name] = layer.bias.detach().double()
        shrink = (len(biases["out"]) // self.heads) ** -0.5
        weights["query"], biases["query"] = weights["query"] * shrink, biases["query"] * shrink
        sources, shift = torch.cat([weights["key"], weights["value"]]), torch.cat([biases["key"], biases["value"]])
        if self.reduction > 1:
            scale, offset = scale_and_shift(unit.reduce_norm)
            shift = shift + sources @ offset
            taps = unit.reduce.detach().double() * scale  # (reduction, channels)
            sources = (sources.unsqueeze(1) * taps).flatten(1)
        self.query = _linear(weights["query"], biases["query"])
        self.sources = _linear(sources, shift)
        self.out = _linear(weights["out"], biases["out"])

    def forward(self, mean: Tensor, frames: Frames) -> Tensor:
        """(channels, 1, batch × time) to the same."""
        channels, batch, keys = mean.shape[0], frames.batch, frames.time
        sequence = self.norm(mean.flatten(1).T)  # (batch × time, channels)
        query = split_heads(self.query(sequence).view(batch, frames.time, channels), self.heads)
        if self.reduction > 1:
            keys = (frames.time + self.reduction - 1) // self.reduction
            blocks = sequence.view(batch, frames.time, channels)
            if frames.mask is not None:
                blocks = blocks * frames.mask.unsqueeze(2)
            blocks = F.pad(blocks, (0, 0, 0, keys * self.reduction - frames.time))
            sequence = blocks.view(batch * keys, self.reduction * channels)
        key, value = self.sources(sequence).view(batch, keys, 2 * channels).chunk(2, 2)
        scores = query @ split_heads(key, self.heads).transpose(2, 3)
        if frames.mask is not None:
            scores = scores + frames.mask[:, None, None, :: self.reduction].log()
        mixed: Tensor = self.out(join_heads(scores.softmax(3) @ split_heads(value, self.heads)).flatten(0, 1))
        return mixed.T.unsqueeze(1)


class FoldedBlock(nn.Module):
    """A block of BC-CMT. It leaves the shift of its last normalisation to whatever comes next.

    Args:
        block: Trained.
        bins: Bins of the plane.
        carried: (channels,) shift that the block before has left.
    """

    means: Tensor
    mean_shifts: Tensor
    mean_of_local: Tensor
    joined: Tensor
    enter: Tensor
    enter_shift: Tensor
    inner_mean: Tensor
    inner_mean_shift: Tensor
    inner: Tensor
    leave: Tensor

    def __init__(self, block: TrainedBlock, bins: int, carried: Tensor) -> None:
        super().__init__()
        self._join(block, bins, carried)
        self.time = FoldedTime(block.perception)
        self.attention = FoldedAttention(block.attention)

        unit = block.feed_forward.unit
        assert isinstance(unit, BroadcastUnit)
        scale, shift = scale_and_shift(block.feed_forward.enter_norm)
        self._keep("enter", block.feed_forward.enter.weight.detach() * scale.unsqueeze(1))
        self._keep("enter_shift", shift.unsqueeze(1))
        convolution, shift = map_of_bins(unit.frequency, bins)
        self._keep("inner_mean", convolution.mean(1, keepdim=True))
        self._keep("inner_mean_shift", shift.mean(1, keepdim=True))
        self._keep("inner", torch.cat([_eye(convolution) + convolution, torch.ones_like(shift), shift], 2))
        self.inner_time = FoldedTime(unit)
        scale, self.carried = scale_and_shift(block.feed_forward.leave_norm)
        self._keep("leave", block.feed_forward.leave.weight.detach() * scale.unsqueeze(1))

    def _join(self, block: TrainedBlock, bins: int, carried: Tensor) -> None:
        """The matrices of local perception and attention."""
        assert block.attention.frequency is not None
        first, first_shift = map_of_bins(block.perception.frequency, bins)
        second, second_shift = map_of_bins(block.attention.frequency, bins)
        ones = torch.ones_like(first_shift)
        offset = carried.view(-1, 1, 1) * ones
        first_shift = first_shift + first @ offset
        offset = offset + first_shift  # of what goes into the attention unit
        through, after = _eye(first) + first, _eye(second) + second
        second_shift = second_shift + second @ offset
        self._keep("means", torch.stack([first.mean(1), (second @ through).mean(1)], 1))
        self._keep("mean_shifts", torch.cat([first_shift.mean(1, True), second_shift.mean(1, True)], 1))
        self._keep("mean_of_local", (second @ ones).mean(1, True))
        self._keep("joined", torch.cat([after @ through, after @ ones, ones, offset + second_shift], 2))

    def _keep(self, name: str, values: Tensor) -> None:
        self.register_buffer(name, values.float())

    def forward(self, plane: Tensor, frames: Frames) -> Tensor:
        """Transform `plane` (channels, bins, batch × time)."""
        channels, bins, count = plane.shape
        mean, second = (torch.bmm(self.means, plane) + self.mean_shifts).split(1, 1)
        local = self.time(mean, frames)
        mixed = self.attention(second + local * self.mean_of_local, frames)
        plane = torch.bmm(self.joined, torch.cat([plane, local, mixed, frames.ones.expand(channels, -1, -1)], 1))
        plane = plane.flatten(1)

        width = self.enter.shape[0]
        inner = _gelu(torch.addmm(self.enter_shift, self.enter, plane)).view(width, bins, count)
        local = self.inner_time(torch.bmm(self.inner_mean, inner) + self.inner_mean_shift, frames)
        inner = torch.bmm(self.inner, torch.cat([inner, local, frames.ones.expand(width, -1, -1)], 1))
        return torch.addmm(plane, self.leave, _gelu(inner).flatten(1)).view(channels, bins, count)


class FoldedStage(nn.Module):
    """A stage of BC-CMT. It leaves a shift to whatever comes next.

    Args:
        stage: Trained.
        carried: (inputs,) shift that the stage before has left.
    """

    def __init__(self, stage: TrainedStage, carried: Tensor) -> None:
        super().__init__()
        self.stride = stage.stride
        scale, shift = scale_and_shift(stage.norm)
        weight = (stage.patch.detach() * scale.unsqueeze(1)).view(len(scale), len(carried), *stage.stride)
        self.patch = nn.Conv2d(len(carried), len(scale), stage.stride, stride=stage.stride)
        _set(self.patch, weight, shift + weight.sum((2, 3)) @ carried)
        self.carried = torch.zeros_like(shift)
        self.blocks = nn.ModuleList()
        for block in stage.blocks:
            folded = FoldedBlock(block, stage.bins, self.carried)
            self.blocks.append(folded)
            self.carried = folded.carried

    def forward(self, plane: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Transform `plane` (channels, bins, batch, time) with valid frames `lengths`."""
        plane = self.patch(plane.permute(2, 0, 1, 3)).permute(1, 2, 0, 3)
        channels, bins, batch, time = plane.shape
        lengths = strided_lengths(lengths, self.stride[1], self.stride[1], 0)
        mask = None if lengths is None else mask_from_lengths(lengths, time).to(plane.dtype)
        frames = Frames(batch, time, mask, plane.new_ones(1, 1, batch * time))
        plane = plane.flatten(2)
        for block in self.blocks:
            plane = block(plane, frames)
        return plane.view(channels, bins, batch, time), lengths


class FoldedBcCmt(Encoder):
    """A trained BC-CMT for inference. It gives no attention maps.

    Args:
        stem: Convolutions and their normalisations.
        stages: Trained.
    """

    shift: Tensor

    def __init__(self, stem: Sequence[tuple[nn.Conv2d, nn.BatchNorm2d]], stages: Sequence[TrainedStage]) -> None:
        super().__init__()
        self.time_stride = self.min_frames = math.prod(stage.stride[1] for stage in stages)
        self.stem = nn.ModuleList(
            fuse_conv_bn_eval(copy.deepcopy(conv).eval(), copy.deepcopy(norm).eval()) for conv, norm in stem
        )
        carried = torch.zeros_like(stem[-1][0].weight[:, 0, 0, 0], dtype=torch.float64)
        self.stages = nn.ModuleList()
        for stage in stages:
            folded = FoldedStage(stage, carried)
            self.stages.append(folded)
            carried = folded.carried
        self.frame_bins = stages[-1].bins
        self.frames_dim = len(carried) * self.frame_bins
        self.register_buffer("shift", carried.float().repeat_interleave(self.frame_bins).unsqueeze(1))
        self.requires_grad_(False).eval()

    def forward(self, features: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> EncoderOutput:
        """See `Encoder.forward`."""
        plane = features.transpose(1, 2).unsqueeze(1)
        for index, conv in enumerate(self.stem):
            if index:
                plane = masked(plane, lengths)
            plane = conv(plane)
            # flat, or onnxruntime would keep few channels in blocks of sixteen and activate the empty part too
            plane = _gelu(plane.flatten(2)).view_as(plane)
        plane = plane.permute(1, 2, 0, 3)
        for stage in self.stages:
            plane, lengths = stage(plane, lengths)
        frames = plane.permute(2, 0, 1, 3).flatten(1, 2) + self.shift
        return EncoderOutput(frames=frames, lengths=lengths)


def _eye(like: Tensor) -> Tensor:
    """The identity that goes with matrices (…, n, n)."""
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)


def _gelu(values: Tensor) -> Tensor:
    """GELU, in an order of operations that onnxruntime puts together again where the opset has no GELU."""
    return values * (torch.erf(values / math.sqrt(2)) + 1) * 0.5


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    _set(layer, weight, bias)
    return layer


def _set(layer: nn.Linear | nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    layer.weight, layer.bias = nn.Parameter(weight.float()), nn.Parameter(bias.float())
