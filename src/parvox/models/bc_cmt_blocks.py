"""The parts of BC-CMT: broadcast-residual units, sub-spectral normalisation, attention over time.

A plane here is (channels, bins, batch, time), not the usual (batch, channels, bins, time): so laid out, a pointwise
convolution is one matrix product, a convolution along bins one product for each channel, and statistics run over
contiguous memory, all several times as fast on a processor as the same convolutions.

A broadcast-residual unit treats each bin's neighbourhood cheaply on the plane, averages over bins, does what mixes
frames on that average alone, and adds the result to every bin. So frames are mixed, and padding is masked, on small
(channels, batch, time) tensors.

Source: Choi et al., IEEE/ACM TASLP 32, 2024, whose full text was not to be had; the units are put together from its
abstract, Kim et al., "Broadcasted Residual Learning", Interspeech 2021 (BC-ResNet), and Guo et al., "CMT", CVPR 2022.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parvox.models.attention import attend, join_heads, split_heads
from parvox.models.contract import mask_from_lengths


class Padding(NamedTuple):
    """Which frames of a plane are real.

    Attributes:
        mask: (batch, time), 1 where valid, in the plane's type.
    """

    mask: Tensor

    @classmethod
    def of(cls, plane: Tensor, lengths: Tensor | None) -> Padding | None:
        """For `plane` (…, time) and valid frames `lengths` (batch,); None where every row is full."""
        if lengths is None:
            return None
        return cls(mask_from_lengths(lengths, plane.shape[-1]).to(plane.dtype))

    def zero(self, values: Tensor) -> Tensor:
        """`values` (…, batch, time) with padded frames set to zero."""
        return values * self.mask

    def keys(self, reduction: int) -> Tensor:
        """(batch, 1, 1, keys): 0 for keys of `reduction` frames of which at least one is valid, minus infinity else."""
        return self.mask[:, None, None, ::reduction].log()


def normalise(values: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    """Batch normalisation of `values` (channels, …) over all other axes.

    In training on a processor by PyTorch's group normalisation: with one group for each channel and a batch of one it
    gives the same numbers, and in float32 its forward pass takes a third of the time or less.
    """
    flat = values.reshape(1, norm.num_features, -1)
    if not norm.training or norm.momentum is None or flat.device.type != "cpu":
        normalised: Tensor = norm(flat)
        return normalised.view_as(values)
    channels, count = flat.shape[1:]
    normalised, mean, deviation = torch.native_group_norm(
        flat, norm.weight, norm.bias, 1, channels, count, channels, norm.eps
    )
    _follow(norm, norm.momentum, mean.detach()[0], deviation.detach()[0], count)
    return normalised.view_as(values)


def _follow(norm: nn.BatchNorm1d, momentum: float, mean: Tensor, inverse_deviation: Tensor, count: int) -> None:
    """Move the running statistics of `norm` as its own forward pass would; see `torch.nn.BatchNorm1d`."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    variance = (inverse_deviation**-2 - norm.eps) * (count / max(count - 1, 1))
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean.to(norm.running_mean), momentum)
    norm.running_var.lerp_(variance.to(norm.running_var), momentum)


def patches(plane: Tensor, bins: int, frames: int) -> Tensor:
    """Cut `plane` (channels, bins, batch, time) into patches of `bins` × `frames`, each laid out as channels.

    Returns:
        (channels × bins × frames, …): the plane's axes without what does not fill a patch.
    """
    height, width = plane.shape[1] // bins, plane.shape[3] // frames
    cut = plane[:, : height * bins, :, : width * frames]
    cut = cut.unflatten(3, (width, frames)).unflatten(1, (height, bins))
    laid: Tensor = cut.permute(0, 2, 5, 1, 3, 4).flatten(0, 2)
    return laid


