"""Training utterances whole, for what is computed of each once and cut like the items afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from parvox.data.batch import faster
from parvox.data.recordings import Recordings


class WholeUtterance(NamedTuple):
    """One training utterance at one speed.

    Attributes:
        id: The utterance's id.
        speed: Factor by which it is played faster; 1 for the original.
        label: Its class.
        waveform: (samples,) float32, clean.
    """

    id: str
    speed: float
    label: int
    waveform: np.ndarray


class WholeUtterances:
    """The training utterances at every speed, by number: all at the first speed, then all at the next.

    Args:
        speech: The recordings.
        utterances: (utterances,) numbers of those in training.
        labels: (recordings,) the speaker of each.
        speakers: How many there are.
        factors: Speed factors, the original's 1 first.
    """

    def __init__(
        self, speech: Recordings, utterances: np.ndarray, labels: np.ndarray, speakers: int, factors: tuple[float, ...]
    ) -> None:
        self._speech, self._utterances, self._labels = speech, utterances, labels
        self._speakers, self._factors = speakers, factors
        self.sample_rate_hz = speech.sample_rate_hz

    def __len__(self) -> int:
        return len(self._utterances) * len(self._factors)

    def __getitem__(self, number: int) -> WholeUtterance:
        """Read one.

        Raises:
            CorpusError: The recording cannot be read.
        """
        perturbation, place = divmod(number, len(self._utterances))
        utterance, factor = int(self._utterances[place]), self._factors[perturbation]
        label = int(self._labels[utterance]) + perturbation * self._speakers
        waveform = faster(self._speech.read(utterance), factor, self.sample_rate_hz)
        return WholeUtterance(self._speech.id(utterance), factor, label, waveform)

    def names(self) -> Iterator[tuple[str, float]]:
        """Id and speed of each, in order, without reading any."""
        for factor in self._factors:
            for utterance in self._utterances.tolist():
                yield self._speech.id(utterance), factor

    @property
    def seconds(self) -> float:
        """How long they are together, at every speed."""
        original = float(self._speech.samples[self._utterances].sum()) / self.sample_rate_hz
        return sum(original / factor for factor in self._factors)
