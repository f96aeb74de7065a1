from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import fftconvolve
from torch import Tensor

from parvox.data import Augmenter, Batch
from parvox.data.augmentation import active_power, reverberate
from parvox.data.batch import RIR_LEAD
from parvox.data.random_erasing import DRAWS, RandomErasingSettings, erase

RATE = 16000


def _batch(waveforms: Tensor, **drawn: Any) -> Batch:
    size = len(waveforms)
    return Batch(waveforms=waveforms, labels=torch.zeros(size).long(), ids=[str(i) for i in range(size)], **drawn)


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def test_nothing_drawn_changes_nothing() -> None:
    batch = _batch(_noise(3, 1000))
    augmenter = Augmenter(RATE)
    assert torch.equal(augmenter.augment_waveforms(batch), batch.waveforms)
    features = _noise(3, 10, 8)
    assert torch.equal(augmenter.augment_features(features, batch), features)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 12.5])
def test_noise_is_added_at_the_drawn_ratio_to_its_rows_alone(snr_db: float) -> None:
    speech = torch.sin(torch.arange(RATE) * 0.3).repeat(3, 1) * torch.tensor([[0.5], [0.1], [0.01]])
    noise = _noise(2, RATE, seed=1)
    batch = _batch(speech, noise=noise, noise_rows=torch.tensor([2, 0]), snr_db=torch.tensor([snr_db, snr_db + 3.0]))
    added = Augmenter(RATE).augment_waveforms(batch) - speech
    assert torch.equal(added[1], torch.zeros(RATE))
    for row, clip, wanted in ((2, 0, snr_db), (0, 1, snr_db + 3.0)):
        ratio = 10 * np.log10(float(speech[row].double().square().mean() / added[row].double().square().mean()))
        assert ratio == pytest.approx(wanted, abs=0.05)
        similarity = torch.nn.functional.cosine_similarity(added[row], noise[clip], dim=0)
        assert similarity > 0.999


def test_pauses_do_not_count_for_the_ratio() -> None:
    speech = torch.sin(torch.arange(RATE) * 0.3)[None] * 0.5
    halting = speech.clone()
    halting[:, RATE // 2 :] *= 1e-3
    noise = _noise(1, RATE, seed=2)
    rows, snr_db = torch.tensor([0]), torch.tensor([10.0])
    augmenter = Augmenter(RATE)
    steady = augmenter.augment_waveforms(_batch(speech, noise=noise, noise_rows=rows, snr_db=snr_db)) - speech
    paused = augmenter.augment_waveforms(_batch(halting, noise=noise, noise_rows=rows, snr_db=snr_db)) - halting
    torch.testing.assert_close(paused, steady, rtol=1e-3, atol=1e-5)
    assert active_power(halting, 320).item() == pytest.approx(0.125, rel=1e-3)


def test_silence_stays_finite() -> None:
    silent, noise = torch.zeros(2, RATE), _noise(2, RATE)
    noise[1] = 0
    batch = _batch(
        torch.stack([silent[0], _noise(RATE)]),
        noise=noise,
        noise_rows=torch.tensor([0, 1]),
        snr_db=torch.tensor([5.0, 5.0]),
        rir_rows=torch.tensor([0]),
        rirs=_noise(1, 500),
    )
    augmented = Augmenter(RATE).augment_waveforms(batch)
    assert torch.equal(augmented, batch.waveforms)  # no speech to measure by, and no noise to add


@given(st.integers(600, 4000), st.integers(RIR_LEAD + 1, 3000), st.integers(0, 2**32 - 1), st.sampled_from([1, 3]))
def test_reverberation_is_convolution_aligned_on_the_direct_path(samples: int, taps: int, seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    dry = rng.standard_normal((rows, samples)).astype(np.float32)
    rirs = (rng.standard_normal((rows, taps)) * np.exp(-np.arange(taps) / 200) * 0.1).astype(np.float32)
    rirs[:, RIR_LEAD] = 1.0
    wet = reverberate(torch.from_numpy(dry), torch.from_numpy(rirs)).numpy()
    for row in range(rows):
        full = fftconvolve(dry[row].astype(np.float64), rirs[row].astype(np.float64))
        aligned = full[RIR_LEAD : RIR_LEAD + samples]
        expected = aligned * np.sqrt(np.sum(dry[row].astype(np.float64) ** 2) / np.sum(aligned**2))
        np.testing.assert_allclose(wet[row], expected, atol=2e-4)


def test_a_room_of_the_direct_path_alone_does_nothing() -> None:
    dry = _noise(2, 2000)
    rir = torch.zeros(2, 700)
    rir[:, RIR_LEAD] = torch.tensor([0.3, 2.0])
    torch.testing.assert_close(reverberate(dry, rir), dry, atol=1e-6, rtol=1e-5)


def test_gain_is_in_decibels() -> None:
    waveforms = _noise(2, 1000)
    batch = _batch(waveforms, gain_db=torch.tensor([20.0, -6.0206]))
    expected = waveforms * torch.tensor([[10.0], [0.5]])
    torch.testing.assert_close(Augmenter(RATE).augment_waveforms(batch), expected, rtol=1e-4, atol=1e-6)


@given(
    st.integers(1, 40),
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 12), st.floats(0, 1, width=32)), min_size=1, max_size=3),
    st.tuples(st.integers(0, 12), st.floats(0, 1, width=32)),
)
def test_masks_are_of_their_widths_and_inside(
    frames: int, bins: int, time: list[tuple[int, float]], frequency: tuple[int, float]
) -> None:
    features = torch.ones(2, frames, bins)
    time_masks = torch.zeros(2, len(time), 2)
    time_masks[0] = torch.tensor(time)
    frequency_masks = torch.zeros(2, 1, 2)
    frequency_masks[0, 0] = torch.tensor(frequency)
    batch = _batch(torch.zeros(2, 100), time_masks=time_masks, frequency_masks=frequency_masks)
    masked = Augmenter(RATE).augment_features(features, batch)
    assert torch.equal(masked[1], features[1])
    expected = np.ones((frames, bins))
    for width, place in time:
        width = min(width, frames)
        start = min(int(np.float32(place) * np.float32(frames - width + 1)), frames - width)
        expected[start : start + width] = 0
    width = min(frequency[0], bins)
    start = min(int(np.float32(frequency[1]) * np.float32(bins - width + 1)), bins - width)
    expected[:, start : start + width] = 0
    np.testing.assert_array_equal(masked[0].numpy(), expected)
    if len(time) == 1 and frequency[0] == 0:
        assert int((masked[0, :, 0] == 0).sum()) == min(time[0][0], frames)