class Pointwise(nn.Linear):
    """A convolution of kernel 1: the same linear map of channels everywhere.

    Args:
        inputs: Channels in.
        outputs: Channels out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, plane: Tensor) -> Tensor:
        """Transform `plane` (channels, …)."""
        return (self.weight @ plane.flatten(1)).view(-1, *plane.shape[1:])


class _SumAndMean(torch.autograd.Function):
    """The sum of two planes, and the mean of the second over bins.

    Left to themselves, gradients of the mean would be spread over a plane of their own before they are added.
    """

    @staticmethod
    def forward(ctx: Any, plane: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        return plane + local, local.mean(1)

    @staticmethod
    def backward(ctx: Any, total: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        return total, torch.add(total, mean.unsqueeze(1), alpha=1 / total.shape[1])


class FrequencyResidual(nn.Module):
    """x + y and the mean of y over bins, where y = SSN(depthwise 3×1 convolution of x).

    SSN is sub-spectral normalisation: batch normalisation with statistics, scale and shift for each sub-band of each
    channel (Chang et al., ICASSP 2021).

    Args:
        channels: Channels of the plane.
        sub_bands: Equal parts that the bins are cut into; they must divide the bins. 1 is batch normalisation.
    """

    def __init__(self, channels: int, sub_bands: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), groups=channels, bias=False)
        self.sub_bands = sub_bands
        self.norm = nn.BatchNorm1d(channels * sub_bands)

    def forward(self, plane: Tensor) -> tuple[Tensor, Tensor]:
        """Transform `plane` (channels, bins, batch, time).

        Returns:
            x + y of the same shape, and the mean (channels, batch, time).
        """
        local = normalise(self.convolve(plane.flatten(2)).view_as(plane), self.norm)
        if not self.training:
            return plane + local, local.mean(1)
        total, mean = _SumAndMean.apply(plane, local)
        return total, mean

    def convolve(self, rows: Tensor) -> Tensor:
        """The convolution of `rows` (channels, bins, any).

        In training a product with each channel's banded matrix: more arithmetic than the convolution, yet less than
        half the time, forward and back.
        """
        if self.training:
            return torch.bmm(self.matrices(rows.shape[1]), rows)
        convolved: Tensor = self.conv(rows.unsqueeze(0))
        return convolved.squeeze(0)

    def matrices(self, bins: int) -> Tensor:
        """(channels, bins, bins): what the convolution multiplies a column of bins with."""
        places = torch.arange(bins, device=self.conv.weight.device)
        taps = places - places[:, None] + 1  # of the kernel, for each output and input bin
        shifts = torch.stack([taps == tap for tap in range(3)]).to(self.conv.weight.dtype)
        return (self.conv.weight.view(-1, 3) @ shifts.flatten(1)).view(-1, bins, bins)


class BroadcastUnit(nn.Module):
    """x + y + BC(SiLU(BN(depthwise 1×3 convolution of the mean of y))), with y as in `FrequencyResidual`.

    On its own it is BC-CMT's local perception unit (BC-LPU); inside `FeedForward` it is the middle of BC-IRFFN. Both
    are a reading of the abstracts: the broadcast-residual block of Kim et al., "BC-ResNet", 2021, without its pointwise
    convolution, its dropout and its last rectification.

    Args:
        channels: Channels of the plane.
        sub_bands: See `FrequencyResidual`.
    """

    def __init__(self, channels: int, sub_bands: int) -> None:
        super().__init__()
        self.frequency = FrequencyResidual(channels, sub_bands)
        self.time = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1), groups=channels, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, plane: Tensor, padding: Padding | None) -> Tensor:
        """Transform `plane` (channels, bins, batch, time)."""
        plane, mean = self.frequency(plane)
        if padding is not None:
            mean = padding.zero(mean)
        mixed: Tensor = self.time(mean.unsqueeze(0)).squeeze(0)  # each row of the batch on its own
        return plane.add_(F.silu(normalise(mixed, self.norm)).unsqueeze(1))


class PlaneUnit(nn.Module):
    """x + depthwise 3×3 convolution of x: CMT's local perception unit, for comparison with `BroadcastUnit`.

    Args:
        channels: Channels of the plane.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, plane: Tensor, padding: Padding | None) -> Tensor:
        """Transform `plane` (channels, bins, batch, time)."""
        given = plane if padding is None else padding.zero(plane)
        local: Tensor = self.conv(given.permute(2, 0, 1, 3))
        return plane + local.permute(1, 2, 0, 3)


