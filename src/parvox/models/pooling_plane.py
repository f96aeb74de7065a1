"""Read-outs of planes with a frequency axis: BC-CMT's attentive statistics of frequency statistics, and their mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from parvox.errors import RecipeError
from parvox.models.contract import Encoder, Pooling
from parvox.models.layers import check_positive
from parvox.models.pooling import (
    AttentiveStatisticsPooling,
    StatisticsPooling,
    attention_weights,
    full_precision,
    weighted_statistics,
)
from parvox.models.registry import POOLINGS

_NAME = "fsd_asp"
_AVERAGE = "frequency_average"


@POOLINGS.register(_NAME, source="Choi et al., Interspeech 2022 and IEEE/ACM TASLP 32, 2024; details reconstructed")
@dataclass(frozen=True, kw_only=True)
class FsdAspSettings:
    """Attentive statistics over time of means and deviations that attention takes over frequency."""

    hidden: int = 128
    """Width of the temporal attention's hidden layer."""

    def __post_init__(self) -> None:
        check_positive(_NAME, hidden=self.hidden)

    def build(self, encoder: Encoder) -> Pooling:
        """The pooling for the frames of `encoder`.

        Raises:
            RecipeError: the encoder's frames have no frequency axis.
        """
        return FsdAsp(_channels(encoder, _NAME), encoder.frame_bins, self.hidden)


@POOLINGS.register(_AVERAGE, source="the usual read-out of planes, which BC-CMT's is to be compared with")
@dataclass(frozen=True, kw_only=True)
class FrequencyAverageSettings:
    """Statistics over time of the plane's mean over its bins; other poolings take bins for so many channels more."""

    attentive: bool = True
    """Whether attention weighs the frames, with a weight for each channel; if not, all count alike."""
    hidden: int = 128
    """Width of the attention's hidden layer, if there is attention."""

    def __post_init__(self) -> None:
        check_positive(_AVERAGE, hidden=self.hidden)

    def build(self, encoder: Encoder) -> Pooling:
        """The pooling for the frames of `encoder`.

        Raises:
            RecipeError: the encoder's frames have no frequency axis.
        """
        channels = _channels(encoder, _AVERAGE)
        over_time = (
            AttentiveStatisticsPooling(channels, self.hidden, context=False)
            if self.attentive
            else StatisticsPooling(channels)
        )
        return FrequencyAverage(encoder.frame_bins, over_time)


def _channels(encoder: Encoder, name: str) -> int:
    """Channels of the encoder's plane."""
    if encoder.frame_bins < 2:
        raise RecipeError(
            f"{name}: the encoder's frames have {encoder.frame_bins} frequency bin; expected 2 or more, as "
            f"two-dimensional encoders give them: choose one (bc_cmt, redimnet2, resnet34) or attentive_statistics"
        )
    return encoder.frames_dim // encoder.frame_bins


class FsdAsp(Pooling):
    """Frequency-statistics-dependent attentive statistics pooling.

    a = softmax over bins of W X; m = sum of a X and s = sqrt(sum of a (X - m)²) over bins; then mean and deviation
    of [m; s] over time, under a softmax of V tanh(BN(relu(U [m; s]))). The abstracts state means and deviations
    under attention along frequency; the layers and their order are a reading, ECAPA-TDNN's attention with the
    published number of parameters, which includes the biases before each softmax, though the softmax cancels them.

    Args:
        channels: Channels of the plane.
        bins: Bins of the plane.
        hidden: Width of the temporal attention's hidden layer.
    """

    def __init__(self, channels: int, bins: int, hidden: int) -> None:
        super().__init__()
        self.bins = bins
        self.output_dim = 4 * channels
        self.bin_scores = nn.Conv2d(channels, channels, 1)
        self.hidden = nn.Conv1d(2 * channels, hidden, 1)
        self.norm = nn.BatchNorm1d(hidden)
        self.time_scores = nn.Conv1d(hidden, 2 * channels, 1)

    def frequency_statistics(self, frames: Tensor) -> Tensor:
        """(batch, channels × bins, time) to means and deviations over bins, (batch, 2 × channels, time)."""
        plane = frames.unflatten(1, (-1, self.bins))  # (batch, channels, bins, time)
        weights = full_precision(self.bin_scores(plane)).softmax(2)
        return torch.cat(weighted_statistics(full_precision(plane), weights, 2), 1)

    def forward(self, frames: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        """See `Pooling.forward`."""
        statistics = self.frequency_statistics(frames)
        scores = self.time_scores(self.norm(self.hidden(statistics).relu()).tanh())
        return torch.cat(weighted_statistics(statistics, attention_weights(scores, lengths)), 1)


class FrequencyAverage(Pooling):
    """A pooling over time of the mean over bins.

    Args:
        bins: Bins of the plane.
        over_time: The pooling, of as many channels as the plane has.
    """

    def __init__(self, bins: int, over_time: Pooling) -> None:
        super().__init__()
        self.bins = bins
        self.output_dim = over_time.output_dim
        self.over_time = over_time

    def forward(self, frames: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        """See `Pooling.forward`."""
        means = full_precision(frames.unflatten(1, (-1, self.bins))).mean(2)
        pooled: Tensor = self.over_time(means, lengths)
        return pooled
