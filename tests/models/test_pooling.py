"""Poolings against direct loops."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parvox.errors import RecipeError
from parvox.models.contract import Encoder
from parvox.models.pooling import (
    AttentiveStatisticsPoolingSettings,
    MeanPoolingSettings,
    StatisticsPoolingSettings,
)
from parvox.models.pooling_mqmha import MqmhaPoolingSettings

CHANNELS = 12


def encoder(channels: int = CHANNELS) -> Encoder:
    made = Encoder()
    made.frames_dim = channels
    return made


def drawn(seed: int, time: int = 9, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, CHANNELS, time, generator=torch.Generator().manual_seed(seed)) * 2 + 0.5


def randomised(pooling: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in pooling.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return pooling.eval()


def direct_statistics(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Of one channel over time, by the definition."""
    mean = sum(w * v for w, v in zip(weights, values, strict=True))
    variance = sum(w * (v - mean) ** 2 for w, v in zip(weights, values, strict=True))
    return mean, math.sqrt(max(variance, 1e-7))


def direct_softmax(scores: np.ndarray) -> np.ndarray:
    total = sum(math.exp(s) for s in scores)
    return np.array([math.exp(s) / total for s in scores])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), lengths=st.lists(st.integers(1, 9), min_size=3, max_size=3))
def test_mean_and_statistics_equal_the_definition(seed, lengths):
    frames = drawn(seed)
    mean = MeanPoolingSettings().build(encoder())(frames, torch.tensor(lengths))
    both = StatisticsPoolingSettings().build(encoder())(frames, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        values = frames[row, :, :length].double().numpy()
        np.testing.assert_allclose(mean[row], values.mean(1), atol=1e-5)
        expected = np.concatenate([values.mean(1), np.sqrt(np.maximum(values.var(1), 1e-7))])
        np.testing.assert_allclose(both[row], expected, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), lengths=st.lists(st.integers(1, 9), min_size=3, max_size=3), context=st.booleans())
def test_attentive_statistics_equal_the_definition(seed, lengths, context):
    pooling = randomised(AttentiveStatisticsPoolingSettings(hidden=5, context=context).build(encoder()), seed)
    frames = drawn(seed)
    pooled = pooling(frames, torch.tensor(lengths)).detach().numpy()
    frame_weight = pooling.frame_layer.weight.detach().squeeze(-1).double().numpy()
    bias = pooling.frame_layer.bias.detach().double().numpy()
    score_weight = pooling.score_layer.weight.detach().squeeze(-1).double().numpy()
    for row, length in enumerate(lengths):
        values = frames[row, :, :length].double().numpy()
        offset = bias
        if context:
            seen = np.concatenate([values.mean(1), np.sqrt(np.maximum(values.var(1), 1e-7))])
            offset = bias + pooling.context_layer.weight.detach().double().numpy() @ seen
        scores = score_weight @ np.tanh(frame_weight @ values + offset[:, None])
        found = [direct_statistics(values[c], direct_softmax(scores[c])) for c in range(CHANNELS)]
        expected = [mean for mean, _ in found] + [deviation for _, deviation in found]
        np.testing.assert_allclose(pooled[row], expected, atol=1e-4)


def direct_mqmha(pooling, made: MqmhaPoolingSettings, frames: np.ndarray) -> np.ndarray:
    """One utterance (channels, time), head by head, query by query, channel by channel, frame by frame."""
    layers = [layer for layer in pooling.score if isinstance(layer, torch.nn.Conv1d)]
    width = CHANNELS // made.heads
    means, deviations = [], []
    for head in range(made.heads):
        part = frames[head * width : (head + 1) * width]
        for query in range(made.queries):
            branch = head * made.queries + query
            scores = []
            for frame in part.T:
                state = frame
                for index, layer in enumerate(layers):
                    weight = layer.weight.detach().squeeze(-1).double().numpy()
                    rows = weight.shape[0] // (made.heads * made.queries)
                    state = weight[branch * rows : (branch + 1) * rows] @ state
                    if index < len(layers) - 1:
                        bias = layer.bias.detach().double().numpy()
                        state = np.tanh(state + bias[branch * rows : (branch + 1) * rows])
                scores.append(state)
            for channel in range(width):
                column = [s[channel if made.per_channel else 0] for s in scores]
                mean, deviation = direct_statistics(part[channel], direct_softmax(column))
                means.append(mean)
                deviations.append(deviation)
    return np.array(means + deviations)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 999),
    heads=st.sampled_from([1, 2, 3, 4, 6, 12]),
    queries=st.integers(1, 3),
    layers=st.integers(1, 3),
    per_channel=st.booleans(),
    lengths=st.lists(st.integers(1, 9), min_size=3, max_size=3),
)
def test_mqmha_equals_direct_loops(seed, heads, queries, layers, per_channel, lengths):
    made = MqmhaPoolingSettings(heads=heads, queries=queries, layers=layers, per_channel=per_channel, hidden=5)
    pooling = randomised(made.build(encoder()), seed)
    frames = drawn(seed)
    pooled = pooling(frames, torch.tensor(lengths)).detach().numpy()
    assert pooled.shape == (3, 2 * queries * CHANNELS) == (3, pooling.output_dim)
    for row, length in enumerate(lengths):
        expected = direct_mqmha(pooling, made, frames[row, :, :length].double().numpy())
        np.testing.assert_allclose(pooled[row], expected, atol=1e-4)


