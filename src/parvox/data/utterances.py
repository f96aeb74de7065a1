"""Whole utterances in padded batches, to embed a corpus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from parvox.data.batches import Plans, default_workers, loaded, loader
from parvox.data.recordings import Recordings
from parvox.errors import CorpusError, ParvoxError, RecipeError

if TYPE_CHECKING:
    from lhotse.cut import Cut


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
    recordings = Recordings(cuts, cuts[0].sampling_rate, full_precision=True)
    plans = _plans(recordings.samples, int(max_batch_s * recordings.sample_rate_hz), max_batch_size)
    if order_seed is not None:
        plans = [plans[place] for place in np.random.default_rng(order_seed).permutation(len(plans))]
    workers = default_workers() if workers is None else workers
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
        lengths = self._recordings.samples[numbers]
        waveforms = np.zeros((len(numbers), int(lengths.max())), np.float32)
        try:
            for row, number in enumerate(numbers):
                waveforms[row, : lengths[row]] = self._recordings.read(int(number))
        except ParvoxError as error:
            return error
        ids = [self._recordings.id(int(number)) for number in numbers]
        return UtteranceBatch(torch.from_numpy(waveforms), torch.from_numpy(lengths.copy()), ids)
