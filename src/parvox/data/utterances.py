"""Whole utterances in padded batches, to embed a corpus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from parvox.corpora.shards import by_shard
from parvox.data.batches import Plans, default_workers, loaded, loader
from parvox.data.recordings import Recordings
from parvox.data.shards import read_shard
from parvox.errors import CorpusError, ParvoxError, RecipeError

if TYPE_CHECKING:
    from lhotse.cut import Cut

_READ_AHEAD = 8  # batches of a shard that are sorted by length together


@dataclass(eq=False)
class UtteranceBatch:
    """Whole utterances.

    Attributes:
        waveforms: (batch, samples) float32, zero where padded.
        lengths: (batch,) int64 valid samples.
        ids: Utterance ids.
    """

    waveforms: Tensor
    lengths: Tensor
    ids: list[str]


def iterate_utterances(
    cuts: Iterable[Cut],
    *,
    max_batch_s: float = 60.0,
    max_batch_size: int = 64,
    workers: int | None = None,
    order_seed: int | None = None,
) -> Iterator[UtteranceBatch]:
    """All utterances, whole, those of like length together.

    The longest come first, so that what does not fit in memory fails at once. The same cuts give the same batches.
    What lies in shards is read as it lies there, shard after shard: only utterances close to each other are then sorted
    by length.

    Args:
        cuts: Cuts of one rate.
        max_batch_s: Most seconds in a batch, padding included; a longer utterance has one to itself.
        max_batch_size: Most utterances in a batch.
        workers: Loading processes; chosen by the processors at hand if None.
        order_seed: For batches in an order drawn from this seed, as training wants them.

    Raises:
        CorpusError: There are no cuts, or a recording cannot be read.
        RecipeError: `workers` is below 0.
    """
    if workers is not None and workers < 0:
        raise RecipeError(f"workers {workers} given; expected 0 or more")
    cuts = list(cuts)
    if not cuts:
        raise CorpusError("no utterances given; expected at least one")
    workers = default_workers() if workers is None else workers
    most_samples = int(max_batch_s * cuts[0].sampling_rate)
    shards = by_shard(cuts)
    in_files = shards.pop("", [])
    if shards:
        if order_seed is not None or in_files:
            raise CorpusError("utterances in shards given where others are expected; give the corpus they were made of")
        streamed = _Streamed(shards, most_samples, max_batch_size)
        yield from loaded(loader(streamed, None, min(workers, len(shards))))
        return
    recordings = Recordings(cuts, cuts[0].sampling_rate, full_precision=True)
    plans = _plans(recordings.samples, most_samples, max_batch_size)
    if order_seed is not None:
        plans = [plans[place] for place in np.random.default_rng(order_seed).permutation(len(plans))]
    yield from loaded(loader(_Padded(recordings), Plans(plans), min(workers, len(plans) // 4)))


def _plans(samples: np.ndarray, most_samples: int, most: int) -> list[np.ndarray]:
    """Numbers of the utterances in each batch, the longest first."""
    order = np.argsort(-samples, kind="stable")
    plans: list[np.ndarray] = []
    start = 0
    while start < len(order):
        fitting = max(1, most_samples // int(samples[order[start]]))
        plans.append(order[start : start + min(most, fitting)])
        start += len(plans[-1])
    return plans


class _Padded(Dataset[Any]):
    def __init__(self, recordings: Recordings) -> None:
        self._recordings = recordings

    def __getitem__(self, numbers: np.ndarray) -> UtteranceBatch | ParvoxError:
        try:
            waveforms = [self._recordings.read(int(number)) for number in numbers]
        except ParvoxError as error:
            return error
        return _padded([self._recordings.id(int(number)) for number in numbers], waveforms)


class _Streamed(IterableDataset[Any]):
    """Utterances of shards; each loading process reads shards of its own."""

    def __init__(self, shards: dict[str, list[Cut]], most_samples: int, most: int) -> None:
        self._shards, self._most_samples, self._most = list(shards.items()), most_samples, most

    def __iter__(self) -> Iterator[UtteranceBatch | ParvoxError]:
        worker = get_worker_info()
        mine = self._shards if worker is None else self._shards[worker.id :: worker.num_workers]
        ahead: list[tuple[str, NDArray[np.float32]]] = []
        samples = 0
        try:
            for shard, cuts in mine:
                for cut, waveform in read_shard(shard, cuts):
                    ahead.append((cut.id, waveform))
                    samples += len(waveform)
                    if len(ahead) >= _READ_AHEAD * self._most or samples >= _READ_AHEAD * self._most_samples:
                        yield from self._sorted(ahead)
                        ahead, samples = [], 0
            yield from self._sorted(ahead)
        except ParvoxError as error:
            yield error

    def _sorted(self, ahead: list[tuple[str, NDArray[np.float32]]]) -> Iterator[UtteranceBatch]:
        lengths = np.array([len(waveform) for _, waveform in ahead], np.int64)
        for numbers in _plans(lengths, self._most_samples, self._most):
            yield _padded([ahead[number][0] for number in numbers], [ahead[number][1] for number in numbers])


def _padded(ids: list[str], waveforms: Sequence[NDArray[np.float32]]) -> UtteranceBatch:
    lengths = [len(waveform) for waveform in waveforms]
    together = np.zeros((len(ids), max(lengths)), np.float32)
    for row, waveform in zip(together, waveforms, strict=True):
        row[: len(waveform)] = waveform
    return UtteranceBatch(torch.from_numpy(together), torch.tensor(lengths), ids)
