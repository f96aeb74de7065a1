"""Dot-product attention as Parvox's encoders use it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def split_heads(values: Tensor, heads: int) -> Tensor:
    """(batch, positions, channels) to (batch, heads, positions, channels / heads)."""
    separate: Tensor = values.unflatten(2, (heads, -1))
    return separate.transpose(1, 2)


def join_heads(values: Tensor) -> Tensor:
    """(batch, heads, positions, width) to (batch, positions, heads × width)."""
    return values.transpose(1, 2).flatten(2)


def attend(
    query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None, *, expose: bool = False
) -> tuple[Tensor, Tensor | None]:
    """softmax(Q K' / sqrt(width)) V over valid keys.

    Source: Vaswani et al., "Attention Is All You Need", 2017, equation 1.

    Args:
        query: (batch, heads, queries, width).
        key: (batch, heads, keys, width).
        value: (batch, heads, keys, width).
        key_bias: (batch, 1, 1, keys), added to the scores: 0 for valid keys, minus infinity for others; None when all
            are valid.
        expose: Whether the weights are wanted too.

    Returns:
        (batch, heads, queries, width), and the weights (batch, heads, queries, keys) in float32 or better, or None.
    """
    # The fused kernel would do on processors too, but with the few frames of a crop it is no faster there.
    if query.is_cuda and not expose:
        bias = None if key_bias is None else key_bias.to(query.dtype)
        return F.scaled_dot_product_attention(query, key, value, bias), None
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if key_bias is not None:
        scores = scores + key_bias.to(scores.dtype)
    if not expose:
        return scores.softmax(-1) @ value, None
    weights = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(-1)
    return weights.to(value.dtype) @ value, weights
