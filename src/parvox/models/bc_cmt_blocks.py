"""The parts of BC-CMT: broadcast-residual units, sub-spectral normalisation, attention over time.

A plane is (batch, channels, bins, time). A broadcast-residual unit treats each bin's neighbourhood cheaply on the
plane, averages over bins, does what mixes frames on that average alone, and adds the result to every bin. So frames
are mixed, and padding is masked, on small (batch, channels, time) tensors.

Source: Choi et al., IEEE/ACM TASLP 32, 2024, whose full text was not to be had; the units are put together from its
abstract, Kim et al., "Broadcasted Residual Learning", Interspeech 2021 (BC-ResNet), and Guo et al., "CMT", CVPR 2022.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parvox.models.attention import attend, join_heads, split_heads
from parvox.models.contract import mask_from_lengths, masked


class Padding(NamedTuple):
    """Which frames of a plane are real.

    Attributes:
        lengths: (batch,) int64.
        mask: (batch, 1, time), 1 where valid, in the plane's type.
    """

    lengths: Tensor
    mask: Tensor

    @classmethod
    def of(cls, plane: Tensor, lengths: Tensor | None) -> Padding | None:
        """For `plane` (…, time); None where every row is full."""
        if lengths is None:
            return None
        return cls(lengths, mask_from_lengths(lengths, plane.shape[-1]).unsqueeze(1).to(plane.dtype))


def _zeroed(frames: Tensor, padding: Padding | None) -> Tensor:
    """`frames` (batch, channels, time) with padded ones set to zero."""
    return frames if padding is None else frames * padding.mask


class SubSpectralNorm(nn.Module):
    """Batch normalisation with statistics, scale and shift of each channel's each sub-band.

    Source: Chang et al., "SubSpectral Normalization for Neural Audio Data Processing", ICASSP 2021.

    Args:
        channels: Channels of the plane.
        sub_bands: Equal parts that the bins are cut into; they must divide the bins. 1 is batch normalisation.
    """

    def __init__(self, channels: int, sub_bands: int) -> None:
        super().__init__()
        self.sub_bands = sub_bands
        self.norm = nn.BatchNorm2d(channels * sub_bands)

    def forward(self, plane: Tensor) -> Tensor:
        """Normalise `plane` (batch, channels, bins, time)."""
        bands = plane.unflatten(2, (self.sub_bands, -1)).flatten(1, 2)  # (batch, channels × bands, bins / bands, time)
        normalised: Tensor = self.norm(bands)
        return normalised.view_as(plane)


class FrequencyResidual(nn.Module):
    """x + y and the mean of y over bins, where y = SSN(depthwise 3×1 convolution of x).

    Args:
        channels: Channels of the plane.
        sub_bands: See `SubSpectralNorm`.
    """

    def __init__(self, channels: int, sub_bands: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), groups=channels, bias=False)
        self.norm = SubSpectralNorm(channels, sub_bands)

    def forward(self, plane: Tensor) -> tuple[Tensor, Tensor]:
        """Transform `plane` (batch, channels, bins, time).

        Returns:
            x + y of the same shape, and the mean (batch, channels, time).
        """
        local = self.norm(self.conv(plane))
        return plane + local, local.mean(2)


class BroadcastUnit(nn.Module):
    """x + y + BC(SiLU(BN(depthwise 1×3 convolution of the mean of y))), with y as in `FrequencyResidual`.

    On its own it is BC-CMT's local perception unit (BC-LPU); inside `FeedForward` it is the middle of BC-IRFFN.

    Args:
        channels: Channels of the plane.
        sub_bands: See `SubSpectralNorm`.
    """

    def __init__(self, channels: int, sub_bands: int) -> None:
        super().__init__()
        self.frequency = FrequencyResidual(channels, sub_bands)
        self.time = nn.Conv1d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, plane: Tensor, padding: Padding | None) -> Tensor:
        """Transform `plane` (batch, channels, bins, time)."""
        plane, mean = self.frequency(plane)
        mixed: Tensor = self.norm(self.time(_zeroed(mean, padding)))
        return plane + F.silu(mixed).unsqueeze(2)


class PlaneUnit(nn.Module):
    """x + depthwise 3×3 convolution of x: CMT's local perception unit, for comparison with `BroadcastUnit`.

    Args:
        channels: Channels of the plane.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, plane: Tensor, padding: Padding | None) -> Tensor:
        """Transform `plane` (batch, channels, bins, time)."""
        local: Tensor = self.conv(masked(plane, None if padding is None else padding.lengths))
        return plane + local


