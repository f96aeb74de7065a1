"""Training batches of a prepared corpus, the same whoever loads them."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from parvox.data.batch import Batch, BatchMaker, BatchPlan
from parvox.data.order import EpochOrder
from parvox.data.recordings import Recordings
from parvox.data.settings import AugmentationSettings, DataSettings
from parvox.data.whole import WholeUtterances
from parvox.errors import CorpusError, ParvoxError, RecipeError, TrainingError
from parvox.processors import available_processors

if TYPE_CHECKING:
    from lhotse.cut import Cut

_MOST_WORKERS = 8
_MIB = 1 << 20


class Corpus(Protocol):
    """What batches need of a `parvox.corpora.prepared.PreparedCorpus`."""

    def cuts(self, split: str, *, lazy: bool = False) -> Iterable[Cut]:
        """The cuts of a split; lazy, they are not all held in memory."""
        ...

    def noise(self) -> Iterable[Cut] | None:
        """Noises for augmentation, if it has any."""
        ...

    def rirs(self) -> Iterable[Cut] | None:
        """Room impulse responses for augmentation, if it has any."""
        ...


class Batches:
    """The training batches of one process.

    What is in a batch depends on the seed, the epoch and the position in the epoch alone: not on the number of
    workers, and of processes only in that they share out the positions. Processes that together take as many items a
    step take the same items each step.

    Args:
        corpus: Where the recordings come from.
        data: How they become items.
        augmentation: What is drawn for them.
        seed: 0 or more; decides the order and every draw.
        rank: Number of this process.
        world_size: How many processes there are.
        pin_memory: Put batches in page-locked memory, for a quick way to a GPU.
        with_phrases: Say in each batch which phrases its items are.

    Attributes:
        speakers: Names of the classes at the original speed, sorted: the speakers in training, or, for classes
            speaker_phrase, each speaker with each of their phrases. Class `name + k * len(speakers)` is that of the
            k-th speed, 0 the original.
        classes: Classes that a classifier must tell apart; 0 for speech without labels.
        labelled: Whether the corpus names speakers; where it does not, every label is -1.
        phrases: The phrases in training, sorted; empty unless the classes or `with_phrases` ask for them.
        sample_rate_hz: Rate of the waveforms.
        batches_per_epoch: Full batches an epoch; what is left over is dropped.
        whole: The utterances that items are cut from.
        note: What the user should know of the items; empty if nothing.

    Raises:
        CorpusError: The corpus has no usable training speech.
        RecipeError: The settings do not fit the corpus.
    """

    def __init__(
        self,
        corpus: Corpus,
        data: DataSettings,
        augmentation: AugmentationSettings | None = None,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
        with_phrases: bool = False,
    ) -> None:
        if seed < 0:
            raise RecipeError(f"seed {seed} given; expected 0 or more")
        augmentation = augmentation or AugmentationSettings()
        cuts = iter(corpus.cuts("train", lazy=True))
        first = next(cuts, None)
        if first is None:
            raise CorpusError("the corpus has no training utterances: prepare it again with a train split")
        self.sample_rate_hz: int = first.sampling_rate
        memory = data.cache_audio_mib * _MIB
        noise = rirs = None
        if augmentation.noise_probability > 0:
            noise = self._extra("noise", corpus.noise(), "noise_probability", memory // 8)
        if augmentation.reverberation_probability > 0:
            rirs = self._extra("room impulse responses", corpus.rirs(), "reverberation_probability", memory // 8)
        memory -= sum(recordings.cache_bytes for recordings in (noise, rirs) if recordings is not None)
        pairs = data.classes == "speaker_phrase"
        speech = Recordings(
            itertools.chain([first], cuts),
            self.sample_rate_hz,
            cache_bytes=memory,
            with_phrases=pairs or with_phrases,
        )
        self.labelled = bool(speech.speakers)
        if self.labelled:
            self._utterances, labels, self.speakers = _training_speakers(speech, data.min_utterances_per_speaker)
            by_speaker = labels[self._utterances]
        else:
            data.expect_no_labels_asked_for()
            self._utterances, labels, self.speakers = np.arange(len(speech)), np.full(len(speech), -1), []
            by_speaker = np.zeros(len(speech), np.int64)
        phrases = None
        self.phrases: list[str] = []
        if pairs or with_phrases:
            phrases, self.phrases = _training_phrases(speech, self._utterances)
        if pairs and phrases is not None:
            labels, self.speakers = _speaker_phrases(labels, self.speakers, phrases, self.phrases)
        self.classes = len(self.speakers) * (1 + len(data.speed_perturbation))
        self._order = EpochOrder(
            by_speaker, data.utterances_per_epoch, speaker_balanced=data.speaker_balanced, seed=seed
        )
        self._rank, self._world_size, self._size = rank, world_size, data.batch_size
        self.batches_per_epoch = self._order.length // (self._size * world_size)
        if self.batches_per_epoch < 1:
            raise RecipeError(
                f"an epoch has {self._order.length} utterances, but one step takes {self._size * world_size} "
                f"({self._size} on each of {world_size} processes): lower data.batch_size, "
                "or raise data.utterances_per_epoch"
            )
        self.note = _unheard(data, speech.samples[self._utterances] / self.sample_rate_hz)
        factors = (1.0, *data.speed_perturbation)
        self.whole = WholeUtterances(speech, self._utterances, labels, len(self.speakers), factors)
        maker = BatchMaker(speech, labels, len(self.speakers), data, augmentation, noise, rirs, seed, phrases)
        workers = default_workers() if data.workers is None else data.workers
        self._plans = Plans([])
        self._loader: DataLoader[Any] | None = loader(_Made(maker), self._plans, workers, pin_memory)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, in order. One epoch at a time: another call ends the one before.

        Args:
            epoch: Which one, from 0.
            start_batch: Where to begin; the batches before are not loaded, those after are what they always are.

        Raises:
            CorpusError: A recording cannot be read any more.
            TrainingError: A worker died.
        """
        if self._loader is None:
            raise ValueError("these batches are closed")
        order = self._utterances[self._order.epoch(epoch)]
        plans: list[BatchPlan] = []
        for batch in range(start_batch, self.batches_per_epoch):
            first = (batch * self._world_size + self._rank) * self._size
            positions = np.arange(first, first + self._size)
            plans.append(BatchPlan(epoch, positions, order[positions]))
        self._plans.plans = plans
        before = time.perf_counter()
        for batch in loaded(self._loader):
            yield dataclasses.replace(batch, wait_s=time.perf_counter() - before)
            before = time.perf_counter()

    def close(self) -> None:
        """End the workers; they also end when this object is no longer used."""
        self._loader = None

    def _extra(self, what: str, cuts: Iterable[Cut] | None, setting: str, memory: int) -> Recordings:
        cuts = [] if cuts is None else list(cuts)
        if not cuts:
            raise RecipeError(
                f"augmentation: {setting} is above 0, but the corpus has no {what}: "
                f"prepare it with some, or set augmentation.{setting} to 0"
            )
        return Recordings(
            cuts, self.sample_rate_hz, cache_bytes=memory, full_precision=setting == "reverberation_probability"
        )


