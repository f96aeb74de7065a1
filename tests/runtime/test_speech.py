"""Speech seconds: right on sounds made to measure, independent of level, silent on what is steady."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parvox.audio import read_audio
from parvox.runtime.speech import find_speech

RATE = 16000


def buzz(seconds: float, seed: int = 0) -> np.ndarray:
    """A syllabic buzz, in rhythm and spectrum like a voice."""
    time = np.arange(int(seconds * RATE)) / RATE
    voice = sum(np.sin(2 * np.pi * 130 * k * time) / k for k in range(1, 20))
    return 0.2 * voice * (0.55 - 0.45 * np.cos(2 * np.pi * 4 * time))


def hiss(seconds: float, level: float, seed: int = 0) -> np.ndarray:
    return level * np.random.default_rng(seed).normal(size=int(seconds * RATE))


def between(before: float, voice: float, after: float, noise: float) -> np.ndarray:
    silence = [np.zeros(int(before * RATE)), buzz(voice), np.zeros(int(after * RATE))]
    samples = np.concatenate(silence)
    return samples + hiss(before + voice + after + 1, noise)[: len(samples)]


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
@pytest.mark.parametrize("noise", [0.0, 1e-5, 1e-3, 1e-2])
def test_a_voice_between_pauses(noise: float, rate: int) -> None:
    samples = between(1.0, 2.0, 1.5, noise)
    if rate != RATE:
        time = np.arange(int(len(samples) * rate / RATE)) / rate
        samples = np.interp(time, np.arange(len(samples)) / RATE, samples)
    speech = find_speech(samples, rate)
    assert speech.seconds == pytest.approx(2.0, abs=0.15)
    inside = np.flatnonzero(speech.mask) * 0.01
    assert inside.min() == pytest.approx(1.0, abs=0.1)
    assert inside.max() == pytest.approx(3.0, abs=0.1)


def test_two_voices_and_the_pause_between_them() -> None:
    samples = np.concatenate([between(0.5, 1.0, 0.5, 0), between(0.5, 0.6, 0.5, 0)]) + hiss(3.6, 1e-4)
    mask = find_speech(samples, RATE).mask
    assert mask[80:120].all()
    assert not mask[170:230].any()
    assert mask[265:300].all()


def test_a_short_pause_belongs_to_the_speech() -> None:
    samples = between(0.5, 2.0, 0.5, 1e-4)
    samples[RATE : RATE + RATE // 10] *= 1e-3
    assert find_speech(samples, RATE).mask[60:240].all()


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(RATE),
        np.full(RATE, 0.3),
        hiss(3, 0.1),
        np.convolve(hiss(3, 0.1), np.ones(8) / 8),
        0.3 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE),
        np.sin(2 * np.pi * 50 * np.arange(3 * RATE) / RATE) + hiss(3, 1e-3),
    ],
    ids=["silence", "constant", "hiss", "dull hiss", "tone", "hum"],
)
def test_nothing_in_what_is_steady(samples: np.ndarray) -> None:
    assert find_speech(samples, RATE).seconds == 0.0


def test_clicks_are_no_speech() -> None:
    samples = hiss(3, 1e-3)
    samples[::5000] = 0.9
    assert find_speech(samples, RATE).seconds == 0.0


def test_an_offset_changes_nothing() -> None:
    samples = between(1, 1, 1, 1e-3)
    assert abs(find_speech(samples + 0.2, RATE).seconds - find_speech(samples, RATE).seconds) <= 0.02


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 2), st.floats(0.3, 2), st.floats(0, 2), st.integers(-20, 20))
def test_level_does_not_matter(before: float, voice: float, after: float, power: int) -> None:
    samples = between(before, voice, after, 1e-4)
    speech = find_speech(samples, RATE)
    np.testing.assert_array_equal(find_speech(samples * 2.0**power, RATE).mask, speech.mask)
    assert abs(find_speech(-0.3 * samples, RATE).seconds - speech.seconds) <= 0.03


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5000), st.sampled_from([8000, 16000, 44100]), st.integers(0, 9))
def test_any_length_gives_a_mask_and_no_more_seconds_than_there_are(size: int, rate: int, seed: int) -> None:
    speech = find_speech(np.random.default_rng(seed).normal(size=size) ** 5, rate)
    window, shift = round(0.025 * rate), round(0.01 * rate)
    assert len(speech.mask) == max(0, (size - window) // shift + 1)
    assert 0 <= speech.seconds <= size / rate


def test_real_speech_holds_speech_and_steady_noise_none(real_corpus: Path) -> None:
    def share(folder: str) -> np.ndarray:
        paths = sorted((real_corpus / folder).rglob("*.flac"))[::7]
        found = [(find_speech(audio.samples, RATE).seconds, audio.duration_s) for audio in map(read_audio, paths)]
        assert len(found) >= 5
        return np.array([seconds / duration for seconds, duration in found])

    assert np.mean(share("read-speech") > 0.5) > 0.95
    assert np.mean(share("arabic-digits") > 0.3) > 0.95
    assert np.median(share("noise")) == 0
