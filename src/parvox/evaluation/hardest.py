"""The trials a system gets most wrong, to listen to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parvox.evaluation.trials import TrialIndex


@dataclass(frozen=True)
class HardTrial:
    """One trial.

    Attributes:
        enrol: Utterance id.
        test: Utterance id.
        enrol_path: Its recording; empty where unknown.
        test_path: Its recording; empty where unknown.
        target: Whether it is the same speaker.
        score: What the system gave.
        error: Whether the decision at the threshold is wrong.
    """

    enrol: str
    test: str
    enrol_path: str
    test_path: str
    target: bool
    score: float
    error: bool

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


def hardest_trials(
    scores: NDArray[Any],
    trials: TrialIndex,
    threshold: float,
    paths: Mapping[str, str] | None = None,
    count: int = 20,
) -> list[HardTrial]:
    """The lowest target scores and the highest non-target scores, half of each, the worst first.

    Args:
        scores: (trials,)
        trials: The trials.
        threshold: Scores at or above it are accepted.
        paths: The recording of each utterance.
        count: How many in all.
    """
    paths = paths or {}
    found = []
    for target in (True, False):
        rows = np.flatnonzero(trials.target == target)
        wrongness = -scores[rows] if target else scores[rows]
        most = min((count + target) // 2, len(rows))
        chosen = np.argpartition(-wrongness, most - 1)[:most] if most else np.empty(0, np.int64)
        for row in rows[chosen[np.argsort(-wrongness[chosen], kind="stable")]]:
            enrol, test = trials.ids[trials.enrol[row]], trials.ids[trials.test[row]]
            accepted = bool(scores[row] >= np.float64(threshold))
            found.append(
                HardTrial(
                    enrol,
                    test,
                    paths.get(enrol, ""),
                    paths.get(test, ""),
                    target,
                    float(scores[row]),
                    accepted != target,
                )
            )
    return found
