"""Speaker-level bootstrap against replicates made by repeating trials, and against repeated experiments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parvox.errors import TrialError
from parvox.evaluation import bootstrap as module
from parvox.evaluation.bootstrap import bootstrap
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.resampling import interval, speaker_weights


def trials(
    speakers: int, utterances: int, seed: int, spread: float = 1.0, digits: int | None = None, shift: float = 2.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of utterances; a speaker's own effect lies on all of its trials."""
    rng = np.random.default_rng(seed)
    speaker = np.repeat(np.arange(speakers), utterances)
    first, second = np.triu_indices(len(speaker), 1)
    enrol, test = speaker[first], speaker[second]
    target = enrol == test
    effect = spread * rng.standard_normal(speakers)
    scores = rng.standard_normal(len(target)) + np.where(
        target, shift + effect[enrol], (effect[enrol] + effect[test]) / 2
    )
    if digits is not None:
        scores = np.round(scores, digits)
    return scores, target, enrol, test


def repeated(
    scores: np.ndarray, target: np.ndarray, enrol: np.ndarray, test: np.ndarray, weight: np.ndarray
) -> ScoreSet | None:
    """The trials of a replicate, each as often as it counts."""
    count = np.where(enrol == test, weight[enrol], weight[enrol] * weight[test]).astype(int)
    kept, labels = np.repeat(scores, count), np.repeat(target, count)
    return ScoreSet.from_labels(kept, labels) if labels.any() and not labels.all() else None


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9), st.integers(2, 4), st.integers(0, 1000), st.sampled_from([0, 1, None]), st.floats(-2, 5))
def test_replicates_are_repeated_trials(speakers: int, utterances: int, seed: int, digits: Any, shift: float) -> None:
    data = trials(speakers, utterances, seed, digits=digits, shift=shift)
    weights = speaker_weights(speakers, 20, seed)
    rates = np.array([0.05, 0.2, 0.45])
    found = bootstrap(*data, weights, p_targets=(0.01, 0.5, 0.9), c_fa=2.0, false_accept_rates=rates)
    assert found.miss_rates is not None
    for column in range(20):
        direct = repeated(*data, weights[:, column])
        if direct is None:
            assert np.isnan(found.eer[column])
            assert np.isnan(found.min_dcf[0.01][column])
            continue
        assert found.eer[column] == pytest.approx(direct.eer(), abs=1e-9)
        nearest, point = direct.eer_point(), direct.at(found.eer_threshold[column])
        gaps = [abs(each.miss_rate - each.false_accept_rate) for each in (nearest, point)]
        assert gaps[1] >= gaps[0] - 1e-9
        assert found.eer_threshold[column] in data[0][data[1]]  # thresholds are looked for at targets
        for p in (0.01, 0.5, 0.9):
            least = direct.min_dcf(p, c_fa=2.0)
            assert found.min_dcf[p][column] == pytest.approx(least, rel=1e-9)
            at = found.min_dcf_threshold[p][column]
            assert direct.act_dcf(p, c_fa=2.0, threshold=at) == pytest.approx(least, rel=1e-9)
        for rate, miss in zip(rates, found.miss_rates[column], strict=True):
            curve = direct.det_curve(2000)
            least = curve.miss_rates[np.flatnonzero(curve.false_accept_rates > rate + 1e-9)[-1]]
            most = curve.miss_rates[np.flatnonzero(curve.false_accept_rates < rate - 1e-9)[0]]
            assert least - 1e-9 <= miss <= most + 1e-9


def test_low_scores_are_left_out_only_where_they_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    data = trials(30, 6, seed=3, shift=4.0)
    weights = speaker_weights(30, 200, 1)
    reaches = []
    original = module._Curves.__init__

    def spy(self: Any, given: Any, reach: float) -> None:
        original(self, given, reach)
        reaches.append((reach, len(self.first)))

    monkeypatch.setattr(module._Curves, "__init__", spy)
    found = bootstrap(*data, weights, p_targets=(0.01,))
    assert reaches[0][0] < 0.5
    assert reaches[0][1] < 0.6 * np.count_nonzero(~data[1])
    assert len(reaches) == 1
    for column in range(0, 200, 10):
        direct = repeated(*data, weights[:, column])
        assert direct is not None
        assert found.eer[column] == pytest.approx(direct.eer(), abs=1e-9)
        assert found.min_dcf[0.01][column] == pytest.approx(direct.min_dcf(0.01), rel=1e-9)
    # Dear misses move the best threshold down among the trials left out at first: they are looked at after all.
    reaches.clear()
    low = bootstrap(*data, weights, p_targets=(0.9999,))
    assert reaches[-1][0] == 1.0
    for column in range(0, 200, 10):
        direct = repeated(*data, weights[:, column])
        assert direct is not None
        assert low.min_dcf[0.9999][column] == pytest.approx(direct.min_dcf(0.9999), rel=1e-9)


