"""Calibration against known likelihood ratios, direct definitions and scikit-learn."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from test_bootstrap import repeated, trials

from parvox.errors import TrialError
from parvox.evaluation.calibration import (
    Calibration,
    cllr,
    cllr_estimate,
    fit_calibration,
    min_cllr,
    pav,
    reliability,
)
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.resampling import interval, speaker_weights

TIED = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=15)


def gaussian(count: int, seed: int, separation: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose log-likelihood ratio is separation * (score - separation / 2)."""
    rng = np.random.default_rng(seed)
    target = rng.random(count) < 0.3
    return rng.standard_normal(count) + separation * target, target


def test_cllr_by_hand() -> None:
    assert cllr([0.0], [0.0]) == pytest.approx(1.0)  # knowing nothing costs one bit
    assert cllr([math.log(3)], [-math.log(3)]) == pytest.approx(math.log2(4 / 3))
    assert cllr([1000.0], [-1000.0]) == 0.0
    assert cllr([-1000.0], [-1000.0]) == pytest.approx(500 / math.log(2))  # sure and wrong


@given(TIED, TIED)
def test_min_cllr_is_sklearns_isotonic_regression(target: list[float], nontarget: list[float]) -> None:
    scores, labels = np.array(target + nontarget), np.array([1.0] * len(target) + [0.0] * len(nontarget))
    posterior = IsotonicRegression(y_min=0, y_max=1).fit(scores, labels).predict(scores)
    odds = len(target) / len(nontarget)
    with np.errstate(divide="ignore"):
        ratio = posterior / (1 - posterior) / odds
        cost = (np.mean(np.log2(1 + 1 / ratio[labels == 1])) + np.mean(np.log2(1 + ratio[labels == 0]))) / 2
    assert min_cllr(target, nontarget) == pytest.approx(cost, abs=1e-9)


@given(TIED, TIED)
def test_min_cllr_is_least_and_does_not_see_monotone_maps(target: list[float], nontarget: list[float]) -> None:
    least = min_cllr(target, nontarget)
    assert least <= min(1.0, cllr(target, nontarget)) + 1e-9
    assert min_cllr(np.exp(target), np.exp(nontarget)) == pytest.approx(least, abs=1e-12)


@given(TIED, TIED)
def test_pav_rises_and_counts(target: list[float], nontarget: list[float]) -> None:
    values, targets, nontargets, llr = pav(target, nontarget)
    assert values.tolist() == sorted({*target, *nontarget})
    assert targets.tolist() == [target.count(value) for value in values]
    assert nontargets.tolist() == [nontarget.count(value) for value in values]
    assert (llr[1:] >= llr[:-1]).all()


def test_the_true_map_is_found() -> None:
    scores, target = gaussian(200_000, 0)
    found = fit_calibration(scores, target)
    assert found.weights["score"] == pytest.approx(3.0, rel=0.03)
    assert found.offset == pytest.approx(-4.5, rel=0.03)
    true = 3.0 * (scores - 1.5)
    llr = found.apply(scores)
    assert cllr(llr[target], llr[~target]) == pytest.approx(cllr(true[target], true[~target]), abs=1e-3)


@pytest.mark.parametrize("p_target", [0.01, 0.5, 0.9])
def test_the_prior_of_the_trials_does_not_matter(p_target: float) -> None:
    scores, target = gaussian(200_000, 1)
    few = target & (np.arange(len(target)) % 10 > 0)  # a tenth of the targets is left
    one = fit_calibration(scores, target, p_target=p_target)
    other = fit_calibration(scores[~few], target[~few], p_target=p_target)
    assert other.apply(np.array([2.0]))[0] == pytest.approx(one.apply(np.array([2.0]))[0], abs=0.15)


def test_it_holds_on_other_trials() -> None:
    scores, target = gaussian(20_000, 2)
    found = fit_calibration(0.1 * scores + 0.3, target)  # cosines are squeezed and shifted
    fresh, labels = gaussian(20_000, 3)
    llr = found.apply(0.1 * fresh + 0.3)
    assert cllr(llr[labels], llr[~labels]) < 1.03 * min_cllr(fresh[labels], fresh[~labels])
    bayes = ScoreSet.from_labels(llr, labels)
    assert bayes.act_dcf(0.05) < 1.1 * bayes.min_dcf(0.05)
    assert ScoreSet.from_labels(0.1 * fresh + 0.3, labels).act_dcf(0.05) == pytest.approx(1.0)  # as it was


