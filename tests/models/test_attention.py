"""Attention against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from parvox.models.attention import attend, join_heads, split_heads


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("expose", [False, True])
def test_equals_torchs_own(masked, expose):
    query, key, value = (torch.randn(3, 2, length, 4, dtype=torch.float64) for length in (5, 7, 7))
    valid = (torch.arange(7) < torch.tensor([7, 3, 1])[:, None])[:, None, None] if masked else None
    bias = None if valid is None else valid.double().log()
    found, weights = attend(query, key, value, bias, expose=expose)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(query, key, value, valid))
    assert (weights is not None) == expose
    if weights is not None:
        torch.testing.assert_close(weights @ value, found)
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, 5, dtype=torch.float64))
        if masked:
            assert weights[1, :, :, 3:].abs().max() == 0


def test_maps_are_precise_in_half_precision():
    query, key, value = (torch.randn(1, 1, 40, 8).bfloat16() for _ in range(3))
    found, weights = attend(query, key, value, expose=True)
    assert found.dtype == torch.bfloat16
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 1, 40))  # to 1e-6, which bf16 would miss


def test_heads_split_and_join():
    values = torch.arange(24.0).view(1, 3, 8)
    heads = split_heads(values, 2)
    assert heads.shape == (1, 2, 3, 4)
    torch.testing.assert_close(heads[0, 1, 2], torch.tensor([20.0, 21, 22, 23]))
    torch.testing.assert_close(join_heads(heads), values)