class FeedForward(nn.Module):
    """x + BN(W (GELU(unit(u)))) with u = GELU(BN(V x)): CMT's inverted residual feed-forward layer.

    With a `BroadcastUnit` it is BC-IRFFN. With a `PlaneUnit`, its output is normalised once more, as in CMT.

    Args:
        channels: Channels of the plane.
        expansion: Channels inside, as a multiple.
        sub_bands: See `FrequencyResidual`.
        broadcast: Whether the unit in the middle is broadcast-residual.
    """

    def __init__(self, channels: int, expansion: int, sub_bands: int, broadcast: bool) -> None:
        super().__init__()
        inner = channels * expansion
        self.enter = Pointwise(channels, inner)
        self.enter_norm = nn.BatchNorm1d(inner)
        self.unit = BroadcastUnit(inner, sub_bands) if broadcast else PlaneUnit(inner)
        self.unit_norm = None if broadcast else nn.BatchNorm1d(inner)
        self.leave = Pointwise(inner, channels)
        self.leave_norm = nn.BatchNorm1d(channels)

    def forward(self, plane: Tensor, padding: Padding | None) -> Tensor:
        """Transform `plane` (channels, bins, batch, time)."""
        inner = F.gelu(normalise(self.enter(plane), self.enter_norm))
        inner = F.gelu(self.unit(inner, padding))
        if self.unit_norm is not None:
            inner = normalise(inner, self.unit_norm)
        return plane + normalise(self.leave(inner), self.leave_norm)


class GroupedLinear(nn.Module):
    """A linear layer whose inputs and outputs are cut into groups that do not meet.

    Args:
        channels: Channels in and out.
        groups: How many; 1 is an ordinary linear layer.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        parts = [nn.Linear(channels // groups, channels // groups) for _ in range(groups)]
        self.groups = groups
        self.weight = nn.Parameter(torch.stack([part.weight.detach().T for part in parts]))  # (groups, in, out)
        self.bias = nn.Parameter(torch.cat([part.bias.detach() for part in parts]))

    def forward(self, values: Tensor) -> Tensor:
        """Transform `values` (batch, positions, channels)."""
        if self.groups == 1:
            return F.linear(values, self.weight[0].T, self.bias)
        grouped = values.unflatten(2, (self.groups, -1)).transpose(1, 2) @ self.weight
        return join_heads(grouped) + self.bias


class Projections(nn.Module):
    """What both kinds of attention have in common: queries, keys, values and the way out.

    Args:
        channels: Channels of the sequence.
        heads: Attention heads.
        groups: Groups of each projection.
    """

    def __init__(self, channels: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = GroupedLinear(channels, groups)
        self.key = GroupedLinear(channels, groups)
        self.value = GroupedLinear(channels, groups)
        self.out = GroupedLinear(channels, groups)

    def forward(
        self, queries: Tensor, sources: Tensor, key_bias: Tensor | None, expose: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from `queries` (batch, queries, channels) to `sources` (batch, keys, channels); see `attend`."""
        query, key, value = (
            split_heads(layer(sequence), self.heads)
            for layer, sequence in ((self.query, queries), (self.key, sources), (self.value, sources))
        )
        mixed, weights = attend(query, key, value, key_bias, expose=expose)
        return self.out(join_heads(mixed)), weights


