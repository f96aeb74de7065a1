"""Error rates at a given threshold, with intervals that say what the data can know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parvox.evaluation.estimate import Estimate
from parvox.evaluation.measures import check_finite
from parvox.evaluation.resampling import Interval, PairSides, Weights, interval, pad, pair_totals

_TRIALS = 4096  # weighed together


@dataclass(frozen=True)
class ErrorRates:
    """What happens at one threshold.

    Attributes:
        threshold: Scores at or above it are accepted.
        misses: Target trials rejected.
        target_trials: How many there are.
        target_speakers: By how many speakers.
        false_accepts: Non-target trials accepted.
        nontarget_trials: How many there are.
        speaker_pairs: Of how many different pairs of speakers.
        miss_rate: None without target trials.
        false_accept_rate: None without non-target trials.
    """

    threshold: float
    misses: int
    target_trials: int
    target_speakers: int
    false_accepts: int
    nontarget_trials: int
    speaker_pairs: int
    miss_rate: Estimate | None
    false_accept_rate: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "threshold": self.threshold,
            "misses": self.misses,
            "target_trials": self.target_trials,
            "target_speakers": self.target_speakers,
            "false_accepts": self.false_accepts,
            "nontarget_trials": self.nontarget_trials,
            "speaker_pairs": self.speaker_pairs,
            "miss_rate": None if self.miss_rate is None else self.miss_rate.to_dict(),
            "false_accept_rate": None if self.false_accept_rate is None else self.false_accept_rate.to_dict(),
        }


def error_rates(
    scores: ArrayLike,
    target: ArrayLike,
    enrol_speaker: ArrayLike,
    test_speaker: ArrayLike,
    threshold: float,
    weights: Weights | None = None,
    level: float = 0.95,
) -> ErrorRates:
    """Count errors at a threshold and say how sure the rates are.

    Intervals come from resampling speakers. Where no error, or nothing but errors, occurred, every resample is alike;
    then the interval's other end is the exact binomial bound (for no error in n it is ``1 - (1 - level)^(1/n)``,
    about 3/n at 95 %, the rule of three), n being the number of target speakers for misses and of pairs of speakers
    for false accepts: trials of one speaker, or pair, may all go wrong together.

    Args:
        scores: (trials,)
        target: (trials,) bool.
        enrol_speaker: (trials,) a row of `weights`.
        test_speaker: (trials,) a row of `weights`.
        threshold: Scores at or above it are accepted.
        weights: From `speaker_weights`; without them there are no intervals.
        level: Of the intervals.

    Raises:
        TrialError: scores are NaN or infinite.
    """
    score, label = np.asarray(scores), np.asarray(target, bool)
    first, second = np.asarray(enrol_speaker), np.asarray(test_speaker)
    check_finite(score, "scores")
    accepted = score >= np.float64(threshold)  # in double precision, as everywhere
    missed, passed = label & ~accepted, ~label & accepted
    speakers = np.unique(first[label])
    pairs = distinct_pairs(first[~label], second[~label])
    replicated: list[NDArray[np.float64] | None] = [None, None]
    if weights is not None:
        replicated = [
            _share_of_targets(first[missed], first[label], weights) if missed.any() else None,
            _share_of_nontargets((first[passed], second[passed]), (first[~label], second[~label]), weights)
            if passed.any()
            else None,
        ]
    counts = [(int(missed.sum()), int(label.sum()), len(speakers)), (int(passed.sum()), int((~label).sum()), pairs)]
    estimates = [
        _estimate(*count, values, level if weights is not None else None)
        for count, values in zip(counts, replicated, strict=True)
    ]
    return ErrorRates(float(threshold), *counts[0], *counts[1], *estimates)


def distinct_pairs(first: NDArray[Any], second: NDArray[Any]) -> int:
    """How many different pairs of speakers occur, whatever side each stands on."""
    if not len(first):
        return 0
    low, high = np.minimum(first, second).astype(np.int64), np.maximum(first, second).astype(np.int64)
    return len(np.unique(low * (int(high.max()) + 1) + high))


def smallest_rate(units: int, level: float = 0.95) -> float:
    """The smallest error rate that so many independent observations can speak of.

    With no error among them, a rate of up to this remains possible at the given confidence (Clopper and Pearson 1934;
    for 95 %, the rule of three).
    """
    return float(1 - (1 - level) ** (1 / units)) if units else 1.0


def _estimate(
    errors: int, trials: int, units: int, replicated: NDArray[np.float64] | None, level: float | None
) -> Estimate | None:
    if not trials:
        return None
    if level is None:
        return Estimate(errors / trials, None)
    if errors == 0:
        return Estimate(0.0, Interval(0.0, smallest_rate(units, level)))
    if errors == trials:
        return Estimate(1.0, Interval(1 - smallest_rate(units, level), 1.0))
    assert replicated is not None
    return Estimate(errors / trials, interval(replicated, level))


def resampled_rates(
    wrong: NDArray[np.bool_],
    first: NDArray[Any],
    second: NDArray[Any],
    weights: Weights,
) -> NDArray[np.float64]:
    """The share of wrong decisions among trials of one kind, in each replicate.

    Args:
        wrong: (trials,)
        first: (trials,) enrolment speakers.
        second: (trials,) test speakers; the same for target trials.
        weights: From `speaker_weights`.

    Returns:
        (replicates,); NaN where a replicate has none of the trials.
    """
    return _share_of_nontargets((first[wrong], second[wrong]), (first, second), weights)


def _share_of_targets(some: NDArray[Any], all_of_them: NDArray[Any], weights: Weights) -> NDArray[np.float64]:
    counts = [np.bincount(speaker, minlength=len(weights)) @ weights for speaker in (some, all_of_them)]
    with np.errstate(invalid="ignore"):
        rates: NDArray[np.float64] = counts[0] / counts[1]
    return rates


def _share_of_nontargets(
    some: tuple[NDArray[Any], NDArray[Any]], all_of_them: tuple[NDArray[Any], NDArray[Any]], weights: Weights
) -> NDArray[np.float64]:
    padded = pad(weights)
    totals = [_totals(PairSides(*sides, len(weights)), padded) for sides in (some, all_of_them)]
    with np.errstate(invalid="ignore"):
        rates: NDArray[np.float64] = totals[0] / totals[1]
    return rates


def _totals(sides: PairSides, padded: Weights) -> NDArray[np.float64]:
    """The weight of all trials, one by one where they are few for so many speakers."""
    if sides.rows**2 < 20 * len(sides.first) or len(sides.first) > 10 * _TRIALS:
        return pair_totals(sides.counts(), padded)
    total = np.zeros(padded.shape[1])
    for start in range(0, len(sides.first), _TRIALS):
        part = slice(start, start + _TRIALS)
        total += np.einsum("tr,tr->r", padded[sides.first[part]], padded[sides.second[part]], dtype=np.float64)
    return total


def wins(
    first: NDArray[Any], second: NDArray[Any], target: NDArray[np.bool_], thresholds: Sequence[float]
) -> tuple[int, int]:
    """How many trials each of two systems alone decides rightly.

    Args:
        first: (trials,) scores of one system.
        second: (trials,) scores of the other.
        target: (trials,) bool.
        thresholds: Of the two systems.

    Returns:
        Trials that only the first gets right, and trials that only the second does (the two counts of McNemar's test).
    """
    right = [
        (scores >= np.float64(threshold)) == target
        for scores, threshold in zip((first, second), thresholds, strict=True)
    ]
    return int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
