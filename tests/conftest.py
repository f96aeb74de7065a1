"""Fixtures for all tests: the real corpus, small recordings, and a tiny prepared corpus of made voices."""

from __future__ import annotations

import os

# Before NumPy and torch look: many small operations are quicker, and alike from run to run, on one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import soundfile

Kind = Literal["tone", "noise", "voice"]


@pytest.fixture(scope="session")
def real_corpus() -> Path:
    """The folder of real speech that PARVOX_CORPUS names; skips without it, fails if nothing is there."""
    value = os.environ.get("PARVOX_CORPUS", "")
    if not value:
        pytest.skip("PARVOX_CORPUS is not set")
    folder = Path(value)
    if not (folder / "manifest.csv").is_file() and not any(folder.glob("*/manifest.csv")):
        pytest.fail(f"PARVOX_CORPUS={value}: no manifest.csv in it or one level below")
    return folder


@pytest.fixture(scope="session")
def make_wav() -> Callable[..., Path]:
    """Write a small recording: ``make_wav(path, seconds=1.0, rate=16000, kind="tone", seed=0)``.

    The suffix chooses the format; the seed chooses pitch, noise or voice. Parent folders are made.
    """

    def make(path: Path, seconds: float = 1.0, rate: int = 16000, kind: Kind = "tone", seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        time = np.arange(round(seconds * rate)) / rate
        if kind == "tone":
            samples = 0.3 * np.sin(2 * np.pi * (220.0 + 7.0 * seed) * time)
        elif kind == "noise":
            samples = 0.1 * rng.standard_normal(len(time))
        else:
            samples = voice(len(time), rate, speaker=seed, utterance=0)
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples.astype(np.float32), rate)
        return path

    return make


def voice(samples: int, rate: int, speaker: int, utterance: int) -> np.ndarray:
    """A buzz through formant resonators: the speaker sets pitch and vocal-tract length, the utterance the vowels.

    Returns:
        (samples,) float64, peak 0.5.
    """
    from scipy.signal import lfilter

    body = np.random.default_rng([1, speaker])
    pitch_hz, tract, tilt = body.uniform(85, 260), body.uniform(0.82, 1.22), body.uniform(0.9, 0.99)
    rng = np.random.default_rng([2, speaker, utterance])
    vowels = np.array([[730, 1090, 2440], [270, 2290, 3010], [300, 870, 2240], [530, 1840, 2480], [570, 840, 2410]])
    piece = max(rate // 5, 1)
    out = np.zeros(samples)
    for start in range(0, samples, piece):
        length = min(piece, samples - start)
        contour = pitch_hz * (1 + 0.08 * rng.standard_normal()) * np.linspace(1.03, 0.97, length)
        buzz = np.diff(np.floor(np.cumsum(contour / rate)), prepend=0.0)
        sound = lfilter([1.0], [1.0, -tilt], buzz + 0.003 * rng.standard_normal(length))
        for formant_hz in vowels[rng.integers(len(vowels))] * tract:
            if formant_hz < 0.48 * rate:
                radius = np.exp(-np.pi * 90.0 / rate)
                poles = [1.0, -2 * radius * np.cos(2 * np.pi * formant_hz / rate), radius**2]
                sound = lfilter([1.0], poles, sound)
        out[start : start + length] = sound * np.hanning(length)
    return out / max(np.abs(out).max(), 1e-9) * 0.5


@pytest.fixture(scope="session")
def tiny_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `manifest.csv`: 12 speakers × 6 utterances of about 1 s in two sessions, two noises, two rooms."""
    root = tmp_path_factory.mktemp("tiny") / "voices"
    rows = []
    for speaker in range(12):
        for utterance in range(6):
            path = f"spk{speaker:02d}/utt{utterance}.wav"
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            samples = voice(16000 + 800 * (utterance - 3), 16000, speaker, utterance)
            soundfile.write(root / path, samples.astype(np.float32), 16000)
            gender = "f" if speaker % 2 else "m"
            rows.append((path, f"spk{speaker:02d}", "tiny", f"day{utterance % 2}", gender, "speech", "1"))
    for index in range(4):
        kind = "noise" if index < 2 else "rir"
        rng = np.random.default_rng([3, index])
        samples = 0.1 * rng.standard_normal(8000)
        if kind == "rir":
            samples = samples * np.exp(-np.arange(8000) / 800)
        path = f"{kind}/{kind}{index}.wav"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / path, samples.astype(np.float32), 16000)
        rows.append((path, "", "tiny", "", "", kind, "1"))
    with (root / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "speaker", "source", "session", "gender", "kind", "synthetic"))
        writer.writerows(rows)
    return root


@pytest.fixture(scope="session")
def prepared_tiny(tiny_tree: Path) -> Path:
    """A prepared corpus of `tiny_tree`: 6 train, 3 dev and 3 test speakers. Do not write into it."""
    from parvox.corpora.prepare import PrepareSettings, prepare

    out = tiny_tree.parent / "prepared"
    prepare("csv", tiny_tree, out, PrepareSettings(dev_speakers=3, test_speakers=3))
    return out


@pytest.fixture(scope="session")
def write_recipe() -> Callable[[Path, Path], None]:
    """Write a recipe of one epoch of a small x-vector: ``write_recipe(path, corpus)``."""

    def write(path: Path, corpus: Path) -> None:
        path.write_text(
            f"""
seed: 5
corpus: {corpus}
model:
  name: xvector
  channels: [16, 16, 16, 16, 24]
  embedding_dim: 12
data:
  crop_s: 0.5
  batch_size: 8
  workers: 0
training:
  epochs: 1
  accelerator: cpu
  precision: fp32
"""
        )

    return write
