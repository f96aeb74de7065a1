"""The front end against kaldi-native-fbank, and its own promises."""

from __future__ import annotations

import kaldi_native_fbank
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parvox.errors import RecipeError
from parvox.models.frontend import Fbank, FbankSettings


def signal(samples: int, seed: int = 0, sample_rate_hz: int = 16000) -> torch.Tensor:
    """Gliding harmonics in noise, louder and softer: neither flat nor silent in any band."""
    random = np.random.default_rng(seed)
    time = np.arange(samples) / sample_rate_hz
    pitch = 2 * np.pi * (120 * time + 20 * np.sin(3 * time))
    voice = sum(np.sin(k * pitch + k) / k for k in range(1, 20))
    loudness = 0.1 + 0.08 * np.sin(2 * np.pi * 1.3 * time)
    return torch.from_numpy((loudness * voice + 0.01 * random.standard_normal(samples)).astype(np.float32))


def kaldi(waveform: torch.Tensor, made: FbankSettings) -> np.ndarray:
    """Log energies (frames, bins) from kaldi-native-fbank with the same options, mean-normalised."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.samp_freq = made.sample_rate_hz
    options.frame_opts.window_type = "hanning" if made.window == "hann" else made.window
    options.frame_opts.frame_length_ms = made.frame_length_ms
    options.frame_opts.frame_shift_ms = made.frame_shift_ms
    options.frame_opts.preemph_coeff = made.preemphasis
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = made.bins
    options.mel_opts.low_freq = made.low_hz
    options.mel_opts.high_freq = made.high_hz
    online = kaldi_native_fbank.OnlineFbank(options)
    online.accept_waveform(made.sample_rate_hz, (waveform * 32768).tolist())
    online.input_finished()
    frames = np.stack([online.get_frame(i) for i in range(online.num_frames_ready)])
    return frames - frames.mean(0)


@pytest.mark.parametrize(
    "made",
    [
        FbankSettings(),
        FbankSettings(window="povey"),
        FbankSettings(window="hann", bins=40),
        FbankSettings(bins=72, low_hz=50.0, high_hz=-400.0, preemphasis=0.9),
        FbankSettings(sample_rate_hz=8000, bins=40),
        FbankSettings(frame_length_ms=20.0, frame_shift_ms=8.0, bins=60),
        FbankSettings(sample_rate_hz=22050, bins=64),  # an odd window: 551 samples
    ],
    ids=lambda made: f"{made.window}-{made.bins}-{made.sample_rate_hz}-{made.frame_length_ms:g}",
)
def test_agrees_with_kaldi(made):
    waveform = signal(made.sample_rate_hz * 2 + 137, sample_rate_hz=made.sample_rate_hz)
    features, lengths = Fbank(made)(waveform[None])
    expected = kaldi(waveform, made)
    assert lengths is None
    assert features.shape == (1, *expected.shape)
    np.testing.assert_allclose(features[0].numpy(), expected, atol=1e-3, rtol=0)


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(400, 3000))
def test_frames_of_any_length_agree_with_kaldi(samples):
    made = FbankSettings()
    waveform = signal(samples, seed=samples)
    expected = kaldi(waveform, made)
    frontend = Fbank(made)
    features, _ = frontend(waveform[None])
    assert features.shape == (1, *expected.shape)
    assert int(frontend.lengths(torch.tensor([samples]))) == expected.shape[0]
    np.testing.assert_allclose(features[0].numpy(), expected, atol=1e-3, rtol=0)


@settings(max_examples=25, deadline=None)
@given(samples=st.lists(st.integers(400, 9000), min_size=1, max_size=4), extra=st.integers(0, 500))
def test_padding_is_never_seen_and_comes_out_as_zeros(samples, extra):
    frontend = Fbank(FbankSettings())
    batch = torch.zeros(len(samples), max(samples) + extra)
    for row, count in enumerate(samples):
        batch[row, :count] = signal(count, seed=row)
    features, lengths = frontend(batch, torch.tensor(samples))
    for row, count in enumerate(samples):
        alone, _ = frontend(signal(count, seed=row)[None])
        assert lengths[row] == alone.shape[1]
        # Log energies stand near 20, and a matrix product rounds differently for other shapes: about 2e-5 at worst.
        torch.testing.assert_close(features[row, : alone.shape[1]], alone[0], atol=1e-4, rtol=0)
        assert (features[row, alone.shape[1] :] == 0).all()


def test_what_stands_in_the_padding_does_not_matter():
    frontend = Fbank(FbankSettings())
    batch = torch.stack([signal(8000, 1), signal(8000, 2)])
    other = batch.clone()
    other[1, 5000:] = 0.7
    lengths = torch.tensor([8000, 5000])
    torch.testing.assert_close(frontend(batch, lengths)[0], frontend(other, lengths)[0])


@settings(max_examples=20, deadline=None)
@given(
    frames=st.integers(1, 50),
    length_ms=st.sampled_from([20.0, 25.0, 32.0]),
    shift_ms=st.sampled_from([5.0, 10.0, 12.5]),
)
def test_samples_is_the_fewest_that_give_so_many_frames(frames, length_ms, shift_ms):
    made = FbankSettings(frame_length_ms=length_ms, frame_shift_ms=shift_ms)
    frontend = Fbank(made)
    samples = made.samples(frames)
    assert frontend(signal(samples)[None])[0].shape[1] == frames
    assert int(frontend.lengths(torch.tensor([samples - 1]))) == frames - 1


def test_silence_and_one_frame_stay_finite():
    frontend = Fbank(FbankSettings())
    for waveform in (torch.zeros(1, 16000), signal(400)[None], torch.zeros(1, 400)):
        assert torch.isfinite(frontend(waveform)[0]).all()


def test_half_precision_around_it_changes_nothing():
    frontend = Fbank(FbankSettings())
    waveform = signal(12_345)[None]
    plain, _ = frontend(waveform)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, _ = frontend(waveform)
    assert torch.equal(plain, inside)


def test_gradients_reach_the_waveform():
    waveform = signal(4000)[None].requires_grad_()
    Fbank(FbankSettings())(waveform)[0].square().mean().backward()
    assert torch.isfinite(waveform.grad).all()
    assert waveform.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"bins": 0}, "0 bins"),
        ({"low_hz": 9000.0}, "from 9000.0"),
        ({"high_hz": 9000.0}, "to 9000.0"),
        ({"frame_shift_ms": 30.0}, "a shift of 30.0 ms"),
    ],
)
def test_bad_settings_are_refused(fields, says):
    with pytest.raises(RecipeError, match=says):
        FbankSettings(**fields)


def test_more_bins_than_the_transform_resolves_are_refused():
    with pytest.raises(RecipeError, match="500 mel bins"):
        Fbank(FbankSettings(bins=500))
