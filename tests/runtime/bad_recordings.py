"""One recording of each unusable kind."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000


def voice(seconds: float = 1.5, hz: float = 120.0) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    sound = sum(np.sin(2 * np.pi * hz * k * time) / k for k in range(1, 25)) * (0.55 - 0.45 * np.cos(25 * time))
    noise = 1e-3 * np.random.default_rng(int(hz)).normal(size=len(sound) + RATE // 2)
    noise[RATE // 4 : RATE // 4 + len(sound)] += 0.2 * sound
    return noise.astype(np.float32)


def _three_hours(path: Path) -> None:
    size = 3 * 3600 * RATE * 2
    header = (b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", size)
    with path.open("wb") as file:
        file.write(struct.pack("<4sI4s4sIHHIIHH4sI", *header) + (voice() * 32767).astype("<i2").tobytes())
        file.truncate(44 + size)  # sparse: takes no room on the disk


def _nan(path: Path) -> None:
    samples = voice()
    samples[1000] = np.nan
    soundfile.write(path, samples, RATE, subtype="FLOAT")


def _truncated(path: Path) -> None:
    soundfile.write(path, voice(3.0), RATE, format="FLAC")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


# File name, maker, and what the message must say.
BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("missing.wav", lambda path: None, "no such file"),
    "folder": ("folder.wav", lambda path: path.mkdir(), "folder"),
    "text": ("text.wav", lambda path: path.write_text("not audio\n" * 99), "not a recording"),
    "empty": ("empty.wav", lambda path: path.touch(), "0 bytes"),
    "no samples": ("none.wav", lambda path: soundfile.write(path, np.zeros(0), RATE), "no samples"),
    "silence": ("silence.wav", lambda path: soundfile.write(path, np.zeros(RATE), RATE), "digital silence"),
    "NaN": ("nan.wav", _nan, "NaN"),
    "0.05 s": ("short.wav", lambda path: soundfile.write(path, voice()[4000:4800], RATE), "0.05 s"),
    "3 hours": ("long.wav", _three_hours, "at most 300 s"),
    "truncated": ("cut.flac", _truncated, "truncated"),
}
