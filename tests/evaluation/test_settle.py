"""What goes into model files: thresholds that are what their names say, and no more than the data supports."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from parvox.errors import TrialError
from parvox.evaluation.bootstrap import bootstrap
from parvox.evaluation.calibration import fit_calibration
from parvox.evaluation.rates import smallest_rate
from parvox.evaluation.resampling import interval, speaker_weights
from parvox.evaluation.settle import Judged, SettleSettings, settle

PLAIN = SettleSettings(replicates=0, band_edges_s=(), p_targets=())


def judged(target: np.ndarray, nontarget: np.ndarray, speakers: int = 4000) -> Judged:
    """Target trials of speakers 0, 1, …; non-target trials of as many different pairs as there are."""
    pairs = [(k % speakers, (k + 1 + k // speakers) % speakers) for k in range(len(nontarget))]
    own = np.arange(len(target)) % speakers
    scores = np.concatenate([target, nontarget]).astype(np.float32)
    labels = np.repeat([True, False], [len(target), len(nontarget)])
    enrol, test = (np.concatenate([own, [pair[side] for pair in pairs]]).astype(int) for side in (0, 1))
    seconds = np.full(len(scores), 2.0)
    return Judged(scores, labels, enrol, test, seconds, seconds, "dev trials of a test")


def voices(speakers: int = 30, each: int = 6, noise: float = 0.5, seed: int = 0, length: float = 3.0) -> Judged:
    """All pairs of made-up embeddings; utterances of few seconds are noisier."""
    rng = np.random.default_rng(seed)
    seconds = np.exp(rng.uniform(math.log(0.5), math.log(length), speakers * each))
    speaker = np.repeat(np.arange(speakers), each)
    places = np.random.default_rng(7).standard_normal((speakers, 16))[speaker]
    found = places + noise * rng.standard_normal(places.shape) / np.sqrt(seconds)[:, None]
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    a, b = np.triu_indices(len(found), 1)
    scores = np.einsum("ij,ij->i", found[a], found[b]).astype(np.float32)
    return Judged(scores, speaker[a] == speaker[b], speaker[a], speaker[b], seconds[a], seconds[b], "made voices")


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    targets=st.integers(2, 40),
    nontargets=st.integers(1, 4000),
    digits=st.sampled_from([1, 2, 7]),
)
def test_operating_points_are_what_their_names_say(seed: int, targets: int, nontargets: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    target = np.round(rng.normal(0.3, 0.2, targets), digits).astype(np.float32)
    nontarget = np.round(rng.normal(0, 0.2, nontargets), digits).astype(np.float32)
    found = settle(judged(target, nontarget), PLAIN)
    target, nontarget = target.astype(np.float64), nontarget.astype(np.float64)  # NumPy would round the threshold
    for name, wanted in (("far_1pct", 0.01), ("far_0.1pct", 0.001)):
        assert (name in found.thresholds) == (wanted >= smallest_rate(nontargets)) == (name not in found.unsupported)
    for name, point in found.thresholds.items():
        assert point.threshold == round(point.threshold, 6)
        assert point.false_accept_rate == (nontarget >= point.threshold).mean()
        assert point.false_reject_rate == (target < point.threshold).mean()
        assert (point.target_trials, point.nontarget_trials) == (targets, nontargets)
        assert point.source == "dev trials of a test"
        assert point.interval is None
        if name.startswith("far"):
            wanted = {"far_1pct": 0.01, "far_0.1pct": 0.001}[name]
            assert point.false_accept_rate <= wanted
            below = nontarget[nontarget < point.threshold]
            assert (nontarget >= below.max()).mean() > wanted  # the next lower threshold accepts too many


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), targets=st.integers(2, 50), nontargets=st.integers(2, 50))
def test_the_eer_threshold_balances_the_errors_best(seed: int, targets: int, nontargets: int) -> None:
    rng = np.random.default_rng(seed)
    target = np.round(rng.normal(0.2, 0.2, targets), 3).astype(np.float32)
    nontarget = np.round(rng.normal(0, 0.2, nontargets), 3).astype(np.float32)
    found = settle(judged(target, nontarget), PLAIN).thresholds
    assume("eer" in found)
    every = np.unique(np.concatenate([target, nontarget]))
    gaps = [abs((target < t).mean() - (nontarget >= t).mean()) for t in every]
    point = found["eer"]
    assert abs(point.false_reject_rate - point.false_accept_rate) <= min(gaps) + 1e-12


def test_a_rate_that_so_few_speakers_cannot_show_is_refused_however_many_trials() -> None:
    few = voices(speakers=12, each=14)  # 66 pairs of speakers, 12,936 impostor trials
    found = settle(few, dataclasses.replace(PLAIN, false_accept_rates=(0.05, 0.01)))
    assert set(found.thresholds) == {"eer", "far_5pct"}
    assert found.unsupported["far_1pct"].startswith(
        "Unknown: 12,936 impostor trials of 66 pairs of speakers can speak of no rate below 4.4 %; 300 pairs"
    )
    assert found.thresholds["eer"].smallest_rate == pytest.approx(1 - 0.05 ** (1 / 66), rel=1e-5)


def test_bands_part_the_trials_by_the_shorter_side() -> None:
    trials = voices()
    found = settle(trials, SettleSettings(replicates=100, band_edges_s=(1.0, 2.0, 8.0)))
    assert [(band.from_s, band.to_s) for band in found.bands] == [(0, 1), (1, 2), (2, 8), (8, None)]
    shorter = np.minimum(trials.enrol_s, trials.test_s)
    for band in found.bands[:3]:
        rows = (shorter >= band.from_s) & (shorter < band.to_s)
        scores, target = trials.scores[rows].astype(np.float64), trials.target[rows]
        assert (band.target_trials, band.nontarget_trials) == (target.sum(), (~target).sum())
        point = band.thresholds["eer"]
        assert point.false_accept_rate == (scores[~target] >= point.threshold).mean()
        assert point.false_reject_rate == (scores[target] < point.threshold).mean()
        assert set(band.thresholds) | set(band.unsupported) == set(found.thresholds) | set(found.unsupported)
        assert point.interval is not None
        assert point.interval[0] <= point.interval[1]
        assert point.false_accept_interval is not None
    # Longer recordings are told apart better, so a false-accept rate is had at a lower threshold.
    assert found.bands[0].thresholds["far_1pct"].threshold != found.bands[2].thresholds["far_1pct"].threshold
    empty = found.bands[3]
    assert not empty.thresholds
    assert set(empty.unsupported) == set(found.thresholds) | set(found.unsupported)
    assert "0 target and 0 impostor trials of 0 speakers" in empty.unsupported["eer"]


def test_intervals_are_those_of_the_bootstrap_by_speaker() -> None:
    trials = voices(speakers=10)
    found = settle(trials, SettleSettings(replicates=200, seed=3, band_edges_s=()))
    replicates = bootstrap(trials.scores, trials.target, trials.enrol, trials.test, speaker_weights(10, 200, 3))
    for name, values in (("eer", replicates.eer_threshold), ("cost_0.05", replicates.min_dcf_threshold[0.05])):
        spread, point = interval(values), found.thresholds[name]
        assert spread is not None
        assert point.interval == pytest.approx((spread.low, spread.high), rel=1e-5)


def test_too_few_speakers_have_thresholds_over_all_without_intervals() -> None:
    found = settle(voices(speakers=4), SettleSettings(replicates=100))
    assert found.thresholds["eer"].interval is None
    assert not any(band.thresholds for band in found.bands)
    assert any("of 4 speakers; 20 of each from 5 speakers" in band.unsupported["eer"] for band in found.bands)


def test_the_calibration_is_the_one_that_evaluation_fits() -> None:
    trials = voices()
    found = settle(trials, PLAIN).calibration
    assert found is not None
    sides = np.log(trials.enrol_s), np.log(trials.test_s)
    side = {"log_shorter_s": np.minimum(*sides), "log_longer_s": np.maximum(*sides)}
    fitted = fit_calibration(trials.scores, trials.target, side)
    assert dict(found.weights) == dict(fitted.weights)
    llr = fitted.apply(trials.scores, side)
    row = int(np.argmin(np.abs(llr)))
    evidence = found.evidence(float(trials.scores[row]), trials.enrol_s[row], trials.test_s[row])
    assert evidence.llr == pytest.approx(llr[row], abs=1e-6)
    assert found.limits == pytest.approx((math.log(smallest_rate(30)), -math.log(smallest_rate(435))))
    assert found.ranges["log_longer_s"] == (side["log_longer_s"].min(), side["log_longer_s"].max())
    alone = settle(trials, dataclasses.replace(PLAIN, duration=False)).calibration
    assert alone is not None
    assert set(alone.weights) == {"score"}


def test_scores_that_say_nothing_give_no_calibration_but_the_rest() -> None:
    trials = voices()
    reversed_ = dataclasses.replace(trials, scores=-trials.scores)
    found = settle(reversed_, PLAIN)
    assert found.calibration is None
    assert "no log-likelihood ratios" in found.notes[0]
    assert "eer" in found.thresholds


@pytest.mark.parametrize("edges", [(2.0, 1.0), (0.0,), (1.0, 1.0), (float("inf"),), (-1.0, 2.0)])
def test_band_edges_that_cannot_be(edges: tuple[float, ...]) -> None:
    with pytest.raises(TrialError, match="expected rising numbers of seconds above 0"):
        SettleSettings(band_edges_s=edges)
