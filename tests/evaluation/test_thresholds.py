"""Rates at thresholds and thresholds for rates, against replicates made by repeating trials."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta
from test_bootstrap import repeated, trials

from parvox.errors import TrialError
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.rates import distinct_pairs, error_rates, smallest_rate, wins
from parvox.evaluation.resampling import interval, speaker_weights
from parvox.evaluation.thresholds import (
    _resampled_thresholds,
    rate_name,
    threshold_at_cost,
    threshold_at_false_accept_rate,
)


@given(
    st.lists(st.integers(0, 6).map(float), min_size=1, max_size=30),
    st.floats(0.01, 0.99),
)
def test_no_lower_threshold_keeps_the_rate(nontarget: list[float], rate: float) -> None:
    scores = ScoreSet([0.0], nontarget)
    threshold = scores.threshold_at_false_accept_rate(rate)
    assert sum(score >= threshold for score in nontarget) <= rate * len(nontarget) * (1 + 1e-9)
    lower = max(score for score in nontarget if score < threshold)
    assert sum(score >= lower for score in nontarget) > rate * len(nontarget) * (1 - 1e-9)


def test_threshold_by_hand() -> None:
    scores = ScoreSet([0.0], np.arange(100.0))
    assert scores.threshold_at_false_accept_rate(0.05) == 94.5  # 95 to 99 pass
    assert scores.threshold_at_false_accept_rate(0.0599) == 94.5
    assert scores.threshold_at_false_accept_rate(0.001) == np.nextafter(99.0, 100)
    assert ScoreSet([0.0], [1.0, 1.0, 2.0]).threshold_at_false_accept_rate(0.7) == 1.5  # ties go together


def test_rates_count_trials_speakers_and_pairs() -> None:
    scores = np.array([0.9, 0.2, 0.8, 0.1, 0.7, 0.3])
    target = np.array([True, True, True, False, False, False])
    found = error_rates(scores, target, [0, 0, 1, 0, 1, 2], [0, 0, 1, 1, 0, 0], 0.5)
    assert (found.misses, found.target_trials, found.target_speakers) == (1, 3, 2)
    assert (found.false_accepts, found.nontarget_trials, found.speaker_pairs) == (1, 3, 2)  # 0-1 stands there twice
    assert found.miss_rate is not None
    assert found.miss_rate.value == pytest.approx(1 / 3)
    assert found.miss_rate.interval is None
    only_targets = error_rates(scores[:3], target[:3], [0, 0, 1], [0, 0, 1], 0.5)
    assert only_targets.false_accept_rate is None


@settings(max_examples=25, deadline=None)
@given(st.integers(5, 9), st.integers(2, 4), st.integers(0, 1000), st.floats(-1, 3))
def test_intervals_are_those_of_repeated_trials(speakers: int, utterances: int, seed: int, threshold: float) -> None:
    data = trials(speakers, utterances, seed, digits=1)
    weights = speaker_weights(speakers, 60, seed)
    found = error_rates(*data, threshold, weights)
    direct = [repeated(*data, column) for column in weights.T]
    for estimate, rate in ((found.miss_rate, "miss_rate"), (found.false_accept_rate, "false_accept_rate")):
        assert estimate is not None
        if not 0 < estimate.value < 1:
            continue
        values = [np.nan if each is None else getattr(each.at(threshold), rate) for each in direct]
        expected = interval(np.array(values))
        if expected is None or np.isnan(values).any():
            continue  # one kind of trial alone may be missing from a replicate; `repeated` wants both
        assert estimate.interval is not None
        assert (estimate.interval.low, estimate.interval.high) == pytest.approx((expected.low, expected.high))


def test_no_error_is_bounded_by_the_rule_of_three() -> None:
    data = trials(30, 3, 0)
    weights = speaker_weights(30, 100)
    all_pass, none_pass = error_rates(*data, -100.0, weights), error_rates(*data, 100.0, weights)
    assert all_pass.miss_rate is not None
    assert all_pass.miss_rate.interval is not None
    assert all_pass.miss_rate.interval.high == pytest.approx(float(beta.ppf(0.95, 1, 30)))  # Clopper-Pearson, 0 of 30
    assert none_pass.false_accept_rate is not None
    assert none_pass.false_accept_rate.interval is not None
    assert none_pass.false_accept_rate.interval.high == pytest.approx(float(beta.ppf(0.95, 1, 30 * 29 // 2)))
    assert none_pass.miss_rate is not None
    assert none_pass.miss_rate.interval is not None
    assert (none_pass.miss_rate.value, none_pass.miss_rate.interval.high) == (1.0, 1.0)
    assert smallest_rate(1000) == pytest.approx(3 / 1000, rel=0.01)
    assert smallest_rate(0) == 1.0


def test_many_false_accepts_are_weighed_the_same_way() -> None:
    data = trials(40, 12, 2)
    weights = speaker_weights(40, 50, 1)
    found = error_rates(*data, -1.0, weights)
    assert found.false_accepts > 40_960
    values = [
        direct.at(-1.0).false_accept_rate for direct in (repeated(*data, column) for column in weights.T) if direct
    ]
    expected = interval(np.array(values))
    assert expected is not None
    assert found.false_accept_rate is not None
    assert found.false_accept_rate.interval is not None
    assert found.false_accept_rate.interval.low == pytest.approx(expected.low)


def test_thresholds_of_replicates_keep_the_rate() -> None:
    scores, target, enrol, test = trials(25, 5, 4)
    weights = speaker_weights(25, 70, 3)
    for rate in (0.3, 0.01):
        found = _resampled_thresholds(scores[~target], enrol[~target], test[~target], rate, weights)
        for column in range(0, 70, 7):
            direct = repeated(scores, target, enrol, test, weights[:, column])
            assert direct is not None
            assert direct.at(float(np.nextafter(found[column], np.inf))).false_accept_rate <= rate
            assert direct.at(found[column]).false_accept_rate > rate


def test_a_rate_the_data_can_support() -> None:
    data = trials(60, 5, 7, shift=4.0)
    weights = speaker_weights(60, 200)
    found = threshold_at_false_accept_rate(*data, 0.01, weights)
    assert found.name == "far_1pct"
    assert found.rates is not None
    assert found.rates.false_accept_rate is not None
    assert found.rates.false_accept_rate.value <= 0.01
    assert found.rates.false_accept_rate.interval is not None
    assert found.rates.false_accept_rate.interval.high > 0.01  # other speakers may do worse
    assert found.interval is not None
    assert found.threshold is not None
    assert found.interval.low < found.threshold < found.interval.high
    assert found.to_dict()["rates"]["speaker_pairs"] == 60 * 59 // 2


def test_a_rate_beyond_the_data_is_said_to_be_unknown() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(3, 1, 100), rng.normal(0, 1, 500)])
    target = np.arange(600) < 100
    enrol = np.concatenate([np.arange(100), rng.integers(0, 100, 500)])
    test = np.concatenate([np.arange(100), rng.integers(100, 200, 500)])
    found = threshold_at_false_accept_rate(scores, target, enrol, test, 1e-4)
    assert found.threshold is None
    assert found.rates is None
    assert "500 impostor trials" in found.advice
    assert "30,000 pairs are needed for 0.01 %" in found.advice
    assert found.smallest_rate > 0.005
    assert threshold_at_false_accept_rate(scores, target, enrol, test, 0.02).threshold is not None


def test_many_trials_of_few_speakers_do_not_make_up_for_more() -> None:
    scores, target, enrol, test = trials(4, 40, 1)
    assert np.count_nonzero(~target) > 9000
    found = threshold_at_false_accept_rate(scores, target, enrol, test, 0.01)
    assert found.threshold is None
    assert "of 6 pairs of speakers" in found.advice


def test_cost_chooses_the_least_dcf() -> None:
    data = trials(40, 5, 9, shift=3.0)
    weights = speaker_weights(40, 200)
    found = threshold_at_cost(*data, 0.05, weights=weights)
    scores = ScoreSet.from_labels(data[0], data[1])
    assert found.threshold is not None
    assert scores.act_dcf(0.05, threshold=found.threshold) == pytest.approx(scores.min_dcf(0.05))
    assert found.interval is not None
    assert found.interval.low <= found.threshold <= found.interval.high
    assert "5 % of the trials" in found.purpose
    strict = threshold_at_cost(*data, 0.05, c_fa=50.0)
    assert strict.threshold is None or strict.threshold > found.threshold
    useless = threshold_at_cost([0.0, 1.0], [True, False], [0, 0], [0, 1], 0.01)
    assert useless.threshold is None
    assert "reject everyone" in useless.advice


def test_names_and_problems() -> None:
    assert [rate_name(rate) for rate in (0.01, 0.001, 0.05)] == ["far_1pct", "far_0.1pct", "far_5pct"]
    with pytest.raises(TrialError, match=r"false-accept rate 1\.5"):
        threshold_at_false_accept_rate(*trials(5, 3, 0), 1.5)
    assert distinct_pairs(np.array([0, 1, 2]), np.array([1, 0, 3])) == 2
    assert distinct_pairs(np.array([], int), np.array([], int)) == 0


def test_wins_count_what_one_system_alone_gets_right() -> None:
    target = np.array([True, True, False, False])
    first, second = np.array([0.9, 0.1, 0.1, 0.9]), np.array([5.0, 7.0, 7.0, 4.0])
    assert wins(first, second, target, (0.5, 6.0)) == (2, 2)
    assert wins(first, second, target, (0.05, 4.5)) == (0, 1)