def default_workers() -> int:
    """Loading processes for the processors at hand: none on two or fewer, where they would only be in the way."""
    processors = available_processors()
    beside = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))  # training processes on this machine, by torchrun
    return 0 if processors <= 2 else min(_MOST_WORKERS, processors // 2 // beside)


def loader(made: Dataset[Any], plans: Sampler[Any] | None, workers: int, pin_memory: bool = False) -> DataLoader[Any]:
    """A torch loader that makes one batch of each plan.

    Args:
        made: What makes a batch of a plan.
        plans: The plans, looked at anew for each pass; None for a stream, which has its own.
        workers: Processes.
        pin_memory: Whether batches go to page-locked memory.
    """
    # Forked workers start at once and share memory and open caches. Forking beside threads is safe as long as the
    # child takes no lock that a thread may hold: workers read files and compute with NumPy, soxr and one torch thread
    # (which torch sets), and everything they need is imported before.
    fork = workers > 0 and sys.platform == "linux"
    return DataLoader(
        made,
        batch_size=None,
        sampler=plans,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        multiprocessing_context=multiprocessing.get_context("fork") if fork else None,
        generator=torch.Generator(),  # its own, or it would draw from torch's global one at each pass
    )


def loaded(batches: DataLoader[Any]) -> Iterator[Any]:
    """What a loader makes, errors raised.

    Raises:
        ParvoxError: What was handed over in place of a batch.
        TrainingError: A worker died.
    """
    try:
        for made in batches:
            if isinstance(made, ParvoxError):
                raise made
            yield made
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise TrainingError(
            "a loading process died, most likely for want of memory or of shared memory (/dev/shm): "
            "lower data.workers or data.batch_size, or give the container more --shm-size"
        ) from error


class _Made(Dataset[Any]):
    """Makes batches of plans; hands errors over as values, for torch would wrap them in a stack trace."""

    def __init__(self, maker: BatchMaker) -> None:
        self._maker = maker

    def __getitem__(self, plan: BatchPlan) -> Batch | ParvoxError:
        before = time.perf_counter()
        try:
            batch = self._maker.make(plan)
        except ParvoxError as error:
            return error
        batch.load_s = time.perf_counter() - before
        return batch


class Plans(Sampler[Any]):
    """Hands plans out in order."""

    def __init__(self, plans: Sequence[Any]) -> None:
        self.plans = plans

    def __iter__(self) -> Iterator[Any]:
        return iter(self.plans)

    def __len__(self) -> int:
        return len(self.plans)


def _as_it_is(value: Any) -> Any:
    return value


def _unheard(data: DataSettings, lengths_s: np.ndarray) -> str:
    """A note where items that begin at the start end before many an utterance does."""
    longer = float((lengths_s > data.crop_s).mean())
    if data.crop_from != "start" or longer < 0.1:
        return ""
    return (
        f"data.crop_s: {100 * longer:.0f} % of the utterances are longer than {data.crop_s:g} s, and how they end is "
        f"never heard; {np.quantile(lengths_s, 0.9):.1f} s hold nine in ten of them"
    )


def _training_speakers(speech: Recordings, fewest: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Utterances in training, (utterances,) labels of all recordings (-1 outside training), and the speakers."""
    if (speech.labels < 0).any():
        nameless = speech.id(int(np.argmin(speech.labels)))
        raise CorpusError(f"training utterance {nameless} names no speaker: prepare the corpus again")
    kept = np.bincount(speech.labels, minlength=len(speech.speakers)) >= fewest
    if not kept.any():
        raise RecipeError(f"no speaker has {fewest} training utterances: lower data.min_utterances_per_speaker")
    labels = np.where(kept, np.cumsum(kept) - 1, -1)[speech.labels]
    speakers = [name for name, keep in zip(speech.speakers, kept, strict=True) if keep]
    return np.flatnonzero(labels >= 0), labels, speakers


def _training_phrases(speech: Recordings, utterances: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(recordings,) phrases of all recordings (-1 for those that only speakers left out say), and the phrases."""
    said = np.unique(speech.phrase_labels[utterances])
    place = np.full(len(speech.phrases), -1)
    place[said] = np.arange(len(said))
    return place[speech.phrase_labels], [speech.phrases[label] for label in said.tolist()]


def _speaker_phrases(
    labels: np.ndarray, speakers: list[str], phrases: np.ndarray, names: list[str]
) -> tuple[np.ndarray, list[str]]:
    """(recordings,) labels of pairs (-1 outside training), and the pairs that there are, sorted."""
    pairs, place = np.unique(np.where(labels >= 0, labels * len(names) + phrases, -1), return_inverse=True)
    outside = int(pairs[0] < 0)
    found = [f"{speakers[pair // len(names)]}: {names[pair % len(names)]}" for pair in pairs[outside:].tolist()]
    return place - outside, found
