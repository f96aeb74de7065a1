"""A made-up corpus of single words, each word a chord of its own, each speaker a pitch."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
WORD_S = 0.4
PAUSE_S = 0.1


def word(speaker: int, number: int, take: int) -> np.ndarray:
    """(samples,) float32: silence, the word, silence."""
    rng = np.random.default_rng([speaker, number, take])
    time = np.arange(int(WORD_S * RATE)) / RATE
    chord = [300.0 * 1.6**number, 200.0 + 40 * speaker]
    sound = sum(np.sin(2 * np.pi * hz * time + rng.uniform(0, 6)) for hz in chord) * 0.2
    sound += 0.02 * rng.standard_normal(len(time))
    pause = np.zeros(int(PAUSE_S * RATE))
    return np.concatenate([pause, sound, pause]).astype(np.float32)


def write_words(root: Path, speakers: int = 6, words: int = 4, takes: int = 3) -> Path:
    """Recordings ``root/sSS/W_T.flac`` and a manifest with the word as text; the source is `words`."""
    rows = []
    for speaker in range(speakers):
        for number in range(words):
            for take in range(takes):
                path = root / f"s{speaker:02d}" / f"{number}_{take}.flac"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, word(speaker, number, take), RATE)
                rows.append((f"s{speaker:02d}/{path.name}", f"s{speaker:02d}", str(number), "words", "x1"))
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "speaker", "text", "source", "licence"))
        writer.writerows(rows)
    return root
