"""Read-outs of planes: FSD-ASP and the mean over bins, against loops, and their padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from parvox.errors import RecipeError
from parvox.models.ecapa_tdnn import EcapaTdnnSettings
from parvox.models.pooling_plane import FrequencyAverageSettings, FsdAsp, FsdAspSettings


def built() -> FsdAsp:
    torch.manual_seed(2)
    pooling = FsdAsp(3, 4, 6).eval()
    pooling.norm.running_mean.normal_()
    pooling.norm.running_var.uniform_(0.5, 2)
    return pooling


def softmax(values: np.ndarray) -> np.ndarray:
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def point(layer, values: np.ndarray) -> np.ndarray:
    weight = layer.weight.detach().numpy().reshape(layer.weight.shape[:2])
    return weight @ values + layer.bias.detach().numpy()


def test_against_loops():
    pooling = built()
    frames = torch.randn(1, 12, 5)
    plane = frames[0].view(3, 4, 5).numpy().astype(np.float64)
    rows = np.zeros((6, 5))
    for time in range(5):
        scores = np.stack([point(pooling.bin_scores, plane[:, bin_, time]) for bin_ in range(4)], 1)
        for channel in range(3):
            weights = softmax(scores[channel])
            mean = (weights * plane[channel, :, time]).sum()
            rows[channel, time] = mean
            rows[3 + channel, time] = np.sqrt((weights * plane[channel, :, time] ** 2).sum() - mean**2)
    norm = pooling.norm
    scores = np.zeros((6, 5))
    for time in range(5):
        hidden = np.maximum(point(pooling.hidden, rows[:, time]), 0)
        hidden = (hidden - norm.running_mean.numpy()) / np.sqrt(norm.running_var.numpy() + norm.eps)
        scores[:, time] = point(pooling.time_scores, np.tanh(hidden))
    means, deviations = [], []
    for channel in range(6):
        weights = softmax(scores[channel])
        means.append((weights * rows[channel]).sum())
        deviations.append(np.sqrt((weights * (rows[channel] - means[-1]) ** 2).sum()))
    with torch.no_grad():
        np.testing.assert_allclose(pooling(frames)[0], [*means, *deviations], atol=1e-5)


def test_padding_is_not_seen():
    pooling = built()
    frames = torch.randn(3, 12, 9)
    lengths = torch.tensor([9, 1, 4])
    with torch.no_grad():
        together = pooling(frames, lengths)
        for row, length in enumerate(lengths.tolist()):
            torch.testing.assert_close(together[row], pooling(frames[row : row + 1, :, :length])[0])


class Plane:
    """An encoder as poolings see it: 3 channels, 4 bins."""

    frames_dim, frame_bins = 12, 4


def test_the_average_against_loops():
    frames = torch.randn(2, 12, 5)
    plane = frames.view(2, 3, 4, 5).numpy().astype(np.float64)
    means = np.stack([[[row[c, :, t].sum() / 4 for t in range(5)] for c in range(3)] for row in plane])
    plain = FrequencyAverageSettings(attentive=False).build(Plane())
    np.testing.assert_allclose(plain(frames), np.concatenate([means.mean(2), means.std(2)], 1), atol=1e-6)
    attentive = FrequencyAverageSettings(hidden=6).build(Plane())
    layers = attentive.over_time
    with torch.no_grad():
        found = attentive(frames)
        for row in range(2):
            hidden = np.stack([np.tanh(point(layers.frame_layer, means[row, :, t])) for t in range(5)], 1)
            scores = layers.score_layer.weight[:, :, 0].numpy() @ hidden
            weights = np.stack([softmax(channel) for channel in scores])
            mean = (weights * means[row]).sum(1)
            deviation = np.sqrt((weights * (means[row] - mean[:, None]) ** 2).sum(1))
            np.testing.assert_allclose(found[row], [*mean, *deviation], atol=1e-5)


@pytest.mark.parametrize("settings", [FsdAspSettings, FrequencyAverageSettings])
def test_an_encoder_without_bins_is_refused(settings):
    with pytest.raises(RecipeError, match="1 frequency bin; expected 2 or more"):
        settings().build(EcapaTdnnSettings(channels=16, frames_dim=24).build(80))
    with pytest.raises(RecipeError, match="hidden 0"):
        settings(hidden=0)