def test_many_targets_are_thinned_harmlessly(monkeypatch: pytest.MonkeyPatch) -> None:
    data = trials(12, 12, seed=5)
    weights = speaker_weights(12, 50, 1)
    exact = bootstrap(*data, weights)
    monkeypatch.setattr(module, "_GRID", 256)
    thinned = bootstrap(*data, weights)
    assert np.abs(thinned.eer - exact.eer).max() < 4 / 256
    assert (thinned.min_dcf[0.05] >= exact.min_dcf[0.05] - 1e-12).all()
    assert (thinned.min_dcf[0.05] - exact.min_dcf[0.05]).max() < 4 / 256


def test_sparse_pair_counts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = trials(10, 4, seed=6)
    weights = speaker_weights(10, 30, 1)
    dense = bootstrap(*data, weights)
    monkeypatch.setattr("parvox.evaluation.resampling._DENSE_SPEAKERS", 2)
    assert bootstrap(*data, weights).eer == pytest.approx(dense.eer, abs=1e-12)


def test_a_speaker_against_himself_counts_once_a_draw() -> None:
    scores, target, enrol, test = trials(8, 4, seed=11)
    wrong_text = np.flatnonzero(target)[::2]  # of the same speaker, yet to be rejected
    scores[wrong_text] -= 2
    target[wrong_text] = False
    weights = speaker_weights(8, 40, 2)
    found = bootstrap(scores, target, enrol, test, weights)
    for column in range(40):
        direct = repeated(scores, target, enrol, test, weights[:, column])
        assert direct is not None
        assert found.eer[column] == pytest.approx(direct.eer(), abs=1e-9)


def test_weights_are_draws_of_speakers() -> None:
    weights = speaker_weights(50, 400, 7)
    assert weights.shape == (50, 400)
    assert (weights.sum(axis=0) == 50).all()
    assert weights.mean(axis=1) == pytest.approx(1.0, abs=0.2)
    assert weights.var() == pytest.approx(1 - 1 / 50, abs=0.05)  # multinomial
    assert (weights == speaker_weights(50, 400, 7)).all()
    assert (weights != speaker_weights(50, 400, 8)).any()
    with pytest.raises(TrialError, match="0 bootstrap replicates"):
        speaker_weights(50, 0)


def test_interval_is_the_percentiles() -> None:
    values = np.arange(1001.0)
    found = interval(values, 0.9)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((50.0, 950.0))
    values[:200] = np.nan
    assert interval(values) is None


def test_equal_systems_never_differ() -> None:
    scores, target, enrol, test = trials(20, 4, seed=8)
    weights = speaker_weights(20, 100, 1)
    one = bootstrap(scores, target, enrol, test, weights)
    other = bootstrap(2 * scores + 1, target, enrol, test, weights)
    assert one.eer == pytest.approx(other.eer, abs=1e-12)


def test_unsound_scores_are_named() -> None:
    scores, target, enrol, test = trials(5, 3, seed=9)
    weights = speaker_weights(5, 10)
    scores[2] = np.nan
    with pytest.raises(TrialError, match="NaN"):
        bootstrap(scores, target, enrol, test, weights)
    with pytest.raises(TrialError, match="no non-target"):
        bootstrap(scores[target], target[target], enrol[target], test[target], weights)


@pytest.mark.slow
def test_intervals_hold_what_they_promise() -> None:
    """Of 95 % intervals for the EER at a fixed population, about 95 % must hold it; trial resampling fails."""
    truth = np.mean([ScoreSet.from_labels(*trials(150, 8, seed)[:2]).eer() for seed in range(1000, 1015)])
    weights = speaker_weights(40, 200, 0)
    held, held_by_trials, experiments = 0, 0, 80
    for seed in range(experiments):
        scores, target, enrol, test = trials(40, 8, seed)
        found = interval(bootstrap(scores, target, enrol, test, weights).eer)
        assert found is not None
        held += found.low <= truth <= found.high
        rng = np.random.default_rng(seed)
        draws = []
        for _ in range(50):
            rows = rng.integers(len(scores), size=len(scores))
            draws.append(ScoreSet.from_labels(scores[rows], target[rows]).eer())
        low, high = np.quantile(draws, [0.025, 0.975])
        held_by_trials += low <= truth <= high
    assert 0.88 <= held / experiments <= 0.995
    assert held_by_trials / experiments < 0.8
