"""Phrases joined from recordings of single words, as audio files of their own.

They are written out rather than kept as compound cuts: whatever reads a prepared corpus then meets one file an
utterance, as everywhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from parvox.audio import read_audio
from parvox.corpora.entries import Entry, Piece
from parvox.corpora.join_plan import Joint
from parvox.corpora.join_settings import JoinSettings
from parvox.progress import progress

Samples = NDArray[np.float32]

_FRAME_S = 0.01
_MARGIN_S = 0.05
_FADE_S = 0.005


def write_joints(
    joints: Sequence[Joint], folder: Path, settings: JoinSettings, sample_rate_hz: int, jobs: int
) -> list[Entry]:
    """Join phrases and write each as 16-bit FLAC, ``folder/ID.flac``.

    Args:
        joints: What to join.
        folder: Where to write.
        settings: Trimming and gaps.
        sample_rate_hz: The corpus's rate.
        jobs: Threads.

    Returns:
        An entry for each, in the order given. What is known of the words stays known: source, session, gender,
        language, split.

    Raises:
        AudioError: A recording cannot be read.
    """

    def one(joint: Joint) -> Entry:
        words = [
            trimmed(read_audio(entry.path, sample_rate_hz).samples, sample_rate_hz, settings.trim_db)
            for entry in joint.words
        ]
        samples, starts = join(words, round(settings.gap_s * sample_rate_hz), round(_FADE_S * sample_rate_hz))
        path = folder / f"{joint.id}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16)
        soundfile.write(str(path), whole, sample_rate_hz, format="FLAC", subtype="PCM_16")
        return _entry(joint, path, words, starts, sample_rate_hz)

    pool = ThreadPoolExecutor(jobs)
    try:
        results: Iterator[Entry] = pool.map(one, joints)
        return list(progress(results, "joining", total=len(joints), unit="phrase"))
    finally:
        pool.shutdown(cancel_futures=True)


def trimmed(samples: Samples, sample_rate_hz: int, trim_db: float) -> Samples:
    """`samples` (samples,) without its quiet ends.

    The level is that of frames of 10 ms; what lies within 0.05 s of a frame less than `trim_db` below the loudest one
    stays.
    """
    frame = max(round(_FRAME_S * sample_rate_hz), 1)
    padded = np.pad(samples, (0, -len(samples) % frame)).reshape(-1, frame)
    level = np.sqrt(np.mean(np.square(padded, dtype=np.float64), axis=1))
    if not trim_db or not level.any():
        return samples
    loud = np.flatnonzero(level > level.max() * 10 ** (-trim_db / 20))
    margin = round(_MARGIN_S * sample_rate_hz)
    return samples[max(loud[0] * frame - margin, 0) : (loud[-1] + 1) * frame + margin]


def join(words: Sequence[Samples], gap: int, fade: int) -> tuple[Samples, list[int]]:
    """Words one after the other.

    Args:
        words: (samples,) each.
        gap: Samples of silence between them.
        fade: Samples over which each begins and ends, so that the cuts do not click.

    Returns:
        The phrase (samples,), and where each word starts in it.
    """
    starts, position = [], 0
    whole = np.zeros(sum(map(len, words)) + gap * (len(words) - 1), np.float32)
    for word in words:
        starts.append(position)
        ramp = np.minimum(np.arange(1, len(word) + 1) / (fade + 1), 1.0)
        whole[position : position + len(word)] = word * np.minimum(ramp, ramp[::-1])
        position += len(word) + gap
    return whole, starts


def _entry(joint: Joint, path: Path, words: Sequence[Samples], starts: Sequence[int], rate_hz: int) -> Entry:
    first = joint.words[0]
    return Entry(
        path=path,
        id=joint.id,
        source=first.source,
        speaker=first.speaker,
        session=first.session,
        recording=joint.recording,
        text=joint.text,
        language=first.language,
        gender=first.gender,
        split=first.split,
        pieces=tuple(
            Piece(entry.id, str(entry.text), start / rate_hz, len(word) / rate_hz)
            for entry, word, start in zip(joint.words, words, starts, strict=True)
        ),
    )
