"""Which utterance comes when: a seeded order that any process can compute for any epoch."""

from __future__ import annotations

import numpy as np

_ORDER, _WITHIN_SPEAKER = 1, 2  # keep these random streams apart from each other and from those of items


class EpochOrder:
    """An endless sequence of utterances, dealt out in epochs.

    Plainly, it is one permutation of all utterances after another; balanced, one permutation of all speakers after
    another, each with their next utterance. Epochs are consecutive pieces of it, so that no utterance is heard twice
    before all (of the speaker) were heard once, however long an epoch is.

    Args:
        labels: (utterances,) int64, the speaker of each, from 0 without gaps.
        length: Items an epoch; as many as there are utterances if None.
        speaker_balanced: Whether all speakers come equally often.
        seed: Seed of the order, 0 or more.
    """

    def __init__(self, labels: np.ndarray, length: int | None, *, speaker_balanced: bool, seed: int) -> None:
        self.length = len(labels) if length is None else length
        self._seed = seed
        self._balanced = speaker_balanced
        self._round = int(labels.max()) + 1 if speaker_balanced else len(labels)
        keys = np.random.Generator(np.random.PCG64((_WITHIN_SPEAKER, seed))).random(len(labels))
        self._by_speaker = np.lexsort((keys, labels))
        self._counts = np.bincount(labels)
        self._starts = np.cumsum(self._counts) - self._counts

    def epoch(self, epoch: int) -> np.ndarray:
        """(length,) int64, the utterances of an epoch in order."""
        start = epoch * self.length
        first, last = start // self._round, (start + self.length - 1) // self._round
        rounds = np.concatenate([self._one_round(number) for number in range(first, last + 1)])
        skipped = start - first * self._round
        return rounds[skipped : skipped + self.length]

    def _one_round(self, number: int) -> np.ndarray:
        order = np.random.Generator(np.random.PCG64((_ORDER, self._seed, number))).permutation(self._round)
        if not self._balanced:
            return order
        chosen: np.ndarray = self._by_speaker[self._starts[order] + number % self._counts[order]]
        return chosen
