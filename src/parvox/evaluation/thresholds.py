"""Thresholds for a wanted false-accept rate or cost, and whether the data can vouch for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parvox.errors import TrialError
from parvox.evaluation.bootstrap import Replicates, bootstrap
from parvox.evaluation.measures import ScoreSet, dcf_weights
from parvox.evaluation.rates import ErrorRates, distinct_pairs, error_rates, smallest_rate
from parvox.evaluation.resampling import Interval, PairSides, Weights, interval, pad, pair_totals

_REPLICATES = 64  # weighed together
_FEW_ERRORS = 30  # fewer make a rate uncertain by more than a third (Doddington's rule of 30)


@dataclass(frozen=True)
class Threshold:
    """A threshold chosen for a purpose.

    Attributes:
        name: Short, such as ``far_1pct``.
        purpose: What it was chosen for, in words.
        threshold: Scores at or above it are accepted; None where the data cannot support the purpose.
        interval: Where the threshold would lie with other speakers; None where unknown.
        rates: What happened at it, None without a threshold.
        smallest_rate: The smallest false-accept rate that the data it was chosen on can speak of.
        advice: What a reader must know; empty if nothing.
        chosen_on: The trials it was chosen on, in words.
    """

    name: str
    purpose: str
    threshold: float | None
    interval: Interval | None
    rates: ErrorRates | None
    smallest_rate: float
    advice: str = ""
    chosen_on: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "purpose": self.purpose,
            "threshold": self.threshold,
            "low": None if self.interval is None else self.interval.low,
            "high": None if self.interval is None else self.interval.high,
            "rates": None if self.rates is None else self.rates.to_dict(),
            "smallest_false_accept_rate": self.smallest_rate,
            "advice": self.advice,
            "chosen_on": self.chosen_on,
        }


def threshold_at_false_accept_rate(
    scores: ArrayLike,
    target: ArrayLike,
    enrol_speaker: ArrayLike,
    test_speaker: ArrayLike,
    rate: float,
    weights: Weights | None = None,
    level: float = 0.95,
) -> Threshold:
    """The lowest threshold at which no more than a wanted share of non-targets is accepted.

    A rate below `smallest_rate` of the different pairs of speakers is refused rather than guessed: from 500 impostor
    trials nobody can tell 1 in 10,000 from 1 in 1,000.

    Args:
        scores: (trials,)
        target: (trials,) bool.
        enrol_speaker: (trials,) a row of `weights`.
        test_speaker: (trials,) a row of `weights`.
        rate: The false-accept rate wanted, between 0 and 1.
        weights: From `speaker_weights`; without them there are no intervals.
        level: Of the intervals.

    Raises:
        TrialError: `rate` is not between 0 and 1, or nothing sound can be computed from the scores.
    """
    check_rate(rate)
    score, label = np.asarray(scores), np.asarray(target, bool)
    first, second = np.asarray(enrol_speaker)[~label], np.asarray(test_speaker)[~label]
    name, purpose = rate_name(rate), f"false accepts at most {100 * rate:g} %"
    sorted_scores = ScoreSet.from_labels(score, label)
    pairs = distinct_pairs(first, second)
    least = smallest_rate(pairs, level)
    if rate < least:
        return Threshold(
            name,
            purpose,
            None,
            None,
            None,
            least,
            f"Unknown: {len(sorted_scores.nontarget):,} impostor trials of {pairs:,} pairs of speakers can speak of "
            f"no rate below {_percent(least)}; {math.ceil(3 / rate):,} pairs are needed for {_percent(rate)}.",
        )
    threshold = sorted_scores.threshold_at_false_accept_rate(rate)
    if not math.isfinite(threshold):
        return Threshold(
            name, purpose, None, None, None, least, "So many false accepts there are only if everyone is let in."
        )
    spread = None
    if weights is not None:
        spread = interval(_resampled_thresholds(score[~label], first, second, rate, weights), level)
    rates = error_rates(score, label, enrol_speaker, test_speaker, threshold, weights, level)
    return Threshold(name, purpose, threshold, spread, rates, least, _advice(rates))


def threshold_at_cost(
    scores: ArrayLike,
    target: ArrayLike,
    enrol_speaker: ArrayLike,
    test_speaker: ArrayLike,
    p_target: float,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
    weights: Weights | None = None,
    level: float = 0.95,
    replicates: Replicates | None = None,
) -> Threshold:
    """The threshold of the least expected cost.

    Args:
        scores: (trials,)
        target: (trials,) bool.
        enrol_speaker: (trials,) a row of `weights`.
        test_speaker: (trials,) a row of `weights`.
        p_target: How likely a target is.
        c_miss: Cost of a miss.
        c_fa: Cost of a false accept.
        weights: From `speaker_weights`; without them there are no intervals.
        level: Of the intervals.
        replicates: From `bootstrap` with these weights and costs, if they are at hand.

    Raises:
        TrialError: the costs are none, or nothing sound can be computed from the scores.
    """
    dcf_weights(p_target, c_miss, c_fa)
    score, label = np.asarray(scores), np.asarray(target, bool)
    first, second = np.asarray(enrol_speaker), np.asarray(test_speaker)
    point = ScoreSet.from_labels(score, label).min_dcf_point(p_target, c_miss, c_fa)
    least = smallest_rate(distinct_pairs(first[~label], second[~label]), level)
    costs = "" if c_miss == c_fa == 1 else f", a miss costing {c_miss:g} and a false accept {c_fa:g}"
    name, purpose = cost_name(p_target), f"least cost where {_percent(p_target)} of the trials are targets{costs}"
    if not math.isfinite(point.threshold):
        what = "reject" if point.threshold > 0 else "accept"
        return Threshold(name, purpose, None, None, None, least, f"The least cost is to {what} everyone.")
    spread = None
    if weights is not None:
        if replicates is None:
            replicates = bootstrap(
                score, label, first, second, weights, p_targets=(p_target,), c_miss=c_miss, c_fa=c_fa
            )
        spread = interval(replicates.min_dcf_threshold[p_target], level)
    rates = error_rates(score, label, first, second, point.threshold, weights, level)
    return Threshold(name, purpose, point.threshold, spread, rates, least, _advice(rates))


def rate_name(rate: float) -> str:
    """How thresholds for a false-accept rate are called: ``far_1pct``, ``far_0.1pct``."""
    return f"far_{100 * rate:g}pct"


def cost_name(p_target: float) -> str:
    """How thresholds of least cost are called: ``cost_0.01``."""
    return f"cost_{p_target:g}"


def check_rate(rate: float) -> None:
    """Raise `TrialError` if `rate` is no false-accept rate that a threshold could be chosen for."""
    if not 0 < rate < 1:
        raise TrialError(f"false-accept rate {rate} given; expected a rate between 0 and 1, such as 0.01 for 1 %")


def check_wishes(
    false_accept_rates: Sequence[float], p_targets: Sequence[float], c_miss: float = 1.0, c_fa: float = 1.0
) -> None:
    """Refuse rates and costs for which no thresholds can be chosen, and two that would be called the same.

    Raises:
        TrialError: they are such.
    """
    for rate in false_accept_rates:
        check_rate(rate)
    for p in p_targets:
        dcf_weights(p, c_miss, c_fa)
    names = [*map(rate_name, false_accept_rates), *map(cost_name, p_targets)]
    for name in names:
        if names.count(name) > 1:
            raise TrialError(
                f"{names.count(name)} thresholds that would all be called {name} asked for; give each once"
            )


def _advice(rates: ErrorRates) -> str:
    few = [
        f"{count} {what}"
        for count, what in ((rates.false_accepts, "false accepts"), (rates.misses, "misses"))
        if count < _FEW_ERRORS
    ]
    return f"Rests on {' and '.join(few)} only." if few else ""


def _percent(rate: float) -> str:
    return f"{100 * rate:.2g} %" if rate < 0.995 else "100 %"


def _resampled_thresholds(
    scores: NDArray[Any], first: NDArray[Any], second: NDArray[Any], rate: float, weights: Weights
) -> NDArray[np.float64]:
    """(replicates,): each replicate's threshold, found among the highest non-target scores."""
    sides = PairSides(first, second, len(weights))
    padded, counts = pad(weights), sides.counts()
    looked_at = min(len(scores), math.ceil(3 * rate * len(scores)) + 1000)
    found: list[NDArray[np.float64]] = []
    order = np.empty(0, np.int64)
    for start in range(0, weights.shape[1], _REPLICATES):
        block = np.ascontiguousarray(padded[:, start : start + _REPLICATES])
        total = pair_totals(counts, block)
        while True:
            if len(order) < looked_at:
                highest = np.argpartition(scores, len(scores) - looked_at)[len(scores) - looked_at :]
                order = highest[np.argsort(-scores[highest], kind="stable")]
            accepted = np.cumsum(block[sides.first[order]] * block[sides.second[order]], axis=0, dtype=np.float64)
            too_many = accepted > rate * total
            if too_many[-1].all() or looked_at == len(scores) or not total.all():
                break
            looked_at = min(len(scores), 2 * looked_at)
        # Just above the first non-target that would be one too many.
        where = too_many.argmax(axis=0)
        threshold = scores[order][where].astype(np.float64)
        threshold[~too_many.any(axis=0) | (total == 0)] = np.nan
        found.append(threshold)
    return np.concatenate(found)
