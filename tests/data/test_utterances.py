from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_corpus import RATE, write_cut

from parvox.data import iterate_utterances
from parvox.errors import CorpusError


@pytest.mark.parametrize("workers", [0, 2])
def test_every_utterance_comes_whole_once_in_batches_of_bounded_size(tmp_path: Path, workers: int) -> None:
    rng = np.random.default_rng(0)
    sizes = [int(size) for size in rng.integers(1000, 20000, 40)] + [80000]
    cuts = [write_cut(tmp_path / f"u{i}.wav", rng.uniform(-0.5, 0.5, size)) for i, size in enumerate(sizes)]
    batches = list(iterate_utterances(cuts, max_batch_s=3.0, max_batch_size=8, workers=workers))
    assert sorted(name for batch in batches for name in batch.ids) == sorted(cut.id for cut in cuts)
    lengths = [int(length) for batch in batches for length in batch.lengths]
    assert lengths == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch.ids) <= 8
        assert batch.waveforms.numel() <= 3 * RATE or len(batch.ids) == 1
        for waveform, length, name in zip(batch.waveforms, batch.lengths, batch.ids, strict=True):
            expected, _ = soundfile.read(tmp_path / f"{name}.wav", dtype="float32")
            np.testing.assert_array_equal(waveform[:length].numpy(), expected)
            assert not waveform[length:].any()
    assert len(batches[0].ids) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_recordings_and_empty_sets_are_corpus_errors(tmp_path: Path, workers: int) -> None:
    cuts = [write_cut(tmp_path / f"u{i}.wav", np.ones(1000 + i) * 0.1) for i in range(8)]
    (tmp_path / "u3.wav").unlink()
    with pytest.raises(CorpusError, match=r"u3\.wav"):
        list(iterate_utterances(cuts, max_batch_size=2, workers=workers))
    with pytest.raises(CorpusError, match="no utterances"):
        list(iterate_utterances([], workers=workers))


def test_a_seed_shuffles_the_same_batches(tmp_path: Path) -> None:
    cuts = [write_cut(tmp_path / f"u{i}.wav", np.ones(1000 + i) * 0.1) for i in range(20)]
    plain, one, again, other = (
        [tuple(batch.ids) for batch in iterate_utterances(cuts, max_batch_size=2, workers=0, order_seed=seed)]
        for seed in (None, 1, 1, 2)
    )
    assert one == again
    assert len({tuple(plain), tuple(one), tuple(other)}) == 3
    assert sorted(plain) == sorted(one) == sorted(other)
