"""Confidence intervals by resampling speakers.

Trials that share a speaker are not independent: one hoarse voice spoils all its trials, so resampling trials gives
intervals that are far too narrow. Speakers are resampled instead, on both sides of a trial at once: where a replicate
holds speaker i w_i times, a target trial of speaker i counts w_i times and a non-target trial of speakers i and j
counts w_i w_j times. This is the pigeonhole bootstrap (A. B. Owen, "The pigeonhole bootstrap", Annals of Applied
Statistics 1, 2007; Owen and Eckles, "Bootstrapping data arrays of arbitrary order", ibid. 6, 2012) with one set of
weights for both axes, for which Davezies, D'Haultfœuille and Guyonvarch ("Empirical process results for exchangeable
arrays", Annals of Statistics 49, 2021) prove consistency. No bootstrap is exact for crossed data (McCullagh,
"Resampling and exchangeable arrays", Bernoulli 6, 2000); this one errs towards wider intervals. In speaker recognition
the resampling of subjects goes back to Bolle, Ratha and Pankanti ("Error analysis of pattern recognition systems: the
subsets bootstrap", Computer Vision and Image Understanding 93, 2004) and Poh and Bengio ("Estimating the confidence
interval of expected performance curve in biometric authentication using joint bootstrap", ICASSP 2007).

A non-target trial of one speaker with itself (another text, in text-dependent work) counts w_i times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from parvox.errors import TrialError

MIN_SPEAKERS = 5
"""With fewer speakers no interval is given: their resamples are too few and too much alike."""

Weights = NDArray[np.float32]

_DENSE_SPEAKERS = 2048
_PRODUCT = 1 << 22  # numbers of a product of counts and weights


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


def check_resampling(replicates: int, level: float, seed: int) -> None:
    """Refuse settings that give no sound interval.

    Args:
        replicates: Bootstrap replicates; 0 for no intervals.
        level: Confidence level.
        seed: Of the bootstrap.

    Raises:
        TrialError: one of them is out of range.
    """
    if replicates < 0 or 0 < replicates < 100:
        raise TrialError(f"{replicates} bootstrap replicates given; expected 100 or more, or 0 for no intervals")
    if seed < 0:
        raise TrialError(f"seed {seed} given; expected 0 or more")
    if not 0.5 <= level < 1:
        raise TrialError(f"confidence level {level} given; expected 0.5 to below 1, such as 0.95")


def speaker_weights(speakers: int, replicates: int = 1000, seed: int = 0) -> Weights:
    """How often each speaker is drawn in each replicate.

    The same arguments give the same weights, so that differences between systems are paired.

    Returns:
        (speakers, replicates) float32 whole numbers; each column sums to `speakers`.
    """
    if replicates < 1:
        raise TrialError(f"{replicates} bootstrap replicates given; expected 1 or more")
    rng = np.random.default_rng(seed)
    weights = np.empty((replicates, speakers), np.float32)
    for row in weights:
        row[:] = np.bincount(rng.integers(speakers, size=speakers), minlength=speakers)
    return np.ascontiguousarray(weights.T)


def interval(values: NDArray[np.float64], level: float = 0.95) -> Interval | None:
    """The percentile interval of replicated values; None where too many replicates have none."""
    known = values[np.isfinite(values)]
    if len(known) < max(20, 0.9 * len(values)):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


class PairSides:
    """Which rows of a table of weights the weight of each non-target trial is the product of.

    Args:
        first: (trials,) one speaker of each trial.
        second: (trials,) the other.
        speakers: How many there are. `pad` adds the row that stands beside a speaker who meets himself.
    """

    def __init__(self, first: NDArray[Any], second: NDArray[Any], speakers: int) -> None:
        self.first = first
        self.second = np.where(first == second, speakers, second)
        self.rows = speakers + 1

    def counts(self, values: NDArray[Any] | None = None) -> Any:
        """What each pair of speakers has, as an array or, with many speakers, a sparse one.

        Args:
            values: (trials,) to add up; without them trials are counted.

        Returns:
            (rows, rows) float32.
        """
        if self.rows <= _DENSE_SPEAKERS:
            pair = self.first.astype(np.int64) * self.rows + self.second
            return np.bincount(pair, values, self.rows**2).reshape(self.rows, self.rows).astype(np.float32)
        terms = np.ones(len(self.first), np.float32) if values is None else values.astype(np.float32)
        return sparse.coo_array((terms, (self.first, self.second)), (self.rows, self.rows)).tocsr()  # adds up repeats


def pad(weights: Weights) -> Weights:
    """Weights with a row of ones added, for `PairSides`."""
    return np.concatenate([weights, np.ones((1, weights.shape[1]), np.float32)])


def pair_totals(counts: Any, weights: Weights) -> NDArray[np.float64]:
    """(replicates,): the weight of all trials.

    Args:
        counts: From `PairSides.counts`.
        weights: From `pad`.
    """
    columns = max(64, _PRODUCT // len(weights))  # wide products are quick, but must fit in memory
    parts = []
    for start in range(0, weights.shape[1], columns):
        part = np.ascontiguousarray(weights[:, start : start + columns])
        parts.append(np.einsum("sr,sr->r", part, counts @ part, dtype=np.float64))
    totals: NDArray[np.float64] = np.concatenate(parts)
    return totals