def test_student_and_teacher_are_erased_by_their_own_draws() -> None:
    features = _noise(4, 30, 20)
    settings = RandomErasingSettings(probability=1.0, fill="mean")
    ours, theirs = torch.rand(2, 4, DRAWS, generator=torch.Generator().manual_seed(1))
    batch = _batch(_noise(4, 1000), erased=settings, erasing=ours, teacher_erasing=theirs)
    augmenter = Augmenter(RATE)
    assert torch.equal(augmenter.augment_features(features, batch), erase(features, None, ours, settings))
    heard = augmenter.augment_features(features, batch, teacher=True)
    assert torch.equal(heard, erase(features, None, theirs, settings))
    assert (heard != features).flatten(1).any(1).all()
    plain = dataclasses.replace(batch, teacher_erasing=None)
    assert torch.equal(augmenter.augment_features(features, plain, teacher=True), features)


def test_erasing_comes_after_masks_and_repeats_itself() -> None:
    features = _noise(2, 30, 20)
    everything = RandomErasingSettings(probability=1.0, area=(1.0, 1.0), aspect=(1.0, 1.0))
    batch = _batch(
        _noise(2, 1000),
        erased=everything,
        erasing=torch.zeros(2, DRAWS),
        erasing_seed=7,
        time_masks=torch.tensor([[[30.0, 0.0]]] * 2),
        frequency_masks=torch.zeros(2, 1, 2),
    )
    augmenter = Augmenter(RATE)
    assert torch.equal(augmenter.augment_features(features, batch), torch.zeros(2, 30, 20))  # noise of no deviation
    batch = dataclasses.replace(batch, time_masks=torch.zeros(2, 1, 2))
    first = augmenter.augment_features(features, batch)
    torch.rand(3)  # whatever else is drawn in between
    assert torch.equal(augmenter.augment_features(features, batch), first)
    assert not torch.equal(augmenter.augment_features(features, dataclasses.replace(batch, erasing_seed=8)), first)
    assert (first != features).all()
