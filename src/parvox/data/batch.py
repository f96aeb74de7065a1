"""A batch, and how it is drawn."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import soxr
import torch
from torch import Tensor

from parvox.data.random_erasing import DRAWS, RandomErasingSettings
from parvox.data.recordings import Recordings
from parvox.data.settings import AugmentationSettings, DataSettings

_ITEM = 3  # keeps the random stream of items apart from that of the order
RIR_LEAD = 32  # samples kept before the direct path of a room impulse response, which hold its rise


class Crop(NamedTuple):
    """Which part of its utterance an item is, before anything is added to it.

    Attributes:
        start: First sample of the utterance as it is played at `speed`.
        samples: Samples of the utterance so played; where the item is longer, the utterance starts over.
        speed: Factor; 1 for the original.
    """

    start: int
    samples: int
    speed: float


@dataclass(eq=False)
class Batch:
    """Training items, and what was drawn to augment them.

    Attributes:
        waveforms: (batch, samples) float32, cropped and speed-perturbed, otherwise clean.
        labels: (batch,) int64 classes.
        phrases: (batch,) int64 phrases; None unless they are asked for.
        ids: Utterance ids.
        crops: Which part of its utterance each item is; empty for items that were not cut by `BatchMaker`.
        noise_rows: (noisy,) int64, the rows that get noise; None without any, as for all that follow.
        noise: (noisy, samples) float32.
        snr_db: (noisy,) float32.
        rir_rows: (reverberated,) int64, the rows that are played in a room.
        rirs: (reverberated, taps) float32 impulse responses, the direct path at tap `RIR_LEAD`.
        gain_db: (batch,) float32.
        time_masks: (batch, masks, 2) float32, each mask's width in frames and its place from 0 to 1.
        frequency_masks: (batch, masks, 2) float32, likewise in bins.
        erased: What Random Erasing does to the features; None without.
        erasing: (batch, `DRAWS`) float32 draws that say where.
        teacher_erasing: The same for the features that a teacher hears; None where it hears them unerased.
        erasing_seed: Of the noise that is written there.
        load_s: Seconds it took to make.
        wait_s: Seconds the training loop waited for it.
    """

    waveforms: Tensor
    labels: Tensor
    ids: list[str]
    phrases: Tensor | None = None
    crops: list[Crop] = field(default_factory=list)
    noise_rows: Tensor | None = None
    noise: Tensor | None = None
    snr_db: Tensor | None = None
    rir_rows: Tensor | None = None
    rirs: Tensor | None = None
    gain_db: Tensor | None = None
    time_masks: Tensor | None = None
    frequency_masks: Tensor | None = None
    erased: RandomErasingSettings | None = None
    erasing: Tensor | None = None
    teacher_erasing: Tensor | None = None
    erasing_seed: int = 0
    load_s: float = 0.0
    wait_s: float = 0.0

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The batch on a device; `non_blocking` overlaps the copy with computation if the batch is pinned."""
        moved: dict[str, Any] = {
            name: tensor.to(device, non_blocking=non_blocking) for name, tensor in self.tensors().items()
        }
        return dataclasses.replace(self, **moved)

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory."""
        pinned: dict[str, Any] = {name: tensor.pin_memory() for name, tensor in self.tensors().items()}
        return dataclasses.replace(self, **pinned)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors it holds, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


@dataclass(frozen=True)
class BatchPlan:
    """Which items make a batch: plain numbers that travel to a worker.

    Attributes:
        epoch: Which epoch.
        positions: (batch,) places in the epoch, over all processes.
        utterances: (batch,) numbers of the recordings.
    """

    epoch: int
    positions: np.ndarray
    utterances: np.ndarray


class BatchMaker:
    """Makes batches from plans.

    An item is determined by seed, epoch and its position in the epoch over all processes; nothing is remembered from
    one item to the next.

    Args:
        speech: The utterances.
        labels: (utterances,) int64, the speaker of each.
        speakers: How many there are.
        settings: How items are cut.
        augmentation: What is drawn for them.
        noise: Noises, if any.
        rirs: Room impulse responses, if any.
        seed: 0 or more.
        phrases: (utterances,) int64, the phrase of each, if batches are to say it.
    """

    def __init__(
        self,
        speech: Recordings,
        labels: np.ndarray,
        speakers: int,
        settings: DataSettings,
        augmentation: AugmentationSettings,
        noise: Recordings | None,
        rirs: Recordings | None,
        seed: int,
        phrases: np.ndarray | None = None,
    ) -> None:
        self._phrases = phrases
        self._speech, self._labels, self._speakers = speech, labels, speakers
        self._noise, self._rirs = noise, rirs
        self._augmentation, self._seed = augmentation, seed
        self._samples = settings.crop_samples(speech.sample_rate_hz)
        self._from_start = settings.crop_from == "start"
        self._factors = (1.0, *settings.speed_perturbation)
        if rirs is not None:  # echoes later than the crop is long cannot be heard in it
            self._taps = RIR_LEAD + min(int(rirs.samples.max()), self._samples)

    def make(self, plan: BatchPlan) -> Batch:
        """Read, crop and draw a batch.

        Raises:
            CorpusError: A recording cannot be read.
        """
        options = self._augmentation
        size = len(plan.utterances)
        waveforms = np.empty((size, self._samples), np.float32)
        labels = np.empty(size, np.int64)
        gain_db = np.empty(size, np.float32)
        time_masks = np.zeros((size, options.time_masks, 2), np.float32)
        frequency_masks = np.zeros((size, options.frequency_masks, 2), np.float32)
        noisy: list[tuple[int, np.ndarray, float]] = []
        reverberated: list[tuple[int, np.ndarray]] = []
        crops: list[Crop] = []
        masks = options.time_masks + options.frequency_masks
        erasing = np.zeros((size, 2 * DRAWS), np.float32)
        for row, (position, utterance) in enumerate(zip(plan.positions, plan.utterances, strict=True)):
            stream = np.random.PCG64((_ITEM, self._seed, plan.epoch, int(position)))
            # Always the same draws in the same order: turning one augmentation off does not change the others.
            draws = np.random.Generator(stream).random(10 + 2 * masks + 2 * DRAWS)
            speed, place, gain, noise, which_noise, noise_place, snr, room, which_room, masked = draws[:10].tolist()
            perturbation = int(speed * len(self._factors))
            factor = self._factors[perturbation]
            place = 0.0 if self._from_start else place
            waveforms[row], crop = _crop(self._speech, int(utterance), self._samples, place, factor)
            crops.append(crop)
            labels[row] = self._labels[utterance] + perturbation * self._speakers
            gain_db[row] = _between(options.gain_db, gain)
            if self._noise is not None and noise < options.noise_probability:
                clip, _ = _crop(self._noise, int(which_noise * len(self._noise)), self._samples, noise_place)
                noisy.append((row, clip, _between(options.snr_db, snr)))
            if self._rirs is not None and room < options.reverberation_probability:
                rir = self._rirs.read(int(which_room * len(self._rirs)))
                reverberated.append((row, _aligned(rir, self._taps)))
            erasing[row] = draws[10 + 2 * masks :]
            if masked < options.spec_augment_probability:
                drawn = draws[10 : 10 + 2 * masks].reshape(masks, 2)
                time_masks[row] = _masks(drawn[: options.time_masks], options.max_time_mask_frames)
                frequency_masks[row] = _masks(drawn[options.time_masks :], options.max_frequency_mask_bins)
        batch = Batch(
            waveforms=torch.from_numpy(waveforms),
            labels=torch.from_numpy(labels),
            ids=[self._speech.id(int(utterance)) for utterance in plan.utterances],
            phrases=None if self._phrases is None else torch.from_numpy(self._phrases[plan.utterances]),
            crops=crops,
        )
        if noisy:
            batch.noise_rows = torch.tensor([row for row, _, _ in noisy])
            batch.noise = torch.from_numpy(np.stack([clip for _, clip, _ in noisy]))
            batch.snr_db = torch.tensor([snr_db for _, _, snr_db in noisy])
        if reverberated:
            batch.rir_rows = torch.tensor([row for row, _ in reverberated])
            batch.rirs = torch.from_numpy(np.stack([rir for _, rir in reverberated]))
        if options.gain_db != (0.0, 0.0):
            batch.gain_db = torch.from_numpy(gain_db)
        if options.spec_augment_probability > 0:
            batch.time_masks = torch.from_numpy(time_masks)
            batch.frequency_masks = torch.from_numpy(frequency_masks)
        if options.random_erasing_probability > 0:
            ours, theirs = torch.from_numpy(erasing).split(DRAWS, 1)
            batch.erased, batch.erasing = options.random_erasing, ours
            batch.teacher_erasing = {"same": ours, "own": theirs, "plain": None}[options.random_erasing_teacher]
            batch.erasing_seed = int(erasing[0, 0] * 2**24)
        return batch


def _crop(
    recordings: Recordings, number: int, samples: int, place: float, factor: float = 1.0
) -> tuple[np.ndarray, Crop]:
    """(samples,) of a recording played `factor` times as fast, from a place drawn from [0, 1), and which part that is.

    A recording too short is played over and over, from a place drawn likewise.
    """
    available = int(recordings.samples[number])
    length = math.floor(available / factor)
    if length < samples:
        played = faster(recordings.read(number), factor, recordings.sample_rate_hz)
        start = int(place * len(played))
        return np.take(played, np.arange(start, start + samples), mode="wrap"), Crop(start, len(played), factor)
    start = int(place * (length - samples + 1))
    crop = Crop(start, length, factor)
    if factor == 1:
        return recordings.read(number, start, samples), crop
    first = math.floor(start * factor)
    count = min(math.ceil(samples * factor) + 1, available - first)
    return faster(recordings.read(number, first, count), factor, recordings.sample_rate_hz)[:samples], crop


def faster(samples: np.ndarray, factor: float, sample_rate_hz: int) -> np.ndarray:
    """Samples played faster by resampling, which raises the pitch with the speed (Ko et al. 2015)."""
    if factor == 1:
        return samples
    played: np.ndarray = soxr.resample(samples, sample_rate_hz * factor, sample_rate_hz)
    return played


def _aligned(rir: np.ndarray, taps: int) -> np.ndarray:
    """(taps,) of an impulse response, moved so that its strongest tap, the direct path, is tap `RIR_LEAD`."""
    shift = RIR_LEAD - int(np.abs(rir).argmax())
    moved = np.zeros(taps, np.float32)
    kept = rir[max(0, -shift) : taps - shift]
    moved[max(0, shift) : max(0, shift) + len(kept)] = kept
    return moved


def _between(bounds: tuple[float, float], draw: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * draw


def _masks(draws: np.ndarray, widest: int) -> np.ndarray:
    """(masks, 2) of widths from 0 to `widest` and places, from draws (masks, 2)."""
    return np.stack([np.floor(draws[:, 0] * (widest + 1)), draws[:, 1]], axis=1)
