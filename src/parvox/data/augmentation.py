"""Augmentation of whole batches, on whatever device they are on."""

from __future__ import annotations

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from parvox.data.batch import RIR_LEAD, Batch
from parvox.data.random_erasing import random_erasing

_FRAME_S = 0.02
_ACTIVE_RANGE = 1e-3  # frames more than 30 dB below the loudest are pauses


class Augmenter:
    """Carries out what was drawn with a batch: room, noise and gain on waveforms, masks and erasing on features.

    The result depends on the batch alone; the noise in erased rectangles is drawn from a seed that the batch brings.

    Args:
        sample_rate_hz: Rate of the waveforms.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self._frame = round(_FRAME_S * sample_rate_hz)

    @torch.no_grad()
    def augment_waveforms(self, batch: Batch) -> Tensor:
        """Play in a room, then add noise, then change the level.

        Speech in a room keeps its energy and is not delayed. Noise is added at the drawn ratio between the active
        powers of the speech (in its room) and of the noise.

        Args:
            batch: The batch, all on one device; it is not changed.

        Returns:
            (batch, samples) float32.
        """
        waveforms = batch.waveforms
        if batch.rirs is not None and batch.rir_rows is not None:
            dry = waveforms[batch.rir_rows]
            wet = reverberate(dry, batch.rirs)
            waveforms = waveforms.index_copy(0, batch.rir_rows, wet)
        if batch.noise is not None and batch.noise_rows is not None and batch.snr_db is not None:
            speech = waveforms[batch.noise_rows]
            wanted = active_power(speech, self._frame) / 10 ** (batch.snr_db / 10)
            power = active_power(batch.noise, self._frame)
            scale = torch.where(power > 0, wanted / power.clamp(min=torch.finfo(power.dtype).tiny), 0).sqrt()
            waveforms = waveforms.index_copy(0, batch.noise_rows, speech + scale[:, None] * batch.noise)
        if batch.gain_db is not None:
            waveforms = waveforms * (10 ** (batch.gain_db / 20))[:, None]
        return waveforms

    @torch.no_grad()
    def augment_features(self, features: Tensor, batch: Batch, *, teacher: bool = False) -> Tensor:
        """Set random bands of time and frequency to zero, the mean of the features; then overwrite a rectangle.

        Source: SpecAugment (Park et al. 2019), without time warping; Random Erasing (Zhong et al. 2020).

        Args:
            features: (batch, frames, bins) float, mean-normalised.
            batch: The batch that they were computed from, on the same device.
            teacher: Whether they are for a teacher, who may hear other rectangles, or none.

        Returns:
            (batch, frames, bins).
        """
        _, frames, bins = features.shape
        if batch.time_masks is not None and batch.frequency_masks is not None:
            hidden = _covered(batch.time_masks, frames)[:, :, None] | _covered(batch.frequency_masks, bins)[:, None, :]
            features = features.masked_fill(hidden, 0.0)
        draws = batch.teacher_erasing if teacher else batch.erasing
        if batch.erased is None or draws is None:
            return features
        generator = torch.Generator(features.device).manual_seed(batch.erasing_seed)
        return random_erasing(features, None, batch.erased, generator, draws)


def reverberate(waveforms: Tensor, rirs: Tensor) -> Tensor:
    """Convolve each row with its impulse response, keeping time and energy.

    Args:
        waveforms: (batch, samples) float32.
        rirs: (batch, taps) float32, the direct path at tap `RIR_LEAD`.

    Returns:
        (batch, samples) float32.
    """
    samples, taps = waveforms.shape[1], rirs.shape[1]
    size = next_fast_len(samples + taps - 1, real=True)
    spectrum = torch.fft.rfft(waveforms, size) * torch.fft.rfft(rirs, size)
    wet: Tensor = torch.fft.irfft(spectrum, size)[:, RIR_LEAD : RIR_LEAD + samples]
    before, after = waveforms.square().sum(1), wet.square().sum(1)
    return wet * (before / after.clamp(min=torch.finfo(after.dtype).tiny)).sqrt()[:, None]


def active_power(waveforms: Tensor, frame: int) -> Tensor:
    """Mean power of each row over its frames within 30 dB of the loudest one: pauses do not count.

    Args:
        waveforms: (batch, samples).
        frame: Samples a frame; what is left over at the end is ignored.

    Returns:
        (batch,), zero for digital silence.
    """
    frames = waveforms.shape[1] // frame
    power = waveforms[:, : frames * frame].unflatten(1, (frames, frame)).square().mean(-1)  # (batch, frames)
    active = power >= _ACTIVE_RANGE * power.amax(1, keepdim=True)
    mean: Tensor = (power * active).sum(1) / active.sum(1)
    return mean


def _covered(masks: Tensor, size: int) -> Tensor:
    """(batch, size) bool, true under any of the masks (batch, masks, 2) of widths and places."""
    width = masks[..., :1].clamp(max=size)
    start = (masks[..., 1:] * (size - width + 1)).floor().minimum(size - width)  # float32 may round 0.99… up to 1
    place = torch.arange(size, device=masks.device)
    covered: Tensor = ((place >= start) & (place < start + width)).any(1)
    return covered
