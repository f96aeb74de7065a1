"""Scores to log-likelihood ratios, and how far they can be believed.

A calibrated score is a natural-logarithmic likelihood ratio: at +2.3 the evidence is ten times likelier for one
speaker than for two. Whoever uses it then sets the threshold from prior and costs, without trials of his own
(Brümmer and du Preez, "Application-independent evaluation of speaker detection", Computer Speech and Language 20,
2006). The map is a logistic regression on the score and on side information, the field's quality measure functions
(Mandasari et al., "Quality measure functions for calibration of speaker recognition systems in various duration
conditions", IEEE TASLP 21, 2013), weighted so that targets count as much as their prior says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parvox.errors import TrialError
from parvox.evaluation.estimate import Estimate
from parvox.evaluation.measures import ScoreSet, check_finite
from parvox.evaluation.resampling import Interval, PairSides, Weights, interval, pad, pair_totals

SCORE = "score"

Side = Mapping[str, NDArray[Any]]
"""Side information: by name, (trials,) numbers."""


@dataclass(frozen=True)
class Calibration:
    """A linear map from score and side information to a log-likelihood ratio.

    Attributes:
        weights: By name; "score" first.
        offset: Added.
        p_target: The prior it was fitted for.
        fitted_on: The trials, in words.
    """

    weights: Mapping[str, float]
    offset: float
    p_target: float
    fitted_on: str = ""

    def apply(self, scores: NDArray[Any], side: Side | None = None) -> NDArray[np.float64]:
        """Log-likelihood ratios (trials,), natural logarithm.

        Args:
            scores: (trials,)
            side: The side information it was fitted with.

        Raises:
            TrialError: side information is missing.
        """
        values = {SCORE: scores, **(side or {})}
        missing = [name for name in self.weights if name not in values]
        if missing:
            raise TrialError(f"calibration needs {', '.join(missing)} of every trial; it was fitted with it")
        total = np.full(len(scores), self.offset)
        for name, weight in self.weights.items():
            total += weight * np.asarray(values[name], np.float64)
        return total

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "weights": dict(self.weights),
            "offset": self.offset,
            "p_target": self.p_target,
            "fitted_on": self.fitted_on,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """From what `to_dict` gave."""
        return cls(dict(values["weights"]), values["offset"], values["p_target"], values.get("fitted_on", ""))


def fit_calibration(
    scores: ArrayLike,
    target: ArrayLike,
    side: Side | None = None,
    *,
    p_target: float = 0.5,
    fitted_on: str = "",
) -> Calibration:
    """Fit a calibration on trials that it will not be judged on.

    Args:
        scores: (trials,)
        target: (trials,) bool.
        side: Side information; columns that never vary are left out.
        p_target: Prior at which it shall be best.
        fitted_on: The trials, in words.

    Raises:
        TrialError: one kind of trial is missing, something is not finite, or higher scores do not speak for targets.
    """
    from sklearn.linear_model import LogisticRegression

    label = np.asarray(target, bool)
    columns = {SCORE: np.asarray(scores, np.float64)}
    columns |= {name: np.asarray(values, np.float64) for name, values in (side or {}).items()}
    for name, values in columns.items():
        check_finite(values, f"values of {name}")
    ScoreSet.from_labels(columns[SCORE], label)  # both kinds are there
    if not 0 < p_target < 1:
        raise TrialError(f"calibration for a prior of {p_target} asked for; expected one between 0 and 1")
    varying = {name: values for name, values in columns.items() if name == SCORE or np.ptp(values) > 0}
    matrix = np.stack(list(varying.values()), 1)
    centre, spread = matrix.mean(axis=0), matrix.std(axis=0)
    spread[spread == 0] = 1.0
    matrix -= centre
    matrix /= spread
    each = np.where(label, p_target / label.mean(), (1 - p_target) / (1 - label.mean()))
    # C = 1 with weights that sum to the trials is a prior worth one trial: nothing, unless the kinds are parted.
    fitted = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(matrix, label, each)
    slopes = fitted.coef_[0] / spread
    if slopes[0] <= 0:
        raise TrialError(
            "on the trials to fit it on, higher scores do not speak for the same speaker: the model tells voices apart "
            "too badly, or labels or scores are reversed"
        )
    offset = float(fitted.intercept_[0] - slopes @ centre - math.log(p_target / (1 - p_target)))
    weights = dict(zip(varying, map(float, slopes), strict=True))
    return Calibration(weights, offset, p_target, fitted_on)


def cllr(target: ArrayLike, nontarget: ArrayLike) -> float:
    """The cost of log-likelihood ratios in bits: 0 is perfect, 1 is what knowing nothing costs.

    ``(mean log2(1 + e^-llr) over targets + mean log2(1 + e^llr) over non-targets) / 2`` (Brümmer and du Preez 2006).

    Args:
        target: Log-likelihood ratios of target trials, natural logarithm.
        nontarget: Of non-target trials.
    """
    losses = _loss(np.asarray(target, np.float64), True).mean() + _loss(np.asarray(nontarget, np.float64), False).mean()
    return float(losses / 2)


def min_cllr(target: ArrayLike, nontarget: ArrayLike) -> float:
    """The least Cllr that any rising map of the scores could reach, by isotonic regression.

    Args:
        target: Scores of target trials.
        nontarget: Scores of non-target trials.
    """
    _, targets, nontargets, llr = pav(target, nontarget)
    cost = targets @ _loss(llr, True, targets > 0) / targets.sum()
    return float((cost + nontargets @ _loss(llr, False, nontargets > 0) / nontargets.sum()) / 2)


def pav(
    target: ArrayLike, nontarget: ArrayLike
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The best rising map of scores to log-likelihood ratios on these very trials (pool adjacent violators).

    Returns:
        For each distinct score, rising: the score, how many targets and non-targets have it, and its log-likelihood
        ratio, infinite at ends where only one kind occurs.
    """
    from sklearn.isotonic import isotonic_regression

    scores = ScoreSet(target, nontarget)
    values = np.union1d(scores.target, scores.nontarget)
    targets, nontargets = (
        np.diff(np.searchsorted(kind, values, "right"), prepend=0).astype(np.float64)
        for kind in (scores.target, scores.nontarget)
    )
    share = isotonic_regression(targets / (targets + nontargets), sample_weight=targets + nontargets)
    with np.errstate(divide="ignore"):
        llr = np.log(share) - np.log1p(-share) - math.log(len(scores.target) / len(scores.nontarget))
    return values, targets, nontargets, llr


