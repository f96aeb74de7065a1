"""Error measures against hand-computed cases, direct O(n²) definitions and scikit-learn."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import ndtri
from sklearn.metrics import roc_curve

from parvox.errors import TrialError
from parvox.evaluation.measures import ScoreSet, bayes_threshold, eer, min_dcf

# Few distinct values, so that ties within and across the two kinds are the rule.
TIED = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=12)
SMOOTH = st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=12)
SCORES = TIED | SMOOTH
COSTS = st.tuples(st.floats(0.001, 0.999), st.floats(0.1, 10), st.floats(0.1, 10))


def points(target: list[float], nontarget: list[float]) -> list[tuple[float, float]]:
    """(P_miss, P_fa) for every threshold, counted one trial at a time, thresholds rising."""
    found = []
    for threshold in [*sorted({*target, *nontarget}), np.inf]:
        misses = sum(score < threshold for score in target)
        accepts = sum(score >= threshold for score in nontarget)
        found.append((misses / len(target), accepts / len(nontarget)))
    return found


def direct_eer(target: list[float], nontarget: list[float]) -> float:
    """Where the line through the operating points meets the diagonal."""
    for (miss_0, fa_0), (miss_1, fa_1) in itertools.pairwise(points(target, nontarget)):
        if miss_0 <= fa_0 and miss_1 >= fa_1:
            part = (fa_0 - miss_0) / ((fa_0 - miss_0) + (miss_1 - fa_1))
            return miss_0 + part * (miss_1 - miss_0)
    raise AssertionError("the curve must cross")


def direct_min_dcf(target: list[float], nontarget: list[float], p: float, c_miss: float, c_fa: float) -> float:
    costs = [c_miss * p * miss + c_fa * (1 - p) * fa for miss, fa in points(target, nontarget)]
    return min(costs) / min(c_miss * p, c_fa * (1 - p))


@pytest.mark.parametrize(
    ("target", "nontarget", "expected"),
    [
        ([2.0, 3.0], [0.0, 1.0], 0.0),  # parted
        ([0.0, 1.0], [2.0, 3.0], 1.0),  # the wrong way round
        ([1.0], [1.0], 0.5),  # nothing to go by
        ([1.0, 3.0], [0.0, 2.0], 0.5),  # one of two wrong on each side
        ([1.0, 2.0, 3.0, 4.0], [0.0, 0.5, 0.7, 1.5], 0.25),
        ([1.0, 2.0, 3.0, 4.0], [0.0, 1.0], 1 / 6),  # a tie: (0, 1/2) to (1/4, 0) meets the diagonal at 1/6
        ([0.0, 2.0, 2.0, 2.0], [0.0, 0.0, 1.0, -1.0], 0.25),
    ],
)
def test_eer_by_hand(target: list[float], nontarget: list[float], expected: float) -> None:
    assert eer(target, nontarget) == pytest.approx(expected, abs=1e-15)


def test_min_dcf_by_hand() -> None:
    # Accepting from 2 on: one miss of four, no false accept. p_target 0.01: 0.01 * 0.25 / 0.01.
    assert min_dcf([1.0, 2.0, 3.0, 4.0], [0.0, 1.5], p_target=0.01) == pytest.approx(0.25)
    # p_target 0.9 makes misses dear: accepting from 1 on costs 0.1 * 0.5 / 0.1.
    assert min_dcf([1.0, 2.0, 3.0, 4.0], [0.0, 1.5], p_target=0.9) == pytest.approx(0.5)
    assert min_dcf([0.0], [1.0]) == 1.0  # rejecting all


def test_operating_points_part_the_scores_half_way() -> None:
    scores = ScoreSet([0.8, 0.9], [0.1, 0.2])
    point = scores.eer_point()
    assert (point.threshold, point.miss_rate, point.false_accept_rate) == (pytest.approx(0.5), 0.0, 0.0)
    assert scores.min_dcf_point().threshold == pytest.approx(0.5)
    assert ScoreSet([0.0], [1.0]).min_dcf_point().threshold == np.inf  # reject all
    assert ScoreSet([0.0], [1.0]).min_dcf_point(p_target=0.9).threshold == -np.inf  # accept all


def test_act_dcf_uses_bayes_threshold() -> None:
    scores = ScoreSet([5.0, 4.0], [-1.0, 4.7])
    assert bayes_threshold(0.01) == pytest.approx(np.log(99))  # 4.595
    assert scores.act_dcf(0.01) == pytest.approx(0.5 + 99 * 0.5)
    assert scores.act_dcf(0.01, threshold=4.8) == pytest.approx(0.5)
    assert scores.act_dcf(0.01, c_fa=2.0, threshold=4.0) == pytest.approx(198 * 0.5)


@given(SCORES, SCORES)
def test_eer_agrees_with_its_definition(target: list[float], nontarget: list[float]) -> None:
    assert eer(target, nontarget) == pytest.approx(direct_eer(target, nontarget), abs=1e-12)


@given(SCORES, SCORES, COSTS)
def test_min_dcf_agrees_with_its_definition(
    target: list[float], nontarget: list[float], costs: tuple[float, float, float]
) -> None:
    expected = direct_min_dcf(target, nontarget, *costs)
    scores = ScoreSet(target, nontarget)
    assert scores.min_dcf(*costs) == pytest.approx(expected, rel=1e-9)
    point = scores.min_dcf_point(*costs)
    assert scores.act_dcf(*costs, threshold=point.threshold) == pytest.approx(expected, rel=1e-9)


@given(SCORES, SCORES)
def test_operating_points_are_real(target: list[float], nontarget: list[float]) -> None:
    scores = ScoreSet(target, nontarget)
    point = scores.eer_point()
    assert scores.at(point.threshold) == point
    gaps = [abs(miss - fa) for miss, fa in points(target, nontarget)]
    assert abs(point.miss_rate - point.false_accept_rate) == pytest.approx(min(gaps), abs=1e-12)


@given(SCORES, SCORES, st.integers(-3, 3), st.sampled_from([0.25, 2.0, 8.0]))
def test_measures_do_not_see_shift_or_scale(
    target: list[float], nontarget: list[float], shift: int, scale: float
) -> None:
    target, nontarget = np.round(target, 2), np.round(nontarget, 2)
    moved = ScoreSet(target * scale + shift, nontarget * scale + shift)
    # The same rounding on both sides, so that equal scores stay equal and distinct ones distinct.
    assert moved.eer() == pytest.approx(eer(target, nontarget), abs=1e-12)
    assert moved.min_dcf() == pytest.approx(min_dcf(target, nontarget), abs=1e-12)


@given(TIED, TIED)
def test_measures_do_not_see_monotone_maps(target: list[float], nontarget: list[float]) -> None:
    mapped = ScoreSet(np.exp(target), np.exp(nontarget))
    assert mapped.eer() == eer(target, nontarget)
    assert mapped.min_dcf(0.05) == min_dcf(target, nontarget, 0.05)


@given(SCORES, SCORES, COSTS)
def test_swapping_kinds_and_signs_is_symmetric(
    target: list[float], nontarget: list[float], costs: tuple[float, float, float]
) -> None:
    swapped = ScoreSet(-np.array(nontarget), -np.array(target))
    p, c_miss, c_fa = costs
    assert swapped.eer() == pytest.approx(eer(target, nontarget), abs=1e-12)
    # Accepting is "at or above", so a swap moves ties to the other side; minDCF takes a minimum over both sides.
    assert swapped.min_dcf(1 - p, c_fa, c_miss) == pytest.approx(min_dcf(target, nontarget, *costs), rel=1e-9)


@given(TIED, TIED, st.integers(2, 4))
def test_repeating_trials_changes_nothing(target: list[float], nontarget: list[float], times: int) -> None:
    assert eer(target * times, nontarget) == pytest.approx(eer(target, nontarget), abs=1e-12)
    assert min_dcf(target, nontarget * times) == pytest.approx(min_dcf(target, nontarget), abs=1e-12)


@settings(max_examples=30)
@given(arrays(np.float32, st.integers(2, 200), elements=st.floats(-1, 1, width=16)), st.randoms())
def test_sklearn_agrees(scores: np.ndarray, random: object) -> None:
    labels = np.array([random.random() < 0.4 for _ in scores])  # type: ignore[attr-defined]
    labels[0], labels[-1] = True, False
    fa, hit, _ = roc_curve(labels, scores, drop_intermediate=False)
    ours = ScoreSet.from_labels(scores, labels)
    assert ours.min_dcf(0.05) == pytest.approx(np.min(0.05 * (1 - hit) + 0.95 * fa) / 0.05, rel=1e-9)
    gap = (1 - hit) - fa  # falls from 1 to -1 as the threshold falls
    step = int(np.flatnonzero(gap <= 0)[0])
    part = gap[step - 1] / (gap[step - 1] - gap[step])
    assert ours.eer() == pytest.approx(fa[step - 1] + part * (fa[step] - fa[step - 1]), abs=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sklearn_agrees_on_many_scores(dtype: type) -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(300_000) < 0.3
    scores = np.round(rng.standard_normal(300_000) + 2.5 * labels, 4).astype(dtype)  # many ties
    ours = ScoreSet.from_labels(scores, labels)
    fa, hit, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert ours.eer() == pytest.approx(np.interp(0.0, fa - (1 - hit), fa), abs=1e-9)
    for p in (0.01, 0.05, 0.5, 0.95):
        reference = np.min(p * (1 - hit) + (1 - p) * fa) / min(p, 1 - p)
        assert ours.min_dcf(p) == pytest.approx(reference, rel=1e-9)
    more_targets = ScoreSet.from_labels(-scores, ~labels)  # the other walk
    assert more_targets.eer() == pytest.approx(ours.eer(), abs=1e-12)
    assert more_targets.min_dcf(0.95) == pytest.approx(ours.min_dcf(0.05), rel=1e-9)


@given(SCORES, SCORES)
def test_false_accept_counts_are_the_whole_curve(target: list[float], nontarget: list[float]) -> None:
    counts = ScoreSet(target, nontarget).false_accept_counts()
    assert counts.tolist() == [sum(score >= threshold for score in nontarget) for threshold in sorted(target)]


def test_det_curve_is_exact_and_complete() -> None:
    rng = np.random.default_rng(1)
    target, nontarget = rng.normal(2, 1, 5000).astype(np.float32), rng.normal(0, 1, 20_000).astype(np.float32)
    scores = ScoreSet(target, nontarget)
    curve = scores.det_curve(400)
    assert len(curve.thresholds) <= 400 + 65
    assert (curve.miss_rates[0], curve.false_accept_rates[0]) == (0.0, 1.0)
    assert (curve.miss_rates[-1], curve.false_accept_rates[-1]) == (1.0, 0.0)
    for index in range(0, len(curve.thresholds), 7):
        assert curve.miss_rates[index] == np.mean(target < curve.thresholds[index])
        assert curve.false_accept_rates[index] == np.mean(nontarget >= curve.thresholds[index])
    inside = (curve.miss_rates > 0.001) & (curve.miss_rates < 0.999)
    assert np.diff(ndtri(curve.miss_rates[inside])).max() < 0.1  # no gap in the plot
    assert curve.miss_rates[1] <= 1 / 5000  # single trials at the end


def test_float32_scores_meet_float64_thresholds() -> None:
    tenth = np.float32(0.1)  # 0.100000001490116…, above the threshold 0.1
    scores = ScoreSet(np.array([tenth]), np.array([tenth]))
    assert scores.errors(0.1) == (0, 1)
    assert scores.errors(float(tenth)) == (0, 1)
    assert scores.errors(float(np.nextafter(tenth, np.float32(1)))) == (1, 0)
    assert scores.errors(0.1000000015) == (1, 0)


@pytest.mark.parametrize(
    ("target", "nontarget", "words"),
    [
        ([], [1.0], "no target trials"),
        ([1.0], [], "no non-target trials"),
        ([1.0, np.nan], [0.0], "1 of 2 target scores are NaN or infinite"),
        ([1.0], [np.inf, 0.0, -np.inf], "2 of 3 non-target scores are NaN or infinite"),
        ([[1.0]], [0.0], "expected a row of numbers"),
        (["a"], [0.0], "expected a row of numbers"),
    ],
)
def test_unsound_scores_are_named(target: list, nontarget: list, words: str) -> None:
    with pytest.raises(TrialError, match=words):
        eer(target, nontarget)


def test_unsound_settings_are_named() -> None:
    with pytest.raises(TrialError, match=r"p_target 1\.5"):
        min_dcf([1.0], [0.0], p_target=1.5)
    with pytest.raises(TrialError, match="c_fa 0"):
        min_dcf([1.0], [0.0], c_fa=0)
    with pytest.raises(TrialError, match="one label a score"):
        ScoreSet.from_labels([1.0, 2.0], [True])


def test_inputs_are_left_alone() -> None:
    target, nontarget = np.array([3.0, 1.0, 2.0]), np.array([0.5, 0.1])
    eer(target, nontarget)
    assert target.tolist() == [3.0, 1.0, 2.0]
    assert nontarget.tolist() == [0.5, 0.1]


def test_memory_stays_within_three_times_the_scores() -> None:
    rng = np.random.default_rng(2)
    labels = np.zeros(4_000_000, bool)
    labels[::2] = True  # the worst split
    scores = rng.random(4_000_000, dtype=np.float32)
    tracemalloc.start()
    ours = ScoreSet.from_labels(scores, labels)
    ours.eer(), ours.min_dcf(0.01), ours.min_dcf(0.05)
    counts = ours.false_accept_counts()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(counts) == 2_000_000
    assert scores.nbytes + peak <= 3 * scores.nbytes