class TemporalAttention(nn.Module):
    """x + y + BC(W softmax(Q K' / sqrt(d)) V): attention over time alone (BC-SA-1D).

    With y as in `FrequencyResidual`, Q comes from u = LN(mean of y over bins), K and V from u after a depthwise
    convolution that takes `reduction` frames to one. There is no positional bias, so that any length will do.
    Not stated in the abstract: where the mean is taken and that K and V share one convolution; this reading gives
    the published number of parameters.

    Args:
        channels: Channels of the plane.
        sub_bands: See `FrequencyResidual`.
        heads: Attention heads.
        reduction: Frames per key.
        groups: Groups of each projection.
        broadcast: Whether y is there; without it, u = LN(mean of x) and the result is x + BC(…).
    """

    def __init__(self, channels: int, sub_bands: int, heads: int, reduction: int, groups: int, broadcast: bool) -> None:
        super().__init__()
        self.reduction = reduction
        self.frequency = FrequencyResidual(channels, sub_bands) if broadcast else None
        self.norm = nn.LayerNorm(channels)
        if reduction > 1:
            bound = reduction**-0.5
            self.reduce = nn.Parameter(torch.empty(reduction, channels).uniform_(-bound, bound))
            self.reduce_norm = nn.BatchNorm1d(channels)
        self.attention = Projections(channels, heads, groups)

    def forward(self, plane: Tensor, padding: Padding | None, expose: bool) -> tuple[Tensor, Tensor | None]:
        """Transform `plane` (channels, bins, batch, time).

        Returns:
            The same shape, and the map (batch, heads, time, keys) if `expose`, else None.
        """
        plane, mean = self.frequency(plane) if self.frequency is not None else (plane, plane.mean(1))
        frames = self.norm(mean.permute(1, 2, 0))  # (batch, time, channels)
        sources = self._sources(frames, padding) if self.reduction > 1 else frames
        mixed, weights = self.attention(frames, sources, padding and padding.keys(self.reduction), expose)
        return plane + mixed.permute(2, 0, 1).contiguous().unsqueeze(1), weights

    def _sources(self, frames: Tensor, padding: Padding | None) -> Tensor:
        """(batch, time, channels) to (batch, keys, channels), the last key's missing frames taken as zero.

        A depthwise convolution whose stride is its kernel is a weighted sum over blocks; so written it needs no
        transposition.
        """
        if padding is not None:
            frames = frames * padding.mask.unsqueeze(2)
        frames = F.pad(frames, (0, 0, 0, -frames.shape[1] % self.reduction))
        keys: Tensor = (frames.unflatten(1, (-1, self.reduction)) * self.reduce).sum(2)
        normalised: Tensor = self.reduce_norm(keys.flatten(0, 1))
        return normalised.view_as(keys)


class PlaneAttention(nn.Module):
    """x + W softmax(Q K' / sqrt(d)) V over all bins and frames: the older two-dimensional attention, for comparison.

    K and V come from LN(x) after a depthwise convolution that takes `reduction` × `reduction` of the plane to one.

    Args:
        channels: Channels of the plane.
        heads: Attention heads.
        reduction: Bins and frames per key.
        groups: Groups of each projection.
    """

    def __init__(self, channels: int, heads: int, reduction: int, groups: int) -> None:
        super().__init__()
        self.reduction = reduction
        self.norm = nn.LayerNorm(channels)
        if reduction > 1:
            self.reduce = nn.Conv2d(channels, channels, reduction, stride=reduction, groups=channels, bias=False)
            self.reduce_norm = nn.BatchNorm2d(channels)
        self.attention = Projections(channels, heads, groups)

    def forward(self, plane: Tensor, padding: Padding | None, expose: bool) -> tuple[Tensor, Tensor | None]:
        """Transform `plane` (channels, bins, batch, time).

        Returns:
            The same shape, and the map (batch, heads, bins × time, keys) if `expose`, else None.
        """
        _, bins, batch, frames = plane.shape
        queries = self.norm(plane.permute(2, 1, 3, 0))  # (batch, bins, time, channels)
        keys = queries.permute(0, 3, 1, 2)  # (batch, channels, bins, time)
        if self.reduction > 1:
            if padding is not None:
                keys = keys * padding.mask[:, None, None]
            keys = F.pad(keys, (0, -frames % self.reduction, 0, -bins % self.reduction))
            keys = self.reduce_norm(self.reduce(keys))
        bias = None
        if padding is not None:
            bias = padding.keys(self.reduction).expand(-1, -1, keys.shape[2], -1).flatten(2).unsqueeze(2)
        mixed, weights = self.attention(queries.flatten(1, 2), keys.flatten(2).transpose(1, 2), bias, expose)
        return plane + mixed.view(batch, bins, frames, -1).permute(3, 1, 0, 2), weights