@dataclass(frozen=True)
class ReliabilityPoint:
    """How much evidence scores of one range claim, and how much there was.

    Attributes:
        claimed: Mean log-likelihood ratio of the trials, both kinds weighing the same.
        observed: The logarithm of how much likelier such scores were for targets than for non-targets.
        interval: Of the observed; None where unknown.
        targets: Target trials in the range.
        nontargets: Non-target trials in the range.
    """

    claimed: float
    observed: float
    interval: Interval | None
    targets: int
    nontargets: int


def reliability(
    llr: NDArray[Any],
    target: NDArray[np.bool_],
    first: NDArray[Any],
    second: NDArray[Any],
    weights: Weights | None = None,
    level: float = 0.95,
    edges: Sequence[float] = (-6, -4.5, -3, -2, -1, 0, 1, 2, 3, 4.5, 6),
) -> list[ReliabilityPoint]:
    """Claimed against observed log-likelihood ratios, in ranges where both kinds of trials occur.

    Args:
        llr: (trials,)
        target: (trials,)
        first: (trials,) enrolment speakers, rows of `weights`.
        second: (trials,) test speakers.
        weights: From `speaker_weights`; without them there are no intervals.
        level: Of the intervals.
        edges: Between ranges; the outermost ones are open.
    """
    part = np.searchsorted(edges, llr, "right")
    kinds = (target, ~target)
    counts = [np.bincount(part[kind], minlength=len(edges) + 1) for kind in kinds]
    replicated = None
    if weights is not None:
        shares = [_resampled_shares(part[kind], first[kind], second[kind], weights, len(edges) + 1) for kind in kinds]
        with np.errstate(divide="ignore", invalid="ignore"):
            replicated = np.log(shares[0]) - np.log(shares[1])
    points = []
    for each in np.flatnonzero((counts[0] > 0) & (counts[1] > 0)):
        share = [count[each] / count.sum() for count in counts]
        means = [llr[kind & (part == each)].mean() for kind in kinds]
        points.append(
            ReliabilityPoint(
                claimed=float(np.average(means, weights=share)),
                observed=math.log(share[0] / share[1]),
                interval=None if replicated is None else interval(replicated[each], level),
                targets=int(counts[0][each]),
                nontargets=int(counts[1][each]),
            )
        )
    return points


def _resampled_shares(
    part: NDArray[Any], first: NDArray[Any], second: NDArray[Any], weights: Weights, parts: int
) -> NDArray[np.float64]:
    """(parts, replicates): the share of one kind of trials that falls in each part."""
    padded = pad(weights)
    totals = np.stack(
        [
            pair_totals(PairSides(first[part == each], second[part == each], len(weights)).counts(), padded)
            for each in range(parts)
        ]
    )
    with np.errstate(invalid="ignore"):
        shares: NDArray[np.float64] = totals / totals.sum(axis=0)
    return shares


def cllr_estimate(
    llr: NDArray[Any],
    target: NDArray[np.bool_],
    first: NDArray[Any],
    second: NDArray[Any],
    weights: Weights | None = None,
    level: float = 0.95,
) -> Estimate:
    """Cllr with its interval by speaker.

    Args:
        llr: (trials,)
        target: (trials,)
        first: (trials,) enrolment speakers, rows of `weights`.
        second: (trials,) test speakers.
        weights: From `speaker_weights`; without them there is no interval.
        level: Of the interval.
    """
    value = cllr(llr[target], llr[~target])
    if weights is None:
        return Estimate(value, None)
    padded, means = pad(weights), []
    for kind, is_target in ((target, True), (~target, False)):
        sides = PairSides(first[kind], second[kind], len(weights))
        loss = pair_totals(sides.counts(_loss(llr[kind].astype(np.float64), is_target)), padded)
        with np.errstate(invalid="ignore"):
            means.append(loss / pair_totals(sides.counts(), padded))
    return Estimate(value, interval((means[0] + means[1]) / 2, level))


def _loss(llr: NDArray[np.float64], target: bool, used: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Bits lost on each trial; zero where it is not used, whatever the ratio is."""
    loss = np.logaddexp(0.0, -llr if target else llr) / math.log(2)
    return loss if used is None else np.where(used, loss, 0.0)
