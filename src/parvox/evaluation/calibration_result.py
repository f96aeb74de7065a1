"""How well a calibration holds on trials it was not fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parvox.evaluation.calibration import (
    Calibration,
    ReliabilityPoint,
    cllr_estimate,
    min_cllr,
    reliability,
)
from parvox.evaluation.estimate import Estimate
from parvox.evaluation.measures import ScoreSet, bayes_threshold, dcf_weights
from parvox.evaluation.rates import resampled_rates
from parvox.evaluation.resampling import Weights, interval


@dataclass(frozen=True)
class CalibrationResult:
    """Calibrated scores judged.

    Attributes:
        calibration: What made them.
        cllr: Their cost in bits.
        min_cllr: The least that any rising map could reach; what is between the two is lost by calibration.
        act_dcf: By p_target, the detection cost at Bayes' threshold.
        points: Claimed against observed evidence.
    """

    calibration: Calibration
    cllr: Estimate
    min_cllr: float
    act_dcf: dict[float, Estimate]
    points: Sequence[ReliabilityPoint]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "calibration": self.calibration.to_dict(),
            "cllr": self.cllr.to_dict(),
            "min_cllr": self.min_cllr,
            "act_dcf": {f"{p:g}": estimate.to_dict() for p, estimate in self.act_dcf.items()},
            "reliability": [
                {
                    "claimed": point.claimed,
                    "observed": point.observed,
                    "low": None if point.interval is None else point.interval.low,
                    "high": None if point.interval is None else point.interval.high,
                    "target_trials": point.targets,
                    "nontarget_trials": point.nontargets,
                }
                for point in self.points
            ],
        }


def judge_calibration(
    calibration: Calibration,
    llr: NDArray[Any],
    target: NDArray[np.bool_],
    first: NDArray[Any],
    second: NDArray[Any],
    p_targets: Sequence[float] = (0.01, 0.05),
    c_miss: float = 1.0,
    c_fa: float = 1.0,
    weights: Weights | None = None,
    level: float = 0.95,
) -> CalibrationResult:
    """Judge log-likelihood ratios.

    Args:
        calibration: What made them.
        llr: (trials,)
        target: (trials,)
        first: (trials,) enrolment speakers, rows of `weights`.
        second: (trials,) test speakers.
        p_targets: Priors of the actDCF.
        c_miss: Cost of a miss.
        c_fa: Cost of a false accept.
        weights: From `speaker_weights`; without them there are no intervals.
        level: Of the intervals.
    """
    scores = ScoreSet.from_labels(llr, target)
    act_dcf = {}
    for p in p_targets:
        spread = None
        if weights is not None:
            rejected = llr < np.float64(bayes_threshold(p, c_miss, c_fa))
            weight_miss, weight_fa = dcf_weights(p, c_miss, c_fa)
            misses = resampled_rates(rejected[target], first[target], second[target], weights)
            accepts = resampled_rates(~rejected[~target], first[~target], second[~target], weights)
            spread = interval(weight_miss * misses + weight_fa * accepts, level)
        act_dcf[p] = Estimate(scores.act_dcf(p, c_miss, c_fa), spread)
    return CalibrationResult(
        calibration,
        cllr_estimate(llr, target, first, second, weights, level),
        min_cllr(scores.target, scores.nontarget),
        act_dcf,
        reliability(llr, target, first, second, weights, level),
    )
