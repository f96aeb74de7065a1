"""Multi-query multi-head attentive statistics pooling, and the poolings that are special cases of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from parvox.errors import RecipeError
from parvox.models.contract import Encoder, Pooling
from parvox.models.layers import MOST_LAYERS, check_positive
from parvox.models.pooling import attention_weights, full_precision, weighted_statistics
from parvox.models.registry import POOLINGS

_NAME = "mqmha"


@POOLINGS.register(_NAME, source="Zhao et al., ICASSP 2022, arXiv 2110.05042")
@dataclass(frozen=True, kw_only=True)
class MqmhaPoolingSettings:
    """Statistics under several attention weights for each part of the channels (MQMHA).

    Special cases: heads 1, queries 1, layers 2, not per_channel is the attentive statistics pooling of Okabe et al.,
    whose means are self-attentive pooling; per_channel, that of ECAPA-TDNN without context; heads above 1, queries 1,
    layers 1, not per_channel has the means of multi-head attention pooling; heads 1, queries above 1, layers 2,
    per_channel is vector-based attention pooling.

    The equations are those of WeSpeaker's and asv-subtools' implementations. How many heads and queries the paper
    had is not known; WeSpeaker has 8 and 2, asv-subtools 4 and 2, and 2 and 2 in its recipe.
    """

    heads: int = 4
    """Parts the channels are split into; must divide them."""
    queries: int = 2
    """Attention weights for each part."""
    layers: int = 2
    """Layers that compute a weight; all but the last are followed by tanh."""
    per_channel: bool = True
    """Whether each channel has its own weights, or a part's channels share them."""
    hidden: int = 64
    """Width of the layers between, for each query of each head."""

    def __post_init__(self) -> None:
        check_positive(_NAME, heads=self.heads, queries=self.queries, hidden=self.hidden)
        check_positive(_NAME, MOST_LAYERS, layers=self.layers)

    def build(self, encoder: Encoder) -> Pooling:
        """The pooling for the frames of `encoder`.

        Raises:
            RecipeError: the heads do not divide the encoder's channels.
        """
        if encoder.frames_dim % self.heads:
            divisors = [n for n in range(1, 33) if encoder.frames_dim % n == 0]
            raise RecipeError(
                f"{_NAME}: {self.heads} heads with frames of {encoder.frames_dim} channels given; "
                f"expected a number that divides the channels ({', '.join(map(str, divisors))})"
            )
        return MqmhaPooling(self, encoder.frames_dim)


class MqmhaPooling(Pooling):
    """Mean and standard deviation under Q attention weights for each of H parts of the channels.

    For head h and query q the weights over frames are softmax_t(F(x_t^h)) with F(x) = W x for one layer and
    W2 tanh(W1 x + b1) for two, as in WeSpeaker. All heads and queries are computed together by grouped
    pointwise convolutions. The last layer has no bias: it would be the same for all frames, and the softmax would
    cancel it.

    Args:
        settings: Heads, queries, layers and widths.
        channels: Channels of the frames, divisible by the heads.
    """

    def __init__(self, settings: MqmhaPoolingSettings, channels: int) -> None:
        super().__init__()
        self.heads, self.queries = settings.heads, settings.queries
        self.output_dim = 2 * settings.queries * channels
        branches = settings.heads * settings.queries
        scores = channels // settings.heads if settings.per_channel else 1
        layers: list[nn.Module] = []
        width, groups = channels, settings.heads
        for _ in range(settings.layers - 1):
            layers += [nn.Conv1d(width, branches * settings.hidden, 1, groups=groups), nn.Tanh()]
            width, groups = branches * settings.hidden, branches
        layers.append(nn.Conv1d(width, branches * scores, 1, groups=groups, bias=False))
        self.score = nn.Sequential(*layers)

    def weights(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Attention weights that sum to 1 over valid frames.

        Args:
            frames: (batch, channels, time).
            lengths: (batch,) int64 valid frames; None when every row is full.

        Returns:
            (batch, heads, queries, channels of a head or 1, time) float32.
        """
        scores = self.score(frames).unflatten(1, (self.heads, self.queries, -1))
        return attention_weights(scores, lengths)

    def forward(self, frames: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        """See `Pooling.forward`; all means come first, by head, query and channel, then all deviations."""
        weights = self.weights(frames, lengths)
        parts = full_precision(frames).unflatten(1, (self.heads, 1, -1))
        mean, deviation = weighted_statistics(parts, weights)
        return torch.cat([mean.flatten(1), deviation.flatten(1)], 1)
