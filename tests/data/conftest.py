"""Tiny corpora for the tests of batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_corpus import MadeCorpus, write_cut


@pytest.fixture
def make_corpus(tmp_path: Path) -> Callable[..., MadeCorpus]:
    """``make_corpus([3, 1, 2])``: so many utterances of each speaker, 0.3 to 0.9 s, with 2 noises and 2 rooms."""

    def make(utterances: list[int]) -> MadeCorpus:
        rng = np.random.default_rng(len(utterances))
        train = [
            write_cut(
                tmp_path / f"spk{speaker}-{number}.flac",
                rng.uniform(-0.5, 0.5, rng.integers(4800, 14400)),
                f"spk{speaker}",
            )
            for speaker, count in enumerate(utterances)
            for number in range(count)
        ]
        noises = [write_cut(tmp_path / f"noise{i}.wav", rng.uniform(-0.2, 0.2, 3000 + 20000 * i)) for i in range(2)]
        rooms = []
        for number in range(2):
            rir = rng.standard_normal(4000) * np.exp(-np.arange(4000) / 600) * 0.05
            rir[: 50 + 100 * number] = 0
            rir[50 + 100 * number] = 0.9
            rooms.append(write_cut(tmp_path / f"room{number}.wav", rir))
        return MadeCorpus(train, noises, rooms)

    return make