class FeedForward(nn.Module):
    """x + BN(W (GELU(unit(u)))) with u = GELU(BN(V x)): CMT's inverted residual feed-forward layer.

    With a `BroadcastUnit` it is BC-IRFFN. With a `PlaneUnit`, its output is normalised once more, as in CMT.

    Args:
        channels: Channels of the plane.
        expansion: Channels inside, as a multiple.
        sub_bands: See `SubSpectralNorm`.
        broadcast: Whether the unit in the middle is broadcast-residual.
    """

    def __init__(self, channels: int, expansion: int, sub_bands: int, broadcast: bool) -> None:
        super().__init__()
        inner = channels * expansion
        self.enter = nn.Conv2d(channels, inner, 1, bias=False)
        self.enter_norm = nn.BatchNorm2d(inner)
        self.unit = BroadcastUnit(inner, sub_bands) if broadcast else PlaneUnit(inner)
        self.unit_norm = nn.Identity() if broadcast else nn.BatchNorm2d(inner)
        self.leave = nn.Conv2d(inner, channels, 1, bias=False)
        self.leave_norm = nn.BatchNorm2d(channels)

    def forward(self, plane: Tensor, padding: Padding | None) -> Tensor:
        """Transform `plane` (batch, channels, bins, time)."""
        inner = F.gelu(self.enter_norm(self.enter(plane)))
        inner = self.unit_norm(F.gelu(self.unit(inner, padding)))
        result: Tensor = plane + self.leave_norm(self.leave(inner))
        return result


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
        self, queries: Tensor, sources: Tensor, valid_keys: Tensor | None, expose: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from `queries` (batch, queries, channels) to `sources` (batch, keys, channels); see `attend`."""
        query, key, value = (
            split_heads(layer(sequence), self.heads)
            for layer, sequence in ((self.query, queries), (self.key, sources), (self.value, sources))
        )
        mixed, weights = attend(query, key, value, valid_keys, expose=expose)
        return self.out(join_heads(mixed)), weights


class TemporalAttention(nn.Module):
    """x + y + BC(W softmax(Q K' / sqrt(d)) V): attention over time alone (BC-SA-1D).

    With y as in `FrequencyResidual`, Q comes from u = LN(mean of y over bins), K and V from u after a depthwise
    convolution that takes `reduction` frames to one. There is no positional bias, so that any length will do.
    Not stated in the abstract: where the mean is taken and that K and V share one convolution; this reading gives
    the published number of parameters.

    Args:
        channels: Channels of the plane.
        sub_bands: See `SubSpectralNorm`.
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
        """Transform `plane` (batch, channels, bins, time).

        Returns:
            The same shape, and the map (batch, heads, time, keys) if `expose`, else None.
        """
        plane, mean = self.frequency(plane) if self.frequency is not None else (plane, plane.mean(2))
        frames = self.norm(mean.transpose(1, 2))  # (batch, time, channels)
        sources = self._sources(frames, padding) if self.reduction > 1 else frames
        valid_keys = None
        if padding is not None:  # a key is valid where its first frame is
            valid_keys = padding.mask[:, None, :, :: self.reduction] > 0
        mixed, weights = self.attention(frames, sources, valid_keys, expose)
        return plane + mixed.transpose(1, 2).unsqueeze(2), weights

    def _sources(self, frames: Tensor, padding: Padding | None) -> Tensor:
        """(batch, time, channels) to (batch, keys, channels), the last key's missing frames taken as zero.

        A depthwise convolution whose stride is its kernel is a weighted sum over blocks; so written it needs no
        transposition.
        """
        if padding is not None:
            frames = frames * padding.mask.transpose(1, 2)
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
        """Transform `plane` (batch, channels, bins, time).

        Returns:
            The same shape, and the map (batch, heads, bins × time, keys) if `expose`, else None.
        """
        bins, frames = plane.shape[2:]
        queries = self.norm(plane.flatten(2).transpose(1, 2))  # (batch, bins × time, channels)
        keys = queries.transpose(1, 2).unflatten(2, (bins, frames))
        if self.reduction > 1:
            keys = masked(keys, None if padding is None else padding.lengths)
            keys = F.pad(keys, (0, -frames % self.reduction, 0, -bins % self.reduction))
            keys = self.reduce_norm(self.reduce(keys))
        valid_keys = None
        if padding is not None:
            valid = padding.mask[:, :, :: self.reduction] > 0  # (batch, 1, time / reduction)
            valid_keys = valid.expand(-1, keys.shape[2], -1).flatten(1)[:, None, None]
        mixed, weights = self.attention(queries, keys.flatten(2).transpose(1, 2), valid_keys, expose)
        return plane + mixed.transpose(1, 2).unflatten(2, (bins, frames)), weights
