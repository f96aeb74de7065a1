"""What lies between a mouth and a file, made of numbers: rooms, noises and microphones.

Each recording draws its own, so that they say nothing about who speaks.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from parvox.corpora.synthetic_voice import SAMPLE_RATE_HZ, draw_voice, speak

Array = NDArray[np.float64]

NOISE_KINDS = ("hiss", "hum", "fan", "babble", "clatter", "rumble")


def draw_room(rng: np.random.Generator, low_s: float = 0.1, high_s: float = 0.7) -> Array:
    """A room impulse response: the direct sound, a few early reflections, and noise that dies away.

    Args:
        rng: Decides.
        low_s: Shortest reverberation time (fall by 60 dB).
        high_s: Longest.

    Returns:
        (samples,) with its peak, the direct sound, of 1 at sample 0.
    """
    decay_s = float(np.exp(rng.uniform(np.log(low_s), np.log(high_s))))
    count = int(decay_s * SAMPLE_RATE_HZ)
    time = np.arange(count) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(count) * 10 ** (-3 * time / decay_s)
    tail *= 1 - np.exp(-time / 0.004)  # reflections need time to become dense
    tail = _filtered(tail, _falling(count, float(rng.uniform(2000, 6000))))
    reverberant_db = rng.uniform(-16, 0)  # energy relative to the direct sound
    tail *= np.sqrt(10 ** (reverberant_db / 10) / (np.sum(tail**2) + 1e-12))
    for _ in range(int(rng.integers(2, 7))):
        at = int(rng.uniform(0.001, min(0.03, decay_s / 2)) * SAMPLE_RATE_HZ)
        tail[at] += rng.uniform(0.1, 0.5) * rng.choice((-1.0, 1.0))
    tail = np.clip(tail, -0.95, 0.95)
    tail[0] = 1.0
    return tail


def draw_noise(kind: str, seconds: float, rng: np.random.Generator) -> Array:
    """A background noise, (samples,) at unit RMS.

    Args:
        kind: One of `NOISE_KINDS`.
        seconds: How long.
        rng: Decides everything else.
    """
    count = round(seconds * SAMPLE_RATE_HZ)
    time = np.arange(count) / SAMPLE_RATE_HZ
    if kind == "babble":
        noise = np.zeros(count)
        for _ in range(5):
            said, _ = speak(draw_voice(rng), seconds + 0.5, rng)
            noise += rng.uniform(0.4, 1.0) * np.resize(said, count)
    elif kind == "hum":
        mains = float(rng.choice((50.0, 60.0)))
        noise = 0.05 * coloured_noise(count, 0.5, rng)
        for harmonic in range(1, 12):
            noise += rng.uniform(0, 1) / harmonic * np.sin(2 * np.pi * (mains * harmonic * time + rng.random()))
    elif kind == "clatter":
        noise = 0.1 * coloured_noise(count, 1.0, rng)
        for start in rng.integers(0, count, max(1, int(4 * seconds))):
            ring = time[: count - start]
            tone = np.sin(2 * np.pi * rng.uniform(300, 5000) * ring) + 0.5 * rng.standard_normal(len(ring))
            noise[start:] += rng.uniform(0.3, 2.0) * tone * np.exp(-ring / rng.uniform(0.005, 0.06))
    elif kind == "fan":
        beat = 1 + 0.4 * np.sin(2 * np.pi * rng.uniform(2, 25) * time)
        noise = coloured_noise(count, 1.0, rng) * beat
    elif kind == "rumble":
        noise = coloured_noise(count, 2.0, rng)
    elif kind == "hiss":
        noise = coloured_noise(count, float(rng.uniform(-0.3, 0.5)), rng)
    else:
        raise ValueError(f"noise kind {kind!r} given; expected one of {', '.join(NOISE_KINDS)}")
    normalised: Array = noise / (np.sqrt(np.mean(noise**2)) + 1e-12)
    return normalised


def coloured_noise(count: int, colour: float, rng: np.random.Generator) -> Array:
    """Noise whose power falls as frequency to the power of minus `colour`, (count,) at unit RMS."""
    frequency = scipy.fft.rfftfreq(count, 1 / SAMPLE_RATE_HZ)
    noise = _filtered(rng.standard_normal(count), np.maximum(frequency, 40.0) ** (-colour / 2))
    normalised: Array = noise / np.sqrt(np.mean(noise**2))
    return normalised


def record(speech: Array, rng: np.random.Generator) -> Array:
    """What a random microphone in a random room makes of `speech` (samples,); same length, peak below 0.9."""
    count = len(speech)
    room = draw_room(rng, 0.05, 0.3)
    size = scipy.fft.next_fast_len(count + len(room), real=True)
    response = _microphone(size, rng)
    wet = scipy.fft.irfft(scipy.fft.rfft(speech, size) * scipy.fft.rfft(room, size) * response, size)[:count]
    ambient = coloured_noise(size, float(rng.uniform(0, 2)), rng)
    if rng.random() < 0.3:
        kind = ("hum", "fan", "clatter")[rng.integers(3)]
        ambient = ambient + rng.uniform(0.3, 1.5) * draw_noise(kind, size / SAMPLE_RATE_HZ, rng)[:size]
    noise = _filtered(ambient, response)[:count] + 0.1 * rng.standard_normal(count)
    snr_db = rng.uniform(16, 42)
    noise *= np.sqrt(np.mean(wet**2) / (np.mean(noise**2) * 10 ** (snr_db / 10)))
    recorded = wet + noise
    level = 10 ** (rng.uniform(-32, -16) / 20)
    recorded *= min(level / np.sqrt(np.mean(recorded**2)), 0.9 / np.max(np.abs(recorded)))
    result: Array = recorded
    return result


def _microphone(size: int, rng: np.random.Generator) -> Array:
    """(bins,) magnitudes: an uneven equaliser between a low and a high cut."""
    frequency = np.maximum(scipy.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ), 1.0)
    octave = np.log2(frequency / 1000)
    knots = np.linspace(-4, 3, 12)
    curve_db = np.interp(octave, knots, 2.0 * rng.standard_normal(len(knots))) + rng.uniform(-1.5, 1.5) * octave
    curve_db = np.clip(curve_db, -20, 20)
    low_hz = np.exp(rng.uniform(np.log(40), np.log(200)))
    high_hz = 8000.0 if rng.random() < 0.6 else rng.uniform(4500, 7500)
    slope = int(rng.integers(1, 4))
    band = 1 / np.sqrt(1 + (low_hz / frequency) ** (2 * slope)) / np.sqrt(1 + (frequency / high_hz) ** 12)
    magnitudes: Array = 10 ** (curve_db / 20) * band
    return magnitudes


def _falling(count: int, corner_hz: float) -> Array:
    frequency = scipy.fft.rfftfreq(count, 1 / SAMPLE_RATE_HZ)
    magnitudes: Array = 1 / np.sqrt(1 + (frequency / corner_hz) ** 2)
    return magnitudes


def _filtered(signal: Array, magnitudes: Array) -> Array:
    filtered: Array = scipy.fft.irfft(scipy.fft.rfft(signal) * magnitudes, len(signal))
    return filtered