@pytest.mark.parametrize("per_channel", [True, False])
def test_mqmha_weights_sum_to_one_over_valid_frames_only(per_channel):
    made = MqmhaPoolingSettings(heads=3, queries=2, per_channel=per_channel, hidden=4)
    pooling = randomised(made.build(encoder()), 5)
    weights = pooling.weights(drawn(1), torch.tensor([9, 4, 1]))
    assert weights.shape == (3, 3, 2, 4 if per_channel else 1, 9)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert (weights[1, ..., 4:] == 0).all()
    assert (weights[2, ..., 0] == 1).all()
    assert weights[0].std(-1).min() > 0


def test_mqmha_of_one_head_and_query_is_attentive_statistics():
    mqmha = MqmhaPoolingSettings(heads=1, queries=1, layers=2, per_channel=True, hidden=7).build(encoder())
    attentive = AttentiveStatisticsPoolingSettings(hidden=7, context=False).build(encoder())
    with torch.no_grad():
        attentive.frame_layer.load_state_dict(mqmha.score[0].state_dict())
        attentive.score_layer.load_state_dict(mqmha.score[2].state_dict())
    frames, lengths = drawn(3), torch.tensor([9, 5, 2])
    torch.testing.assert_close(mqmha(frames, lengths), attentive(frames, lengths))


def test_mqmha_without_per_channel_is_self_attentive():
    """One softmax of w·tanh(W x + b) for the whole frame (Zhu et al., Interspeech 2018)."""
    pooling = randomised(MqmhaPoolingSettings(heads=1, queries=1, per_channel=False, hidden=6).build(encoder()), 2)
    frames = drawn(8, batch=1)
    first, last = pooling.score[0], pooling.score[2]
    scores = last.weight[:, :, 0] @ torch.tanh(first.weight[:, :, 0] @ frames[0] + first.bias[:, None])
    weights = scores[0].softmax(-1)
    mean = frames[0] @ weights
    deviation = (((frames[0] - mean[:, None]) ** 2) @ weights).sqrt()
    torch.testing.assert_close(pooling(frames)[0], torch.cat([mean, deviation]))


def test_mqmha_of_one_layer_is_multi_head_attention():
    """Each head's weights are a softmax of u_h · x^h (India et al., Interspeech 2019)."""
    made = MqmhaPoolingSettings(heads=4, queries=1, layers=1, per_channel=False)
    pooling = randomised(made.build(encoder()), 4)
    frames = drawn(9, batch=1)[0]
    means = []
    for head, vector in enumerate(pooling.score[0].weight[:, :, 0]):
        part = frames[head * 3 : head * 3 + 3]
        means.append(part @ (vector @ part).softmax(-1))
    torch.testing.assert_close(pooling(frames[None])[0, :CHANNELS], torch.cat(means))


@pytest.mark.parametrize(
    ("layers", "per_channel", "expected"),
    # Q H (d_h d_s) for one layer, Q H (d_h d_k + d_k + d_k d_s) for two, with d_h = 12 / 3 = 4, Q = 2, d_k = 5.
    [(1, False, 6 * 4), (1, True, 6 * 16), (2, False, 6 * (20 + 5 + 5)), (2, True, 6 * (20 + 5 + 20))],
)
def test_mqmha_parameters(layers, per_channel, expected):
    made = MqmhaPoolingSettings(heads=3, queries=2, layers=layers, per_channel=per_channel, hidden=5)
    assert sum(p.numel() for p in made.build(encoder()).parameters()) == expected


ALL = [
    MeanPoolingSettings(),
    StatisticsPoolingSettings(),
    AttentiveStatisticsPoolingSettings(hidden=5),
    MqmhaPoolingSettings(heads=3, hidden=5),
]
kinds = pytest.mark.parametrize("made", ALL, ids=lambda made: type(made).__name__)


@kinds
def test_constant_frames_have_no_deviation(made):
    pooling = made.build(encoder())
    constant = torch.arange(1.0, CHANNELS + 1)[None, :, None].expand(2, -1, 50) * 7
    pooled = pooling(constant, torch.tensor([50, 20]))
    copies = pooling.output_dim // CHANNELS // (1 if isinstance(made, MeanPoolingSettings) else 2)
    means = pooled[:, : copies * CHANNELS].sort(1).values  # each query repeats its head's channels
    torch.testing.assert_close(means, constant[:, :, 0].repeat(1, copies).sort(1).values)
    assert (pooled[:, copies * CHANNELS :] < 1e-3).all()


@kinds
def test_order_of_frames_does_not_matter(made):
    pooling = made.build(encoder())
    frames = drawn(4, time=30)
    shuffled = frames[:, :, torch.randperm(30, generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(pooling(frames), pooling(shuffled), atol=1e-5, rtol=1e-5)


@kinds
def test_statistics_of_half_precision_frames_are_in_float32(made):
    pooling = made.build(encoder())
    frames = (drawn(6, time=400) + 30).bfloat16()  # a mean far above the deviation
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pooling(frames)
    assert pooled.dtype == torch.float32
    # Attention weights come from bf16 scores; means and deviations of these very frames must still be close.
    torch.testing.assert_close(pooled, pooling(frames.float()), atol=0.15, rtol=0.02)


@kinds
def test_threads_share_one_pooling(made):
    pooling = made.build(encoder()).eval()
    inputs = [drawn(seed, time=20 + seed) for seed in range(16)]
    with torch.no_grad():
        expected = [pooling(frames) for frames in inputs]
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda frames: pooling(frames).detach(), inputs))
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: MqmhaPoolingSettings(heads=5).build(encoder()), "5 heads with frames of 12 channels"),
        (lambda: MqmhaPoolingSettings(queries=0), "queries 0"),
        (lambda: MqmhaPoolingSettings(layers=0), "layers 0"),
        (lambda: AttentiveStatisticsPoolingSettings(hidden=0), "hidden 0"),
    ],
)
def test_bad_settings_are_refused(make, says):
    with pytest.raises(RecipeError, match=says):
        make()
