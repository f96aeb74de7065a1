"""A corpus that the program makes itself, for where there is no real speech: labelled synthetic everywhere."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from parvox.corpora.synthetic_channel import NOISE_KINDS, draw_noise, draw_room, record
from parvox.corpora.synthetic_voice import SAMPLE_RATE_HZ, Voice, draw_voice, speak
from parvox.errors import RecipeError
from parvox.files import atomic_folder
from parvox.processors import available_processors
from parvox.progress import progress

SOURCE = "parvox-synthetic"
"""What the manifests of a synthetic corpus hold in their `source` column."""
LICENCE = "CC0-1.0"
SETTINGS_FILE = "synthetic.json"
VERSION = 1
"""Raised whenever the same settings begin to give other recordings."""

_SPEECH, _NOISE, _ROOM = range(3)  # independent streams of random numbers


@dataclass(frozen=True, kw_only=True)
class SyntheticSettings:
    """What a synthetic corpus holds."""

    speakers: int = 200
    """Voices."""
    utterances: int = 12
    """Recordings of each voice."""
    min_seconds: float = 0.9
    """About the shortest recording."""
    max_seconds: float = 1.5
    """About the longest recording."""
    noises: int = 12
    """Background noises for augmentation, of six kinds in turn."""
    rooms: int = 8
    """Room impulse responses for augmentation."""
    seed: int = 0
    """Equal seeds give equal files."""

    def __post_init__(self) -> None:
        if self.speakers < 1 or self.utterances < 1 or self.noises < 0 or self.rooms < 0 or self.seed < 0:
            raise RecipeError(
                f"synthetic corpus: {self.speakers} speakers, {self.utterances} utterances, {self.noises} noises, "
                f"{self.rooms} rooms, seed {self.seed} given; expected at least 1, 1, 0, 0, 0"
            )
        if not 0.5 <= self.min_seconds <= self.max_seconds <= 60:
            raise RecipeError(
                f"synthetic corpus: recordings of {self.min_seconds} to {self.max_seconds} s given; "
                "expected 0.5 <= min_seconds <= max_seconds <= 60"
            )


def generate_synthetic(
    folder: Path, settings: SyntheticSettings | None = None, *, overwrite: bool = False, workers: int | None = None
) -> Path:
    """Write a corpus of synthetic voices, as FLAC and CSV manifests, that the `csv` importer reads.

    Voices differ in tract length, pitch, glottis and habits of speech. Each recording has a room, microphone and
    noise of its own, so the channel says nothing about the speaker. Files depend on the settings alone (given the
    same versions of NumPy, SciPy and libsndfile), not on the number of workers.

    `folder` then holds ``speech/manifest.csv``, ``speech/speakers.csv`` (the numbers behind each voice),
    ``speech/SPEAKER/UTTERANCE.flac``, ``noise/manifest.csv`` with noises and room impulse responses, and
    ``synthetic.json`` with the settings.

    Args:
        folder: Where to write; made whole or not at all.
        settings: What to make.
        overwrite: Whether an existing folder may be replaced.
        workers: Threads; all processors if None.

    Returns:
        `folder`.

    Raises:
        OutputError: `folder` exists and `overwrite` is false, or it cannot be written.
    """
    settings = settings or SyntheticSettings()
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        _write_speech(temporary / "speech", settings, workers or available_processors())
        _write_noise(temporary / "noise", settings)
        facts = {"source": SOURCE, "version": VERSION, "settings": dataclasses.asdict(settings)}
        (temporary / SETTINGS_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return Path(folder)


def read_synthetic_settings(folder: Path) -> SyntheticSettings | None:
    """The settings that made `folder`; None where this version of Parvox did not make it from settings it knows."""
    try:
        facts = json.loads((Path(folder) / SETTINGS_FILE).read_text(encoding="utf-8"))
        if facts["source"] == SOURCE and facts["version"] == VERSION:
            return SyntheticSettings(**facts["settings"])
    except (OSError, ValueError, KeyError, TypeError, RecipeError):
        pass
    return None


def write_rooms(folder: Path, count: int, seed: int) -> list[dict[str, str]]:
    """Write synthetic room impulse responses as ``rir/N.flac`` in `folder`; their rows for a noise manifest."""
    rows = []
    for index in range(count):
        room = draw_room(_random(seed, _ROOM, index))
        rows.append(_write_clip(folder, f"rir/room{index:02d}.flac", 0.5 * room, {"kind": "rir"}))
    return rows


def write_manifest(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write `rows`, all of the same columns, as CSV with a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _random(seed: int, stream: int, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream, index])


def _write_speech(folder: Path, settings: SyntheticSettings, workers: int) -> None:
    width = max(4, len(str(settings.speakers - 1)))

    def one_speaker(index: int) -> tuple[dict[str, str], list[dict[str, str]]]:
        return _write_speaker(folder, f"syn{index:0{width}d}", _random(settings.seed, _SPEECH, index), settings)

    rows: list[dict[str, str]] = []
    voices: list[dict[str, str]] = []
    with ThreadPoolExecutor(workers) as pool:  # threads: the work is in NumPy and libsndfile, which release the lock
        try:
            done = pool.map(one_speaker, range(settings.speakers))
            for voice, clips in progress(done, "synthetic voices", total=settings.speakers, unit="voice"):
                voices.append(voice)
                rows.extend(clips)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    write_manifest(folder / "manifest.csv", rows)
    write_manifest(folder / "speakers.csv", voices)


def _write_speaker(
    folder: Path, name: str, rng: np.random.Generator, settings: SyntheticSettings
) -> tuple[dict[str, str], list[dict[str, str]]]:
    voice = draw_voice(rng)
    rows = []
    for index in range(settings.utterances):
        said, text = speak(voice, rng.uniform(settings.min_seconds, settings.max_seconds), rng)
        row = {"session": f"{name}-{index:02d}", "text": text, "lang": "zxx", "gender": voice.gender}
        samples = record(said, rng)
        rows.append(_write_clip(folder, f"{name}/{name}-{index:02d}.flac", samples, {"speaker": name}, row))
    return _describe(name, voice), rows


def _describe(name: str, voice: Voice) -> dict[str, str]:
    numbers = {key: value for key, value in dataclasses.asdict(voice).items() if isinstance(value, float)}
    return {
        "speaker": name,
        "source": SOURCE,
        "gender": voice.gender,
        **{key: f"{value:.4g}" for key, value in numbers.items()},
    }


def _write_noise(folder: Path, settings: SyntheticSettings) -> None:
    rows = []
    for index in range(settings.noises):
        rng = _random(settings.seed, _NOISE, index)
        kind = NOISE_KINDS[index % len(NOISE_KINDS)]
        noise = draw_noise(kind, rng.uniform(4, 8), rng)
        noise *= min(0.05, 0.9 / np.max(np.abs(noise)))
        rows.append(_write_clip(folder, f"noise/{kind}{index:02d}.flac", noise, {"kind": "noise"}))
    rows.extend(write_rooms(folder, settings.rooms, settings.seed))
    if rows:
        write_manifest(folder / "manifest.csv", rows)


def _write_clip(
    folder: Path,
    path: str,
    samples: NDArray[np.float64],
    before: dict[str, str],
    after: dict[str, str] | None = None,
) -> dict[str, str]:
    """Write one FLAC; its manifest row, with the columns `before` and `after` those of every clip."""
    encoded = io.BytesIO()  # so that a full disk is an OSError, not one of libsndfile's own
    soundfile.write(encoded, samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(encoded.getvalue())
    seconds = f"{len(samples) / SAMPLE_RATE_HZ:.3f}"
    return {"path": path, **before, "source": SOURCE, "seconds": seconds, "licence": LICENCE, **(after or {})}
