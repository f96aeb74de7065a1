"""How a system does on groups of trials, and which group has it worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parvox.evaluation.bootstrap import bootstrap
from parvox.evaluation.estimate import Estimate
from parvox.evaluation.groups import Groups
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.rates import ErrorRates, error_rates, resampled_rates
from parvox.evaluation.resampling import MIN_SPEAKERS, Weights, interval
from parvox.evaluation.trials import Speakers, TrialIndex

_FEW_TRIALS = 20
_REPLICATES = 200  # of each group's own EER: there are many groups


@dataclass(frozen=True)
class Group:
    """A system on one group of trials.

    Attributes:
        name: Of the group.
        speakers: Who speak in it.
        rates: At the one threshold that holds for all groups.
        eer: With a threshold of the group's own; None with fewer than 20 trials of a kind.
    """

    name: str
    speakers: int
    rates: ErrorRates
    eer: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "speakers": self.speakers,
            "rates": self.rates.to_dict(),
            "eer": None if self.eer is None else self.eer.to_dict(),
        }


@dataclass(frozen=True)
class Worst:
    """The group with the highest rate of one kind of error.

    Attributes:
        error: "misses" or "false accepts".
        group: Its name.
        rate: Its rate.
        rest: The rate of all other groups together.
        beyond_chance: Whether other speakers would show the same: the interval of the difference, widened for having
            picked the worst of several groups (Bonferroni), leaves zero out. None where unknown.
    """

    error: str
    group: str
    rate: float
    rest: float
    beyond_chance: bool | None

    def sentence(self) -> str:
        """In words."""
        verdict = {
            True: "more than chance explains",
            False: "which may be chance",
            None: "with too few speakers to say whether that is chance",
        }[self.beyond_chance]
        return (
            f"Most {self.error}: {self.group}, {100 * self.rate:.2f} % against {100 * self.rest:.2f} % in the rest, "
            f"{verdict}."
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "error": self.error,
            "group": self.group,
            "rate": self.rate,
            "rest": self.rest,
            "beyond_chance": self.beyond_chance,
        }


@dataclass(frozen=True)
class Breakdown:
    """A system on all groups of one column.

    Attributes:
        system: The system's name.
        column: What the trials are grouped by.
        threshold: The one for all groups.
        groups: In the column's own order.
        worst: For misses and for false accepts, where two groups or more can be compared.
        left_out: Trials of no group.
    """

    system: str
    column: str
    threshold: float
    groups: Sequence[Group]
    worst: Sequence[Worst]
    left_out: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "system": self.system,
            "column": self.column,
            "threshold": self.threshold,
            "groups": [group.to_dict() for group in self.groups],
            "worst": [worst.to_dict() for worst in self.worst],
            "trials_of_no_group": self.left_out,
        }


def break_down(
    system: str,
    scores: NDArray[Any],
    trials: TrialIndex,
    speakers: Speakers,
    groups: Groups,
    threshold: float,
    weights: Weights | None = None,
    level: float = 0.95,
) -> Breakdown:
    """Error rates of each group at one threshold, for in use there is only one.

    Args:
        system: Its name.
        scores: (trials,)
        trials: The trials.
        speakers: Who speaks in them.
        groups: Which group each trial belongs to.
        threshold: Scores at or above it are accepted.
        weights: From `speaker_weights`; without them there are no intervals.
        level: Of the intervals.
    """
    found = []
    for number, name in enumerate(groups.names):
        rows = np.flatnonzero(groups.of_trial == number)
        first, second, target = speakers.enrol[rows], speakers.test[rows], trials.target[rows]
        present = len(np.union1d(first, second))
        used = weights if present >= MIN_SPEAKERS else None
        rates = error_rates(scores[rows], target, first, second, threshold, used, level)
        eer = None
        if min(rates.target_trials, rates.nontarget_trials) >= _FEW_TRIALS:
            spread = None
            if used is not None:
                replicates = bootstrap(scores[rows], target, first, second, used[:, :_REPLICATES], p_targets=())
                spread = interval(replicates.eer, level)
            eer = Estimate(ScoreSet.from_labels(scores[rows], target).eer(), spread)
        found.append(Group(name, present, rates, eer))
    worst = [
        _worst(error, scores, trials.target == (error == "misses"), speakers, groups, threshold, weights, level)
        for error in ("misses", "false accepts")
    ]
    left_out = int(np.count_nonzero(groups.of_trial < 0))
    return Breakdown(
        system, groups.column, float(threshold), found, [each for each in worst if each is not None], left_out
    )


def _worst(
    error: str,
    scores: NDArray[Any],
    kind: NDArray[np.bool_],
    speakers: Speakers,
    groups: Groups,
    threshold: float,
    weights: Weights | None,
    level: float,
) -> Worst | None:
    """The group with the highest rate among those with enough trials; None where there are not two."""
    rejected = scores < np.float64(threshold)
    wrong = rejected if error == "misses" else ~rejected
    counted = kind & (groups.of_trial >= 0)
    trials = np.bincount(groups.of_trial[counted], minlength=len(groups.names))
    errors = np.bincount(groups.of_trial[counted & wrong], minlength=len(groups.names))
    enough = np.flatnonzero(trials >= _FEW_TRIALS)
    if len(enough) < 2:
        return None
    group = int(enough[np.argmax(errors[enough] / trials[enough])])
    rest_trials, rest_errors = trials[enough].sum() - trials[group], errors[enough].sum() - errors[group]
    beyond = None
    if weights is not None:
        inside = counted & (groups.of_trial == group)
        outside = counted & np.isin(groups.of_trial, enough) & ~inside
        replicated = [
            resampled_rates(wrong[rows], speakers.enrol[rows], speakers.test[rows], weights)
            for rows in (inside, outside)
        ]
        present = len(np.union1d(speakers.enrol[inside], speakers.test[inside]))
        spread = interval(replicated[0] - replicated[1], 1 - (1 - level) / len(enough))
        beyond = None if spread is None or present < MIN_SPEAKERS else spread.low > 0
    return Worst(
        error,
        groups.names[group],
        float(errors[group] / trials[group]),
        float(rest_errors / rest_trials),
        beyond,
    )
