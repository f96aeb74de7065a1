"""Maps: segments that lose no frame, averages over durations, and values from 0 to 1."""

import numpy as np
import pytest
import torch
from distillation_pairs import features, frozen, make
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from parvox.distillation.attribution import integrated_gradients, true_speaker_score
from parvox.distillation.maps import (
    MapSettings,
    attributions,
    normalised,
    permuted,
    saliency,
    segment_lengths,
    segments,
)
from parvox.errors import RecipeError

LABELS = torch.tensor([0, 6, 2])


def squares(points, which):
    """Σ x²: each bin's attribution is its own square, whatever segment it is in."""
    return points.square().sum((1, 2))


def teacher():
    return true_speaker_score(*frozen(make(seed=2)), LABELS)


@given(st.integers(1, 400), st.integers(0, 500))
def test_segments_keep_every_frame_once_and_are_of_one_length(frames, length):
    pieces = segments(frames, length)
    kept = [frame for piece in pieces for frame in range(piece.kept, piece.stop)]
    assert kept == list(range(frames))
    assert {piece.stop - piece.start for piece in pieces} == {length if 0 < length < frames else frames}
    assert all(0 <= piece.start <= piece.kept < piece.stop <= frames for piece in pieces)


@given(
    st.integers(1, 60),
    st.lists(st.integers(0, 70), min_size=1, max_size=3),
    st.sampled_from(["zero", "utterance_mean"]),
)
def test_put_together_each_bin_is_where_it_was(frames, lengths, baseline):
    x = torch.randn(2, frames, 3, generator=torch.Generator().manual_seed(frames))
    settings = MapSettings(steps=1, baseline=baseline)  # the midpoint rule is exact for squares
    origin = x.mean(1, keepdim=True) if baseline == "utterance_mean" else torch.zeros(())
    found = list(attributions(squares, x, lengths, settings))
    assert len(found) == len(lengths)
    for each in found:
        np.testing.assert_allclose(each, x.square() - origin.square(), rtol=1e-4, atol=1e-5)


def test_scores_are_told_whose_segment_it_is():
    x = torch.ones(3, 10, 2)
    weight = torch.tensor([1.0, 10.0, 100.0])
    (found,) = attributions(lambda points, which: weight[which] * points.sum((1, 2)), x, [4], MapSettings(steps=3))
    np.testing.assert_allclose(found, weight.view(3, 1, 1).expand_as(x))


def test_a_map_is_the_mean_over_durations_of_attributions_without_sign():
    score, x = teacher(), features(3)
    settings = MapSettings(steps=3)
    parts = [integrated_gradients(score, x[:, s : s + 10], steps=3) for s in (0, 10, 20)]
    whole = integrated_gradients(score, x, steps=3)
    expected = (torch.cat(parts, 1).abs() + whole.abs()) / 2
    np.testing.assert_allclose(saliency(score, x, [10, 30], settings), expected, rtol=1e-4, atol=1e-8)
    positive = saliency(score, x, [30], MapSettings(steps=3, sign="positive"))
    np.testing.assert_allclose(positive, whole.clamp(min=0), rtol=1e-5, atol=1e-9)
    assert (positive == 0).any()


def test_smoothing_averages_over_the_frames_that_there_are():
    x = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]])
    got = saliency(squares, x, [4], MapSettings(steps=1, smooth_frames=3))
    assert got.flatten().tolist() == pytest.approx([2.5, 14 / 3, 29 / 3, 12.5])


def test_durations_become_frames_each_once():
    assert segment_lengths((0.5, 1.0, 0.0), 0.01, 200, 1) == [50, 100, 200]
    assert segment_lengths((0.5, 1.0, 0.0), 0.01, 80, 1) == [50, 80]
    assert segment_lengths((0.05,), 0.01, 80, 9) == [9]
    assert segment_lengths((0.05,), 0.01, 7, 9) == [7]


@given(st.integers(2, 50), st.floats(-20, 20))
def test_maps_are_brought_to_zero_to_one_each_by_itself(frames, exponent):
    draw = torch.Generator().manual_seed(frames)
    x = torch.rand(3, frames, 4, generator=draw) ** 6 * 10.0**exponent
    for how in ("minmax", "rank"):
        got = normalised(x, how)
        assert got.shape == x.shape
        for ours, theirs in zip(got, x, strict=True):
            assert (ours.min(), ours.max()) == (0, 1)
            order = theirs.flatten().argsort()
            assert (ours.flatten()[order].diff() >= 0).all()
    assert torch.equal(normalised(x[:1], "rank"), normalised(x, "rank")[:1])
    ranks = normalised(x, "rank")[0].flatten().sort().values
    np.testing.assert_allclose(ranks, np.linspace(0, 1, frames * 4), atol=1e-6)


def test_a_map_that_is_the_same_everywhere_prefers_no_place():
    assert torch.equal(normalised(torch.full((2, 3, 4), 0.7), "minmax"), torch.zeros(2, 3, 4))
    assert torch.equal(normalised(torch.full((2, 3, 4), 0.7), "rank"), torch.full((2, 3, 4), 0.5))


@given(st.lists(st.integers(0, 4), min_size=2, max_size=40))
def test_equal_bins_share_the_mean_of_their_places(values):
    expected = (rankdata(values, method="average") - 1) / (len(values) - 1)
    found = normalised(torch.tensor(values, dtype=torch.float32).view(1, -1, 1), "rank")
    np.testing.assert_allclose(found.flatten(), expected, atol=1e-6)


def test_a_random_map_has_the_values_of_the_map_elsewhere():
    x = torch.rand(3, 20, 5)
    torch.manual_seed(4)
    got = permuted(x)
    for ours, theirs in zip(got, x, strict=True):
        assert torch.equal(ours.flatten().sort().values, theirs.flatten().sort().values)
        assert abs(np.corrcoef(ours.flatten(), theirs.flatten())[0, 1]) < 0.4
    torch.manual_seed(4)
    assert torch.equal(permuted(x), got)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"durations_s": ()}, "durations_s: none given"),
        ({"durations_s": (1.0, -0.5)}, "durations_s: -0.5 given; expected 0 or more"),
        ({"steps": 0}, "integrated.steps: .* 0 steps given"),
        ({"steps": 1, "rule": "trapezoid"}, "expected 2 or more for the trapezoid"),
        ({"smooth_frames": 4}, "smooth_frames: 4 given; expected an odd number"),
    ],
)
def test_senseless_settings_are_named(values, says):
    with pytest.raises(RecipeError, match=says):
        MapSettings(**values)
