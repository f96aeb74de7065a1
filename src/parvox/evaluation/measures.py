"""EER, detection costs and the DET curve, exact and at any size.

Targets and non-targets are sorted apart, in place. Every measure is then a matter of ranks in two sorted arrays, so
that labels are never sorted along and 10^8 float32 scores need two and a half times their own memory.

Conventions. A trial is accepted if its score is at or above the threshold: ``P_miss(t)`` is the share of targets
below t, ``P_fa(t)`` the share of non-targets at or above it. The operating points are those of all thresholds, joined
by straight lines where scores tie; the EER is where that line meets ``P_miss = P_fa``. This is what
`sklearn.metrics.roc_curve` with linear interpolation gives, and what most published figures mean by EER (the convex
hull's EER, which is never higher, is not used).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from parvox.errors import TrialError

Scores = NDArray[Any]

_MOST_UNEQUAL = 1e9  # one kind of error against the other; beyond, no number of trials could show the rarer one
_BLOCK = 1 << 16  # queries per search: the part of the other array that they fall in stays in the cache


@dataclass(frozen=True)
class OperatingPoint:
    """What happens at one threshold.

    Attributes:
        threshold: Scores at or above it are accepted. It lies half-way between the neighbouring scores; infinite
            where everything is to be accepted or rejected.
        miss_rate: Share of targets rejected.
        false_accept_rate: Share of non-targets accepted.
    """

    threshold: float
    miss_rate: float
    false_accept_rate: float


@dataclass(frozen=True)
class DetCurve:
    """A DET curve, thresholds rising.

    Attributes:
        thresholds: (points,)
        miss_rates: (points,), rising from 0 to 1.
        false_accept_rates: (points,), falling from 1 to 0.
    """

    thresholds: NDArray[np.float64]
    miss_rates: NDArray[np.float64]
    false_accept_rates: NDArray[np.float64]


class ScoreSet:
    """Scores of target and non-target trials, sorted.

    Args:
        target: Scores of trials of one speaker; higher means more alike. float32 and float64 are kept as they are.
        nontarget: Scores of trials of two speakers.
        in_place: Sort the arrays given instead of copies.

    Raises:
        TrialError: no targets, no non-targets, or NaN or infinite scores.
    """

    def __init__(self, target: ArrayLike, nontarget: ArrayLike, *, in_place: bool = False) -> None:
        self.target = _sorted(target, "target", in_place)
        self.nontarget = _sorted(nontarget, "non-target", in_place)

    @classmethod
    def from_labels(cls, scores: ArrayLike, targets: ArrayLike) -> ScoreSet:
        """Split scores by label.

        Args:
            scores: (trials,)
            targets: (trials,) true for target trials.

        Raises:
            TrialError: as above, or of different lengths.
        """
        scores, targets = np.asarray(scores), np.asarray(targets, dtype=bool)
        if scores.shape != targets.shape or scores.ndim != 1:
            raise TrialError(f"scores {scores.shape} and labels {targets.shape} given; expected one label a score")
        return cls(scores[targets], scores[~targets], in_place=True)

    def errors(self, threshold: float) -> tuple[int, int]:
        """Targets rejected and non-targets accepted at `threshold`."""
        return _below(self.target, threshold), len(self.nontarget) - _below(self.nontarget, threshold)

    def at(self, threshold: float) -> OperatingPoint:
        """The error rates at `threshold`."""
        misses, accepts = self.errors(threshold)
        return OperatingPoint(float(threshold), misses / len(self.target), accepts / len(self.nontarget))

    def eer(self) -> float:
        """The equal error rate, 0 to 1 (above 0.5 where targets score lower than non-targets)."""
        value = self._crossing()
        miss_0, fa_0 = self._rates(*self._counts(value, "left"))
        miss_1, fa_1 = self._rates(*self._counts(value, "right"))
        before, after = fa_0 - miss_0, miss_1 - fa_1
        return miss_0 + before / (before + after) * (miss_1 - miss_0)

    def eer_point(self) -> OperatingPoint:
        """The operating point whose two error rates are nearest to each other."""
        value = self._crossing()
        choices = [self._counts(value, side) for side in ("left", "right")]
        gaps = [abs(m * len(self.nontarget) - f * len(self.target)) for m, f in choices]
        return self._between(*choices[gaps[1] < gaps[0]])

    def min_dcf(self, p_target: float = 0.01, c_miss: float = 1.0, c_fa: float = 1.0) -> float:
        """The least normalised detection cost over all thresholds.

        ``DCF = c_miss p_target P_miss + c_fa (1 - p_target) P_fa``, divided by the cost of the better of accepting
        all and rejecting all (NIST SRE evaluation plans). Never above 1.

        Args:
            p_target: Prior probability of a target.
            c_miss: Cost of rejecting a target.
            c_fa: Cost of accepting a non-target.
        """
        return self._min_dcf(p_target, c_miss, c_fa)[0]

    def min_dcf_point(self, p_target: float = 0.01, c_miss: float = 1.0, c_fa: float = 1.0) -> OperatingPoint:
        """The operating point of the least detection cost; see `min_dcf`."""
        _, misses, accepts = self._min_dcf(p_target, c_miss, c_fa)
        return self._between(misses, accepts)

    def threshold_at_false_accept_rate(self, rate: float) -> float:
        """The lowest threshold at which no more than a share `rate` of the non-targets is accepted.

        It lies half-way between the lowest non-target still accepted and the highest one rejected; just above the
        highest score where none may be accepted.
        """
        allowed = math.floor(rate * len(self.nontarget) * (1 + 1e-12))
        if allowed >= len(self.nontarget):
            return -math.inf
        rejected = self.nontarget[len(self.nontarget) - allowed - 1]
        above = self.nontarget[int(np.searchsorted(self.nontarget, rejected, "right")) :]
        low = float(rejected)
        if not len(above):
            return float(np.nextafter(rejected, np.array(np.inf, self.nontarget.dtype)))
        high = float(above[0])
        middle = low + (high - low) / 2
        return middle if middle > low else high

    def act_dcf(
        self, p_target: float = 0.01, c_miss: float = 1.0, c_fa: float = 1.0, threshold: float | None = None
    ) -> float:
        """The normalised detection cost at one threshold.

        Args:
            p_target: Prior probability of a target.
            c_miss: Cost of rejecting a target.
            c_fa: Cost of accepting a non-target.
            threshold: Bayes' threshold for log-likelihood-ratio scores (natural logarithm) unless given.
        """
        weight_miss, weight_fa = dcf_weights(p_target, c_miss, c_fa)
        if threshold is None:
            threshold = bayes_threshold(p_target, c_miss, c_fa)
        misses, accepts = self.errors(threshold)
        return weight_miss * misses / len(self.target) + weight_fa * accepts / len(self.nontarget)

    def false_accept_counts(self) -> NDArray[Any]:
        """The whole DET curve in its smallest form.

        Returns:
            (targets,) integers: how many non-targets are accepted at each sorted target score taken as threshold. The
            k-th point of the curve has k targets rejected (the first of equal scores counts). Every corner of the
            staircase is there, for between two targets only false accepts change.
        """
        dtype = np.int32 if len(self.nontarget) < 2**31 else np.int64
        counts = np.empty(len(self.target), dtype)
        for start, ranks in _ranks(self.target, self.nontarget, "left"):
            np.subtract(len(self.nontarget), ranks, out=counts[start : start + len(ranks)], casting="same_kind")
        return counts

    def det_curve(self, points: int = 1000) -> DetCurve:
        """Operating points spread evenly over the probit axes of a DET plot.

        Every point is exact; the first accepts all and the last rejects all. Rates at the two ends of the axes, where
        single trials count, are all there.

        Args:
            points: About how many at the most.
        """
        grid = max(points // 2, 2)
        thresholds = np.unique(
            np.concatenate(
                [
                    self.target[_probit_ranks(len(self.target), grid)].astype(np.float64),
                    self.nontarget[_probit_ranks(len(self.nontarget), grid)].astype(np.float64),
                    [np.inf],
                ]
            )
        )
        misses = _below_each(self.target, thresholds)
        accepts = len(self.nontarget) - _below_each(self.nontarget, thresholds)
        return DetCurve(thresholds, misses / len(self.target), accepts / len(self.nontarget))

    def _rates(self, misses: int, accepts: int) -> tuple[float, float]:
        return misses / len(self.target), accepts / len(self.nontarget)

    def _counts(self, value: Any, side: Any) -> tuple[int, int]:
        """Errors if scores from `value` on ("left"), or only those above it ("right"), are accepted."""
        misses = int(np.searchsorted(self.target, value, side))
        return misses, len(self.nontarget) - int(np.searchsorted(self.nontarget, value, side))

    def _crossing(self) -> Any:
        """The highest score at which, taken as threshold, P_miss <= P_fa. The EER lies between it and just above."""

        def still_below(value: Any) -> bool:
            misses, accepts = self._counts(value, "left")
            return misses * len(self.nontarget) <= accepts * len(self.target)  # whole numbers: exact

        found = []
        for scores in (self.target, self.nontarget):
            low, high = -1, len(scores)  # still_below(scores[low]) holds, still_below(scores[high]) does not
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if still_below(scores[middle]) else (low, middle)
            if low >= 0:
                found.append(scores[low])
        return max(found)  # the lowest score of all always qualifies

    def _min_dcf(self, p_target: float, c_miss: float, c_fa: float) -> tuple[float, int, int]:
        """The least cost, and the misses and false accepts where it is reached.

        The best threshold lies just at a target (raising it from there would miss that target, lowering it can only
        let non-targets in), and likewise just above a non-target, so the rarer kind is walked through.
        """
        weight_miss, weight_fa = dcf_weights(p_target, c_miss, c_fa)
        targets, nontargets = len(self.target), len(self.nontarget)
        if targets <= nontargets:
            best = (weight_miss, targets, 0)
            walks, queries, others, side = range(targets), self.target, self.nontarget, "left"
        else:
            best = (weight_fa, 0, nontargets)
            walks, queries, others, side = range(1, nontargets + 1), self.nontarget, self.target, "right"
        for start, ranks in _ranks(queries, others, side):
            own = np.arange(walks[start], walks[start] + len(ranks))
            misses, accepts = (own, nontargets - ranks) if targets <= nontargets else (ranks, nontargets - own)
            cost = weight_miss / targets * misses + weight_fa / nontargets * accepts
            least = int(cost.argmin())
            if cost[least] < best[0]:
                best = (float(cost[least]), int(misses[least]), int(accepts[least]))
        return best

    def _between(self, misses: int, accepts: int) -> OperatingPoint:
        """The operating point with so many errors, its threshold half-way between the scores that it parts."""
        rejected = len(self.nontarget) - accepts
        below = [scores[count - 1] for scores, count in ((self.target, misses), (self.nontarget, rejected)) if count]
        above = [
            scores[count]
            for scores, count in ((self.target, misses), (self.nontarget, rejected))
            if count < len(scores)
        ]
        if not below or not above:
            threshold = -math.inf if above else math.inf
        else:
            low, high = float(max(below)), float(min(above))
            middle = low + (high - low) / 2
            threshold = middle if low < middle <= high else high
        return OperatingPoint(threshold, *self._rates(misses, accepts))


def eer(target: ArrayLike, nontarget: ArrayLike) -> float:
    """The equal error rate of target and non-target scores; see `ScoreSet.eer`."""
    return ScoreSet(target, nontarget).eer()


def min_dcf(
    target: ArrayLike, nontarget: ArrayLike, p_target: float = 0.01, c_miss: float = 1.0, c_fa: float = 1.0
) -> float:
    """The least normalised detection cost of target and non-target scores; see `ScoreSet.min_dcf`."""
    return ScoreSet(target, nontarget).min_dcf(p_target, c_miss, c_fa)


def dcf_weights(p_target: float, c_miss: float = 1.0, c_fa: float = 1.0) -> tuple[float, float]:
    """What P_miss and P_fa are multiplied by in the normalised detection cost.

    Raises:
        TrialError: `p_target` is not between 0 and 1, or a cost not above 0.
    """
    if not (0 < p_target < 1 and 0 < c_miss < math.inf and 0 < c_fa < math.inf):
        raise TrialError(
            f"detection cost: p_target {p_target}, c_miss {c_miss}, c_fa {c_fa} given; expected a probability "
            "between 0 and 1 and costs above 0"
        )
    miss, fa = c_miss * p_target, c_fa * (1 - p_target)
    if not 1 / _MOST_UNEQUAL <= miss / fa <= _MOST_UNEQUAL:
        raise TrialError(
            f"detection cost: p_target {p_target}, c_miss {c_miss}, c_fa {c_fa} given, which make one kind of error "
            f"count {max(miss / fa, fa / miss):.3g} times the other; expected at most {_MOST_UNEQUAL:g} times"
        )
    return miss / min(miss, fa), fa / min(miss, fa)


def bayes_threshold(p_target: float, c_miss: float = 1.0, c_fa: float = 1.0) -> float:
    """The threshold of least cost for scores that are natural-logarithmic likelihood ratios."""
    weight_miss, weight_fa = dcf_weights(p_target, c_miss, c_fa)
    return math.log(weight_fa / weight_miss)


def check_finite(scores: Scores, what: str) -> None:
    """Raise `TrialError` if `scores` holds NaN or infinities."""
    bad = len(scores) - int(np.count_nonzero(np.isfinite(scores)))
    if bad:
        raise TrialError(
            f"{bad} of {len(scores)} {what} are NaN or infinite; expected finite numbers: look at the embeddings "
            "they come from"
        )


def _sorted(scores: ArrayLike, what: str, in_place: bool) -> Scores:
    given = np.asarray(scores)
    if given.ndim != 1 or given.dtype.kind not in "fiub":
        raise TrialError(f"{what} scores of shape {given.shape}, type {given.dtype} given; expected a row of numbers")
    if not len(given):
        raise TrialError(f"no {what} trials: at least one target and one non-target trial are needed")
    if given.dtype not in (np.float32, np.float64):
        given = given.astype(np.float64)
    elif not (in_place and given.flags.c_contiguous and given.flags.writeable):
        given = given.copy()
    given.sort()
    if not (np.isfinite(given[0]) and np.isfinite(given[-1])):  # sorting puts NaN and infinities at the ends
        check_finite(given, f"{what} scores")
    return given


def _below(scores: Scores, threshold: float) -> int:
    return int(_below_each(scores, np.array([threshold], np.float64))[0])


def _below_each(scores: Scores, thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many sorted scores lie below each threshold, without widening the scores."""
    wanted = thresholds.astype(scores.dtype)
    low = wanted < thresholds  # rounded down: the next number up is the first at or above the threshold
    wanted[low] = np.nextafter(wanted[low], np.array(np.inf, scores.dtype))
    return np.searchsorted(scores, wanted, "left").astype(np.int64)


def _ranks(queries: Scores, scores: Scores, side: Any) -> Any:
    """Yield (start, ranks of a block of sorted `queries` in sorted `scores`)."""
    if queries.dtype != scores.dtype:  # searchsorted would widen all of `scores` for each block
        common = np.result_type(queries, scores)
        queries, scores = queries.astype(common, copy=False), scores.astype(common, copy=False)
    low = 0
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        high = int(np.searchsorted(scores, block[-1], side))
        ranks = np.searchsorted(scores[low:high], block, side)
        ranks += low
        yield start, ranks
        low = int(ranks[-1])


def _probit_ranks(count: int, points: int) -> NDArray[np.int64]:
    """Ranks of `count` sorted scores, evenly spread in probit, with those at both ends complete."""
    edge = ndtri(0.5 / count)
    ranks = np.floor(ndtr(np.linspace(edge, -edge, points)) * count).astype(np.int64)
    few = np.arange(min(count, 16))
    return np.unique(np.clip(np.concatenate([ranks, few, count - 1 - few]), 0, count - 1))
