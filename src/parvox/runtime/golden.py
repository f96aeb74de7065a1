"""Signals that every machine computes alike, to check that a model file still hears what it heard at export."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from parvox.errors import ModelFileError, nearest

DEFAULT_SIGNAL = "glide-1"

_DURATION_S = 1.5
_HARMONICS = 20
_FORMANTS_HZ = ((500, 250, 1.3, 90), (1500, 600, 0.9, 130), (2600, 300, 1.7, 200))  # centre, swing, rate, width


def golden_signal(name: str, sample_rate_hz: int) -> NDArray[np.float32]:
    """A named test signal.

    ``glide-1`` is 1.5 s of a gliding buzz shaped by three moving resonances and a syllabic rhythm, with a little
    noise so that its pauses are not empty. It stands on the grid of 16-bit samples, where the last-bit differences
    of processors' sine functions vanish.

    Args:
        name: As in a model's contract.
        sample_rate_hz: The rate to compute it at.

    Returns:
        (samples,) float32 in [-1, 1].

    Raises:
        ModelFileError: no signal has this name.
    """
    if name != DEFAULT_SIGNAL:
        raise ModelFileError(
            f"unknown golden signal {name!r}: {nearest(name, [DEFAULT_SIGNAL])}; the model may need a newer Parvox"
        )
    time_s = np.arange(int(_DURATION_S * sample_rate_hz)) / sample_rate_hz
    swing = 2 * np.pi * 0.7
    pitch_hz = 125 + 40 * np.sin(swing * time_s)
    phase = 2 * np.pi * 125 * time_s + 2 * np.pi * 40 / swing * (1 - np.cos(swing * time_s))
    centres = [centre + by * np.sin(2 * np.pi * rate * time_s) for centre, by, rate, _ in _FORMANTS_HZ]
    voice = np.zeros_like(time_s)
    for harmonic in range(1, _HARMONICS + 1):
        hz = harmonic * pitch_hz
        gain = sum(1 / (1 + ((hz - at) / shape[3]) ** 2) for at, shape in zip(centres, _FORMANTS_HZ, strict=True))
        voice += (0.02 + gain) / harmonic * np.sin(harmonic * phase) * (hz < 0.45 * sample_rate_hz)
    rhythm = 0.03 + 0.97 * (0.5 - 0.5 * np.cos(2 * np.pi * 4 * time_s))
    samples = 0.25 * rhythm * voice + 0.003 * _noise(len(time_s))
    return (np.round(np.clip(samples, -1, 1) * 32767) / 32768).astype(np.float32)


def _noise(count: int) -> NDArray[np.float64]:
    """Uniform noise in [-1, 1) from the splitmix64 generator: integer arithmetic, so the same everywhere."""
    state = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (state ^ (state >> np.uint64(31))).astype(np.float64) / 2.0**63 - 1.0
