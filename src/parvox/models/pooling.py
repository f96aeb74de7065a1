"""Read-outs from frames to one vector: mean, statistics, attentive statistics.

Statistics are computed in float32 whatever the network's precision, around the mean rather than as a difference of
squares: a channel that hardly varies would otherwise have a deviation made of rounding errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from parvox.models.contract import Encoder, Pooling, mask_from_lengths
from parvox.models.layers import check_positive, masked_mean
from parvox.models.registry import POOLINGS

MIN_VARIANCE = 1e-7
"""Variances are raised to this before the root is taken, as in the public implementations."""


def full_precision(values: Tensor) -> Tensor:
    """`values` in float32 where they are in half precision, else unchanged."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def statistics(frames: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over valid frames.

    Args:
        frames: (batch, channels, time), not in half precision.
        lengths: (batch,) int64 valid frames; None when every row is full.

    Returns:
        Both (batch, channels). The deviation is the population's (divided by the count, not the count less one), so
        that a single frame has one.
    """
    mean = masked_mean(frames, lengths)
    variance = masked_mean((frames - mean.unsqueeze(-1)).square(), lengths)
    return mean, variance.clamp(min=MIN_VARIANCE).sqrt()


def weighted_statistics(frames: Tensor, weights: Tensor, axis: int = -1) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over an axis, that of time unless given, under weights that sum to 1 along it.

    Args:
        frames: (…, time), not in half precision.
        weights: (…, time), of a shape that broadcasts with `frames`.
        axis: Which.

    Returns:
        Both of the broadcast shape without that axis.
    """
    mean = (weights * frames).sum(axis)
    variance = (weights * (frames - mean.unsqueeze(axis)).square()).sum(axis)
    return mean, variance.clamp(min=MIN_VARIANCE).sqrt()


def attention_weights(scores: Tensor, lengths: Tensor | None) -> Tensor:
    """Softmax of `scores` (batch, …, time) over valid frames, in float32; zero where padded."""
    scores = full_precision(scores)
    if lengths is not None:
        mask = mask_from_lengths(lengths, scores.shape[-1])
        shape = (mask.shape[0],) + (1,) * (scores.dim() - 2) + (mask.shape[1],)
        scores = scores.masked_fill(~mask.view(shape), float("-inf"))
    return scores.softmax(-1)


@POOLINGS.register("mean", source="Kaldi and others; temporal average pooling")
@dataclass(frozen=True, kw_only=True)
class MeanPoolingSettings:
    """The mean over frames."""

    def build(self, encoder: Encoder) -> Pooling:
        """The pooling for the frames of `encoder`."""
        return MeanPooling(encoder.frames_dim)


class MeanPooling(Pooling):
    """The mean of each channel over valid frames.

    Args:
        channels: Channels of the frames.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.output_dim = channels

    def forward(self, frames: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        """See `Pooling.forward`."""
        return masked_mean(full_precision(frames), lengths)


@POOLINGS.register("statistics", source="Snyder et al., ICASSP 2018")
@dataclass(frozen=True, kw_only=True)
class StatisticsPoolingSettings:
    """Mean and standard deviation over frames."""

    def build(self, encoder: Encoder) -> Pooling:
        """The pooling for the frames of `encoder`."""
        return StatisticsPooling(encoder.frames_dim)


class StatisticsPooling(Pooling):
    """Mean and standard deviation of each channel over valid frames.

    Args:
        channels: Channels of the frames.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.output_dim = 2 * channels

    def forward(self, frames: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        """See `Pooling.forward`."""
        return torch.cat(statistics(full_precision(frames), lengths), 1)


@POOLINGS.register(
    "attentive_statistics",
    source="Desplanques et al., arXiv 2005.07143, section 3.1; after Okabe et al., arXiv 1803.10963",
)
@dataclass(frozen=True, kw_only=True)
class AttentiveStatisticsPoolingSettings:
    """Mean and standard deviation under weights that each channel gives each frame.

    Okabe et al. have one weight for all channels of a frame: that is `mqmha` with heads 1, queries 1, layers 2,
    per_channel false.
    """

    hidden: int = 128
    """Width of the attention's hidden layer."""
    context: bool = True
    """Whether the attention also sees the utterance's mean and standard deviation, as in ECAPA-TDNN."""

    def __post_init__(self) -> None:
        check_positive("attentive_statistics", hidden=self.hidden)

    def build(self, encoder: Encoder) -> Pooling:
        """The pooling for the frames of `encoder`."""
        return AttentiveStatisticsPooling(encoder.frames_dim, self.hidden, self.context)


class AttentiveStatisticsPooling(Pooling):
    """Statistics under a softmax over frames of V tanh(W x + b), with one weight per channel and frame.

    The paper's second bias k is left out: it is the same for all frames, so the softmax cancels it.

    Args:
        channels: Channels of the frames.
        hidden: Width of the attention's hidden layer.
        context: Whether W also sees the utterance's mean and standard deviation.
    """

    def __init__(self, channels: int, hidden: int, context: bool) -> None:
        super().__init__()
        self.output_dim = 2 * channels
        self.frame_layer = nn.Conv1d(channels, hidden, 1)
        # W [x; mean; deviation] is taken apart: the part that is the same for all frames is computed once.
        self.context_layer = nn.Linear(2 * channels, hidden, bias=False) if context else None
        self.score_layer = nn.Conv1d(hidden, channels, 1, bias=False)

    def weights(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Attention weights (batch, channels, time) for `frames` of that shape; they sum to 1 over valid frames."""
        hidden = self.frame_layer(frames)
        if self.context_layer is not None:
            context = torch.cat(statistics(full_precision(frames), lengths), 1)
            hidden = hidden + self.context_layer(context).unsqueeze(-1)
        return attention_weights(self.score_layer(hidden.tanh()), lengths)

    def forward(self, frames: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        """See `Pooling.forward`."""
        weights = self.weights(frames, lengths)
        return torch.cat(weighted_statistics(full_precision(frames), weights), 1)
