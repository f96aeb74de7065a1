"""Memory layers against loops and exhaustive search."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parvox.models.memory_layers import FeedForwardLayer, KeyValueMemory, ProductKeyMemory, square_root


def softmax(values: np.ndarray) -> np.ndarray:
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def test_key_value_memory_against_a_loop():
    torch.manual_seed(1)
    memory = KeyValueMemory(8, 5, 3, 2).double()
    sequence = torch.randn(2, 4, 8, dtype=torch.float64)
    queries = (sequence @ memory.query.weight.T + memory.query.bias).detach().numpy()
    keys, values = memory.keys.detach().numpy(), memory.values.detach().numpy()
    expected = np.zeros((2, 4, 8))
    for row in range(2):
        for position in range(4):
            for head in range(2):
                query = queries[row, position, 3 * head : 3 * head + 3]
                weights = softmax(np.array([query @ key for key in keys[head]]))
                expected[row, position, 4 * head : 4 * head + 4] = sum(
                    weight * value for weight, value in zip(weights, values[head], strict=True)
                )
    np.testing.assert_allclose(memory(sequence).detach(), expected, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 3))
def test_product_keys_against_all_products(seed, top_k, heads):
    """The best keys of all sub_keys² pairs, found by scoring every pair."""
    torch.manual_seed(seed)
    memory = ProductKeyMemory(6, 6, 4, heads, top_k).double().eval()
    memory.query_norm.running_mean.normal_()
    memory.query_norm.running_var.uniform_(0.5, 2)
    sequence = torch.randn(2, 3, 6, dtype=torch.float64)
    with torch.no_grad():
        queries = memory.query_norm((sequence @ memory.query.weight.T).view(6, -1)).numpy()
        found = memory(sequence).view(6, 6).numpy()
    sub_keys, values = memory.sub_keys.detach().numpy(), memory.values.detach().numpy()
    for position in range(6):
        expected = np.zeros(6)
        for head in range(heads):
            query = queries[position, 4 * head : 4 * head + 4]
            scores = np.array(
                [
                    np.concatenate([sub_keys[head, 0, first], sub_keys[head, 1, second]]) @ query
                    for first in range(6)
                    for second in range(6)
                ]
            )
            best = np.argsort(-scores)[:top_k]
            expected += softmax(scores[best]) @ values[best]
        np.testing.assert_allclose(found[position], expected, atol=1e-10)


def test_product_keys_have_unique_places_and_weights_that_sum_to_one():
    memory = ProductKeyMemory(16, 8, 8, 3, 5).eval()
    keys, weights = memory.look_up(torch.randn(2, 10, 16))
    assert keys.shape == weights.shape == (20, 3, 5)
    assert keys.min() >= 0
    assert keys.max() < 64
    assert all(len(set(row.tolist())) == 5 for row in keys.flatten(0, 1))
    torch.testing.assert_close(weights.sum(-1), torch.ones(20, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "build",
    [
        lambda: KeyValueMemory(16, 32, 8, 2),
        lambda: ProductKeyMemory(16, 6, 8, 2, 4),
        lambda: FeedForwardLayer(16, 32),
    ],
)
def test_layers_train(build, dtype):
    layer = build()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        out = layer(torch.randn(8, 40, 16))
    assert out.shape == (8, 40, 16)
    (out.float() * torch.randn(8, 40, 16)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_square_roots():
    assert [square_root(number) for number in (1, 2, 1024, 1023)] == [1, None, 32, None]