def test_side_information_helps_where_it_tells_something() -> None:
    rng = np.random.default_rng(4)
    target = rng.random(40_000) < 0.5
    log_duration = rng.uniform(-1, 2, 40_000)
    scores = rng.standard_normal(40_000) + 3 * target - 1.5 * log_duration  # short ones score higher
    half = np.arange(40_000) < 20_000
    plain = fit_calibration(scores[half], target[half])
    aware = fit_calibration(
        scores[half], target[half], {"log_duration": log_duration[half], "constant": np.ones(20_000)}
    )
    assert "constant" not in aware.weights
    assert aware.weights["log_duration"] == pytest.approx(4.5, rel=0.1)
    costs = [
        cllr(llr[target[~half]], llr[~target[~half]])
        for llr in (plain.apply(scores[~half]), aware.apply(scores[~half], {"log_duration": log_duration[~half]}))
    ]
    assert costs[1] < 0.7 * costs[0]
    with pytest.raises(TrialError, match="calibration needs log_duration of every trial"):
        aware.apply(scores)


def test_parted_scores_do_not_run_away() -> None:
    found = fit_calibration([0.1, 0.2, 0.8, 0.9], [False, False, True, True])
    assert np.isfinite(found.apply(np.array([0.0, 1.0]))).all()
    assert found.weights["score"] < 100


def test_it_survives_json() -> None:
    found = fit_calibration(*gaussian(500, 5), fitted_on="dev")
    assert Calibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@settings(max_examples=15, deadline=None)
@given(st.integers(5, 9), st.integers(0, 100))
def test_cllr_intervals_are_those_of_repeated_trials(speakers: int, seed: int) -> None:
    data = trials(speakers, 3, seed)
    weights = speaker_weights(speakers, 60, seed)
    found = cllr_estimate(*data, weights)
    direct = [repeated(*data, column) for column in weights.T]
    values = np.array([np.nan if each is None else cllr(each.target, each.nontarget) for each in direct])
    expected = interval(values)
    if expected is None or np.isnan(values).any():
        return
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.low, expected.high), rel=1e-4)


def test_reliability_lies_on_the_line_for_true_ratios() -> None:
    scores, target = gaussian(300_000, 6)
    ids = np.arange(len(scores)) % 50
    points = reliability(3 * (scores - 1.5), target, ids, np.where(target, ids, (ids + 1) % 50))
    assert len(points) == 12
    for point in points:
        if min(point.targets, point.nontargets) > 300:
            assert point.observed == pytest.approx(point.claimed, abs=0.3)
    doubled = reliability(6 * (scores - 1.5), target, ids, ids)
    assert doubled[-1].claimed > 1.5 * doubled[-1].observed  # claims twice the evidence there is


def test_reliability_intervals_hold_the_point() -> None:
    scores, target, enrol, test = trials(30, 5, 8, spread=0.2, shift=2.0)
    points = reliability(2 * (scores - 1), target, enrol, test, speaker_weights(30, 200))
    known = [point for point in points if point.interval is not None]
    assert len(known) >= 4
    for point in known:
        assert point.interval is not None
        assert point.interval.low <= point.observed <= point.interval.high


def test_problems_are_named() -> None:
    scores, target = gaussian(100, 7)
    with pytest.raises(TrialError, match="higher scores do not speak for the same speaker"):
        fit_calibration(-scores, target)
    with pytest.raises(TrialError, match="no target trials"):
        fit_calibration(scores, np.zeros(100, bool))
    with pytest.raises(TrialError, match=r"1 of 100 values of noise are NaN"):
        fit_calibration(scores, target, {"noise": np.where(np.arange(100) == 3, np.nan, 1.0)})
    with pytest.raises(TrialError, match=r"prior of 1\.5"):
        fit_calibration(scores, target, p_target=1.5)
