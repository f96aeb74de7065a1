"""Thresholds and calibration of a model file, from the dev trials of a corpus."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from parvox.evaluation.settle import Judged, Settled, settle, source_words
from parvox.evaluation.speech import speech_seconds
from parvox.evaluation.trials import TrialIndex
from parvox.export.material import Material


def settle_dev(material: Material, trials: TrialIndex, scores: NDArray[np.float32]) -> Settled:
    """Settle a model's thresholds on the dev trials.

    Args:
        material: Where the utterances are.
        trials: Its dev trials.
        scores: (trials,) cosines.
    """
    wanted, info = set(trials.ids), material.corpus.info
    cuts = [cut for cut in material.corpus.cuts("dev") if cut.id in wanted]
    speaker_of = {cut.id: cut.supervisions[0].speaker for cut in cuts}
    text_of = {cut.id: cut.supervisions[0].text or "" for cut in cuts} if info.text_dependent else None
    speakers = trials.speakers(speaker_of, text_of)
    speech = speech_seconds(cuts)
    seconds = np.array([speech[utterance] for utterance in trials.ids])
    return settle(
        Judged(
            scores,
            trials.target,
            speakers.enrol,
            speakers.test,
            seconds[trials.enrol],
            seconds[trials.test],
            source_words(trials, len(speakers.names), info.synthetic),
        )
    )
