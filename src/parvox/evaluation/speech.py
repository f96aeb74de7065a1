"""Seconds of net speech of utterances, judged as `parvox verify` judges a recording."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from parvox.progress import progress
from parvox.runtime.speech import find_speech

if TYPE_CHECKING:
    from lhotse.cut import Cut


def speech_seconds(cuts: Iterable[Cut], workers: int | None = None) -> dict[str, float]:
    """Seconds of speech in each utterance, by its id.

    Args:
        cuts: Of one rate.
        workers: Loading processes; chosen by the processors at hand if None.

    Raises:
        CorpusError: there are none, or a recording cannot be read.
    """
    from parvox.data import iterate_utterances

    by_id = {cut.id: cut for cut in cuts}
    rate = next((cut.sampling_rate for cut in by_id.values()), 0)
    found = {}
    bar = progress(iterate_utterances(by_id.values(), workers=workers), "find speech", unit="batch")
    for batch in bar:
        for utterance, waveform, length in zip(batch.ids, batch.waveforms, batch.lengths, strict=True):
            found[utterance] = find_speech(waveform[:length].numpy(), rate).seconds
    return found
