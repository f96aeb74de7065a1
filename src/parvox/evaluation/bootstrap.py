"""EER, minDCF and the DET curve of bootstrap replicates.

Scores are sorted once. A replicate is then nothing but weights of trials (`parvox.evaluation.resampling`), and only
non-targets that can come near a threshold have theirs computed one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from parvox.evaluation.measures import ScoreSet, check_finite, dcf_weights
from parvox.evaluation.resampling import PairSides, Weights, pad, pair_totals

_GRID = 1 << 12  # thresholds looked at in each replicate; with fewer targets than that, all that matter
_REPLICATES = 64  # done together
_TRIALS = 2048  # weighed together; with the replicates, what fits in a core's own cache


@dataclass(frozen=True, eq=False)
class Replicates:
    """The measures of each replicate; NaN where a replicate was left without targets or non-targets.

    Attributes:
        eer: (replicates,)
        eer_threshold: (replicates,) where the two error rates are nearest to each other.
        min_dcf: By p_target, (replicates,).
        min_dcf_threshold: By p_target, (replicates,) where it is reached; infinite where all is to be rejected.
        miss_rates: (replicates, rates) the miss rate at each of `false_accept_rates`; None unless asked for.
        false_accept_rates: (rates,); None unless asked for.
    """

    eer: NDArray[np.float64]
    eer_threshold: NDArray[np.float64]
    min_dcf: dict[float, NDArray[np.float64]]
    min_dcf_threshold: dict[float, NDArray[np.float64]]
    miss_rates: NDArray[np.float64] | None = None
    false_accept_rates: NDArray[np.float64] | None = None


def bootstrap(
    scores: ArrayLike,
    target: ArrayLike,
    enrol_speaker: ArrayLike,
    test_speaker: ArrayLike,
    weights: Weights,
    *,
    p_targets: Sequence[float] = (0.01, 0.05),
    c_miss: float = 1.0,
    c_fa: float = 1.0,
    false_accept_rates: ArrayLike | None = None,
    on_replicates: Callable[[int], Any] | None = None,
) -> Replicates:
    """EER, minDCF and, if asked for, the DET curve of each replicate.

    Exact up to 4,096 distinct target scores. With more, a replicate's curve is taken at that many of them, closer
    together where few targets are missed: its measures are then off by less than one part in 2,048 of the targets,
    far below what resampling varies.

    Args:
        scores: (trials,)
        target: (trials,) bool.
        enrol_speaker: (trials,) each trial's enrolment speaker, a row of `weights`.
        test_speaker: (trials,) each trial's test speaker, a row of `weights`.
        weights: From `speaker_weights`.
        p_targets: Priors to compute minDCF for.
        c_miss: Cost of a miss.
        c_fa: Cost of a false accept.
        false_accept_rates: Rates, rising, at which to give each replicate's miss rate.
        on_replicates: Called with the number of replicates just done.

    Raises:
        TrialError: as `ScoreSet`.
    """
    trials = _Trials(scores, target, enrol_speaker, test_speaker, len(weights))
    weights = pad(weights)
    rates = None if false_accept_rates is None else np.asarray(false_accept_rates, np.float64)
    costs = {p: dcf_weights(p, c_miss, c_fa) for p in p_targets}
    # Non-targets are looked at from the highest down to where nothing of interest can lie.
    reach = min(1.0, max(2.5 * trials.eer + 0.01, 0.0 if rates is None else 1.5 * float(rates[-1])))
    curves = _Curves(trials, reach)
    totals = pair_totals(trials.sides.counts(), weights)
    parts: list[Replicates] = []
    for start in range(0, weights.shape[1], _REPLICATES):
        block = np.ascontiguousarray(weights[:, start : start + _REPLICATES])
        total = totals[start : start + _REPLICATES]
        part = curves.measure(block, total, costs, rates)
        if part is None:  # a replicate whose threshold is lower: look at all
            curves = _Curves(trials, 1.0)
            part = curves.measure(block, total, costs, rates)
            assert part is not None
        parts.append(part)
        if on_replicates is not None:
            on_replicates(block.shape[1])
    return Replicates(
        eer=np.concatenate([part.eer for part in parts]),
        eer_threshold=np.concatenate([part.eer_threshold for part in parts]),
        min_dcf={p: np.concatenate([part.min_dcf[p] for part in parts]) for p in p_targets},
        min_dcf_threshold={p: np.concatenate([part.min_dcf_threshold[p] for part in parts]) for p in p_targets},
        miss_rates=None if rates is None else np.concatenate([_known(part.miss_rates) for part in parts]),
        false_accept_rates=rates,
    )


class _Trials:
    """Trials of both kinds with their speakers."""

    def __init__(self, scores: ArrayLike, target: ArrayLike, enrol: ArrayLike, test: ArrayLike, speakers: int) -> None:
        score, label = np.asarray(scores), np.asarray(target, bool)
        check_finite(score, "scores")
        first, second = np.asarray(enrol), np.asarray(test)
        self.eer = ScoreSet.from_labels(score, label).eer()
        order = np.argsort(score[label], kind="stable")
        self.target = score[label][order]
        self.target_speaker = first[label][order]
        self.nontarget = score[~label]
        self.sides = PairSides(first[~label], second[~label], speakers)


class _Curves:
    """The weighted ROC curves of replicates, from the highest scores down to a false-accept rate of `reach`."""

    def __init__(self, trials: _Trials, reach: float) -> None:
        self.trials = trials
        target, nontarget = trials.target, trials.nontarget
        lowest = 0
        if reach < 1:
            floor = np.partition(nontarget, int((1 - reach) * len(nontarget)))[int((1 - reach) * len(nontarget))]
            lowest = int(np.searchsorted(target, floor, "right")) - 1
        self.whole = lowest <= 0
        grid = np.unique(target[max(lowest, 0) :])
        if len(grid) > _GRID:
            even = np.linspace(0, len(grid) - 1, _GRID // 2)
            grid = grid[np.unique(np.concatenate([even, np.geomspace(1, len(grid), _GRID // 2) - 1]).astype(np.int64))]
        self.grid = grid
        near = nontarget >= grid[0]
        order = np.argsort(nontarget[near], kind="stable")
        score = nontarget[near][order]
        self.first, self.second = trials.sides.first[near][order], trials.sides.second[near][order]
        # Sorted trials fall into segments between the places where a grid value begins and where it ends.
        self.target_places, self.target_at, self.target_above = _places(target, grid)
        self.places, self.at, self.above = _places(score, grid)
        self.adders = self._adders()
        by_segment = np.searchsorted(self.target_places, np.arange(len(target)), "right")
        count = sparse.coo_array(
            (np.ones(len(target), np.float32), (by_segment, trials.target_speaker)),
            (len(self.target_places) + 1, trials.sides.rows),
        ).tocsr()
        full = 20 * count.nnz > count.shape[0] * count.shape[1]  # then a dense product is quicker
        self.target_count: Any = count.toarray() if full else count

    def measure(
        self,
        weights: Weights,
        totals: NDArray[np.float64],
        costs: dict[float, tuple[float, float]],
        rates: NDArray[np.float64] | None,
    ) -> Replicates | None:
        """The measures of some replicates; None if they need scores below those looked at.

        Args:
            weights: (rows, replicates)
            totals: (replicates,) the weight of all non-targets.
            costs: Of misses and false accepts, by p_target.
            rates: False-accept rates to give miss rates at.
        """
        below = _running(self.target_count @ weights)  # (replicates, segments), like all that follow
        rejected = _running(self._nontargets(weights))
        curve = _Points(self, below, rejected, totals[:, None])
        misses, accepts = curve.at
        if not self.whole and (
            (misses[:, 0] >= accepts[:, 0]).any() or (rates is not None and (accepts[:, 0] < rates[-1]).any())
        ):
            return None
        dcf: dict[float, NDArray[np.float64]] = {}
        dcf_threshold: dict[float, NDArray[np.float64]] = {}
        for p_target, (miss, fa) in costs.items():
            cost = miss * misses
            cost += fa * accepts
            where = cost.argmin(axis=1)
            least = np.take_along_axis(cost, where[:, None], 1)[:, 0]
            if not self.whole and (np.minimum(least, miss) > fa * accepts[:, 0]).any():
                return None
            dcf[p_target] = np.minimum(least, miss)
            dcf_threshold[p_target] = np.where(least <= miss, self.grid[where], np.inf)
        eer, where = curve.crossing()
        threshold = np.where(np.isnan(eer), np.nan, self.grid[where])
        return Replicates(eer, threshold, dcf, dcf_threshold, None if rates is None else curve.misses_at(rates), rates)

    def _adders(self) -> list[tuple[slice, slice, Any]]:
        """For each run of trials, the segments that it touches and a matrix of ones that adds its trials up to them.

        In float32 that is exact, the numbers being whole and small.
        """
        adders = []
        count = len(self.first)
        for start in range(0, count, _TRIALS):
            end = min(start + _TRIALS, count)
            low, high = np.searchsorted(self.places, [start, end - 1], "right")
            ends = np.concatenate([[start], self.places[low:high], [end]]) - start
            ones = np.ones(end - start, np.float32)
            adder = sparse.csr_array((ones, np.arange(end - start), ends), (len(ends) - 1, end - start))
            adders.append((slice(start, end), slice(low, high + 1), adder))
        return adders

    def _nontargets(self, weights: Weights) -> NDArray[np.float64]:
        """(segments, replicates): the weight of the non-targets looked at, in each segment."""
        total = np.zeros((len(self.places) + 1, weights.shape[1]))
        for trials, segments, adder in self.adders:
            weight = weights[self.first[trials]]
            weight *= weights[self.second[trials]]  # (trials, replicates)
            total[segments] += adder @ weight
        return total


class _Points:
    """The operating points of replicates: for each grid value the one at it, then the one just above it."""

    def __init__(
        self,
        curves: _Curves,
        below: NDArray[np.float64],
        rejected: NDArray[np.float64],
        nontargets: NDArray[np.float64],
    ) -> None:
        self._curves, self._below, self._rejected, self._nontargets = curves, below, rejected, nontargets
        self.at = self._rates(curves.target_at, curves.at)

    def crossing(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The EER, where the line through the points meets equal rates, and the grid value nearest to it."""
        misses, accepts = self.at
        rows, last = np.arange(len(misses)), misses.shape[1] - 1
        reached = misses >= accepts
        after = reached.argmax(axis=1)
        after[~reached[rows, after]] = last + 1
        before = np.maximum(after - 1, 0)
        # Three points in turn: at the value before, just above it, at the next value; the line crosses between two.
        places = before[:, None]
        above = self._rates(self._curves.target_above[places], self._curves.above[places], each_row=True)
        turns = [(misses[rows, before], accepts[rows, before]), (above[0][:, 0], above[1][:, 0])]
        turns.append((misses[rows, np.minimum(after, last)], accepts[rows, np.minimum(after, last)]))
        early = turns[1][0] >= turns[1][1]
        (miss_0, fa_0), (miss_1, fa_1) = (
            tuple(np.where(early, one, other) for one, other in zip(turns[k], turns[k + 1], strict=True))
            for k in (0, 1)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            part = (fa_0 - miss_0) / ((fa_0 - miss_0) + (miss_1 - fa_1))
        rate = np.where(after == 0, misses[:, 0], miss_0 + part * (miss_1 - miss_0))
        first_nearer = early & (np.abs(fa_0 - miss_0) <= np.abs(fa_1 - miss_1))
        # Just above a grid value is as good as at the next.
        nearest = np.where(first_nearer | (after == 0), before, np.minimum(before + 1, last))
        return np.where(np.isnan(misses[:, 0] + accepts[:, 0]), np.nan, rate), nearest

    def misses_at(self, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        """(replicates, rates): the miss rate at each false-accept rate."""
        curves = self._curves
        turn = np.stack([curves.target_at, curves.target_above], 1).ravel()
        misses, accepts = self._rates(turn, np.stack([curves.at, curves.above], 1).ravel())
        pairs = zip(accepts[:, ::-1], misses[:, ::-1], strict=True)
        return np.stack([np.interp(rates, fa, miss) for fa, miss in pairs])

    def _rates(
        self, target_places: NDArray[np.int64], places: NDArray[np.int64], each_row: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Miss and false-accept rates at segments, the same for all rows or (rows, places)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            if each_row:
                misses = np.take_along_axis(self._below, target_places, 1)
                accepts = np.take_along_axis(self._rejected, places, 1)
            else:
                misses, accepts = np.take(self._below, target_places, 1), np.take(self._rejected, places, 1)
            misses /= self._below[:, -1:]
            np.subtract(self._rejected[:, -1:], accepts, out=accepts)
            accepts /= self._nontargets
        return misses, accepts


def _running(segments: NDArray[Any]) -> NDArray[np.float64]:
    """(replicates, segments): sums up to the end of each segment, from (segments, replicates)."""
    turned = np.ascontiguousarray(segments.T, np.float64)
    return np.cumsum(turned, axis=1, out=turned)


def _places(scores: NDArray[Any], grid: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Where sorted scores are cut, and which segment ends just below, and which with, each grid value."""
    left, right = np.searchsorted(scores, grid, "left"), np.searchsorted(scores, grid, "right")
    places = np.unique(np.concatenate([[0], left, right]))
    return places, np.searchsorted(places, left), np.searchsorted(places, right)


def _known(values: NDArray[np.float64] | None) -> NDArray[np.float64]:
    assert values is not None
    return values
