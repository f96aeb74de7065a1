"""Text-dependent trials by kind, as RSR2015 and DeepMine report them.

A target speaker may say the right text or another, and so may an impostor (Larcher et al., "Text-dependent speaker
verification: Classifiers, databases and RSR2015", Speech Communication 60, 2014). Only the target speaker with the
right text is to be accepted; each of the other three kinds is measured against those trials by itself, because a
system that hears voices but not words is good at one and useless at another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parvox.corpora.phrases import KINDS, REORDERED
from parvox.evaluation.bootstrap import bootstrap
from parvox.evaluation.estimate import Estimate
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.resampling import Weights, interval
from parvox.evaluation.trials import Speakers, TrialIndex


@dataclass(frozen=True)
class KindResult:
    """One kind of trial that is to be rejected, against target-correct trials.

    Attributes:
        kind: One of `KINDS`, or `REORDERED`: those of the kind target-wrong that say the same words in another order.
        trials: How many there are.
        eer: Equal error rate.
        min_dcf: By p_target.
    """

    kind: str
    trials: int
    eer: Estimate
    min_dcf: dict[float, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kind": self.kind,
            "trials": self.trials,
            "eer": self.eer.to_dict(),
            "min_dcf": {f"{p:g}": estimate.to_dict() for p, estimate in self.min_dcf.items()},
        }


def trial_kinds(trials: TrialIndex, speakers: Speakers) -> NDArray[np.int64]:
    """The kind of each trial: 0 for target-correct, then 1 to 3 as in `KINDS`."""
    same_text = np.ones(len(trials), bool) if speakers.same_text is None else speakers.same_text
    same_speaker = speakers.enrol == speakers.test
    return np.where(same_speaker, np.where(same_text, 0, 1), np.where(same_text, 2, 3))


def wrong_trials(trials: TrialIndex, speakers: Speakers) -> dict[str, NDArray[np.bool_]]:
    """Which trials (trials,) are of each kind that is to be rejected; `REORDERED` where texts are known."""
    kinds = trial_kinds(trials, speakers)
    masks = {kind: kinds == number for number, kind in enumerate(KINDS, 1)}
    if speakers.reordered is not None:
        again = masks[KINDS[0]] & speakers.reordered
        masks = {KINDS[0]: masks[KINDS[0]], REORDERED: again, **masks}
    return masks


def measure_kinds(
    scores: NDArray[Any],
    trials: TrialIndex,
    speakers: Speakers,
    p_targets: Sequence[float] = (0.01, 0.05),
    c_miss: float = 1.0,
    c_fa: float = 1.0,
    weights: Weights | None = None,
    level: float = 0.95,
) -> list[KindResult]:
    """EER and minDCF of each kind that occurs; nothing where all trials say the same text.

    Args:
        scores: (trials,)
        trials: The trials.
        speakers: Who speaks in them, and whether they say the same.
        p_targets: Priors of the minDCF.
        c_miss: Cost of a miss.
        c_fa: Cost of a false accept.
        weights: From `speaker_weights`; without them there are no intervals.
        level: Of the intervals.
    """
    if speakers.same_text is None or speakers.same_text.all():
        return []
    kinds = trial_kinds(trials, speakers)
    found = []
    for kind, wrong in wrong_trials(trials, speakers).items():
        rows = np.flatnonzero((kinds == 0) | wrong)
        count = int(np.count_nonzero(wrong))
        if not count:
            continue
        target = kinds[rows] == 0
        measured = ScoreSet.from_labels(scores[rows], target)
        replicates = None
        if weights is not None:
            replicates = bootstrap(
                scores[rows],
                target,
                speakers.enrol[rows],
                speakers.test[rows],
                weights,
                p_targets=p_targets,
                c_miss=c_miss,
                c_fa=c_fa,
            )
        found.append(
            KindResult(
                kind,
                count,
                Estimate(measured.eer(), None if replicates is None else interval(replicates.eer, level)),
                {
                    p: Estimate(
                        measured.min_dcf(p, c_miss, c_fa),
                        None if replicates is None else interval(replicates.min_dcf[p], level),
                    )
                    for p in p_targets
                },
            )
        )
    return found
