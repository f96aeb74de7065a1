"""Memory layers: what stands in a transformer block where a feed-forward layer would.

Each takes a sequence (batch, positions, channels) and gives one of the same shape; each position is looked up on its
own.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KeyValueMemory(nn.Module):
    """softmax(q(x) K') V with trainable keys and values, by heads.

    Each head has its own keys, and values for its own part of the channels. The paper that brings memory layers to
    speaker verification (Mingote et al., ICASSP 2021) does not say in its abstract which kind it means; this dense
    one is the plainest reading, after Sukhbaatar et al., "End-To-End Memory Networks", 2015.

    Args:
        channels: Channels of the sequence.
        slots: Keys, and values, of each head.
        key_dim: Size of a key.
        heads: Heads; they must divide the channels.
    """

    def __init__(self, channels: int, slots: int, key_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, heads * key_dim)
        self.keys = nn.Parameter(torch.randn(heads, slots, key_dim) * key_dim**-0.5)
        self.values = nn.Parameter(torch.randn(heads, slots, channels // heads) * channels**-0.5)

    def forward(self, sequence: Tensor) -> Tensor:
        """Look up `sequence` (batch, positions, channels)."""
        query = self.query(sequence).flatten(0, 1).unflatten(1, (self.heads, -1)).transpose(0, 1)
        # (heads, batch × positions, key_dim): batches apart would each be given a copy of keys and values
        found = torch.bmm(torch.bmm(query, self.keys.transpose(1, 2)).softmax(-1), self.values)
        result: Tensor = found.transpose(0, 1).flatten(1).unflatten(0, sequence.shape[:2])
        return result


class ProductKeyMemory(nn.Module):
    """The values of the best keys among all pairs of sub-keys, weighted by a softmax of their scores.

    A query is normalised over the batch and cut in two; each half is scored with its own `sub_keys` sub-keys. A
    key is a pair of sub-keys and scores their sum, so that the best `top_k` of sub_keys² keys are found among the
    pairs of the best `top_k` of each half. Heads have their own queries and sub-keys; values are shared, and the heads'
    results added.

    Source: Lample et al., "Large Memory Layers with Product Keys", NeurIPS 2019, equations 1 to 4 and section 3.2.

    Args:
        channels: Channels of the sequence.
        sub_keys: Sub-keys of each half; there are sub_keys² values.
        key_dim: Size of a key; even.
        heads: Heads.
        top_k: Values that each head looks up, at most `sub_keys`.
    """

    def __init__(self, channels: int, sub_keys: int, key_dim: int, heads: int, top_k: int) -> None:
        super().__init__()
        self.heads, self.top_k = heads, top_k
        self.query = nn.Linear(channels, heads * key_dim, bias=False)
        self.query_norm = nn.BatchNorm1d(heads * key_dim)
        bound = (key_dim // 2) ** -0.5
        self.sub_keys = nn.Parameter(torch.empty(heads, 2, sub_keys, key_dim // 2).uniform_(-bound, bound))
        self.values = nn.Parameter(torch.randn(sub_keys**2, channels) * channels**-0.5)

    def look_up(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        """Which values each position takes, and how much of each.

        Args:
            sequence: (batch, positions, channels).

        Returns:
            Indices and weights, both (batch × positions, heads, top_k); the weights sum to 1.
        """
        query = self.query_norm(self.query(sequence).flatten(0, 1))
        query = query.unflatten(1, (self.heads, 2, -1)).permute(1, 2, 0, 3)  # (heads, 2, batch × positions, half)
        scores = (query @ self.sub_keys.transpose(2, 3)).to(torch.promote_types(query.dtype, torch.float32))
        scores, indices = scores.topk(self.top_k, dim=-1)
        pairs = scores[:, 0, :, :, None] + scores[:, 1, :, None, :]  # (heads, batch × positions, top_k, top_k)
        best, chosen = pairs.flatten(2).topk(self.top_k, dim=-1)
        first = indices[:, 0].gather(2, chosen // self.top_k)
        second = indices[:, 1].gather(2, chosen % self.top_k)
        keys = first * self.sub_keys.shape[2] + second
        return keys.transpose(0, 1), best.softmax(-1).transpose(0, 1)

    def forward(self, sequence: Tensor) -> Tensor:
        """Look up `sequence` (batch, positions, channels)."""
        keys, weights = (part.flatten(1) for part in self.look_up(sequence))
        if torch.compiler.is_exporting():  # ONNX has no embedding bag
            found = (weights.unsqueeze(1) @ self.values[keys]).squeeze(1)
        else:  # does not keep the values of every position
            found = F.embedding_bag(keys, self.values, mode="sum", per_sample_weights=weights.to(self.values.dtype))
        result: Tensor = found.unflatten(0, sequence.shape[:2])
        return result


class FeedForwardLayer(nn.Module):
    """W₂ gelu(W₁ x + b₁) + b₂, the transformer's own layer, for comparison.

    Args:
        channels: Channels of the sequence.
        hidden: Width inside.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.enter = nn.Linear(channels, hidden)
        self.leave = nn.Linear(hidden, channels)

    def forward(self, sequence: Tensor) -> Tensor:
        """Transform `sequence` (batch, positions, channels)."""
        result: Tensor = self.leave(F.gelu(self.enter(sequence)))
        return result


def square_root(number: int) -> int | None:
    """The whole square root, or None where there is none."""
    root = math.isqrt(number)
    return root if root * root == number else None
