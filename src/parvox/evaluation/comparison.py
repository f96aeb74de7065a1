"""Systems against each other on the same trials."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from parvox.evaluation.bootstrap import Replicates
from parvox.evaluation.estimate import Estimate
from parvox.evaluation.rates import wins
from parvox.evaluation.resampling import Interval, interval
from parvox.evaluation.results import Difference, SystemResult
from parvox.evaluation.trials import TrialIndex


def differences(
    results: Sequence[SystemResult], resampled: Mapping[str, Replicates], trials: TrialIndex, level: float
) -> list[Difference]:
    """Every two systems against each other, in EER and minDCF, replicate by replicate."""
    found = []
    for one, other in itertools.combinations(results, 2):
        won = wins(one.scores, other.scores, trials.target, (one.eer_threshold, other.eer_threshold))
        measures: list[tuple[str, float, Callable[[Replicates], NDArray[np.float64]]]] = [
            ("EER", one.eer.value - other.eer.value, lambda replicates: replicates.eer)
        ]
        for p in one.min_dcf:
            value = one.min_dcf[p].value - other.min_dcf[p].value
            measures.append((f"minDCF({p:g})", value, lambda replicates, p=p: replicates.min_dcf[p]))  # type: ignore[misc]
        for measure, value, replicated in measures:
            spread: Interval | None = None
            p_value = None
            if one.name in resampled and other.name in resampled:
                each = replicated(resampled[one.name]) - replicated(resampled[other.name])
                spread = interval(each, level)
                p_value = None if spread is None else _p_value(each)
            found.append(Difference(one.name, other.name, measure, Estimate(value, spread), p_value, *won))
    return found


def _p_value(each: NDArray[np.float64]) -> float:
    known = each[np.isfinite(each)]
    side = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
    return min(1.0, 2 * (side + 1) / (len(known) + 1))  # never zero: more replicates might have found one
