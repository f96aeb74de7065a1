"""Decode every recording once: is it sound, how long is it, has it been seen before?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import soundfile

from parvox.audio import RecordingError, read_audio
from parvox.corpora.entries import Entry, Rejected
from parvox.progress import progress

_BATCH = 64  # recordings handed to a thread at once
_MIN_NOISE_S = 0.02
_MAX_NOISE_S = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What decoding a recording told.

    Attributes:
        rate_hz: Rate of the file.
        channels: Channels of the file.
        samples: Samples a channel, counted rather than read from the header.
        content: Hash of the rate and the down-mixed samples; equal for copies of one recording, whatever lossless
            format they are kept in.
    """

    rate_hz: int
    channels: int
    samples: int
    content: str


@dataclass(frozen=True)
class Limits:
    """What a recording must satisfy."""

    sample_rate_hz: int
    min_duration_s: float
    max_duration_s: float
    allow_upsampling: bool


def check_recordings(
    entries: Sequence[Entry], limits: Limits, root: Path, jobs: int
) -> tuple[list[tuple[Entry, Facts]], list[Rejected]]:
    """Decode all recordings; those that cannot be used are told apart, never raised.

    Args:
        entries: What to decode.
        limits: What each must satisfy.
        root: Rejected paths are given relative to it.
        jobs: Threads. Decoding and hashing release Python's lock.

    Returns:
        The sound ones with their facts, in the order given, and the rejected ones.
    """
    good: list[tuple[Entry, Facts]] = []
    bad: list[Rejected] = []
    batches = [entries[start : start + _BATCH] for start in range(0, len(entries), _BATCH)]

    def one_batch(batch: Sequence[Entry]) -> list[Facts | Rejected]:
        return [_check(entry, limits, root) for entry in batch]

    def results(pool: ThreadPoolExecutor) -> Iterator[tuple[Entry, Facts | Rejected]]:
        for batch, answers in zip(batches, pool.map(one_batch, batches), strict=True):
            yield from zip(batch, answers, strict=True)

    pool = ThreadPoolExecutor(jobs)
    try:
        for entry, answer in progress(results(pool), "decoding", total=len(entries), unit="file"):
            if isinstance(answer, Facts):
                good.append((entry, answer))
            else:
                bad.append(answer)
    finally:
        pool.shutdown(cancel_futures=True)
    return good, bad


def shown_path(path: Path, root: Path) -> str:
    """`path` relative to `root` where it lies under it, with forward slashes."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.as_posix()


def _check(entry: Entry, limits: Limits, root: Path) -> Facts | Rejected:
    try:
        return _decode(entry, limits)
    except RecordingError as error:
        path = shown_path(entry.path, root)
        detail = str(error).removeprefix(f"{entry.path}: ")
        return Rejected(path, error.reason, detail)
    except _WrongRate as error:
        return Rejected(shown_path(entry.path, root), "wrong rate", str(error))


class _WrongRate(Exception):
    pass


def _decode(entry: Entry, limits: Limits) -> Facts:
    rate_hz = _header_rate(entry.path)
    if rate_hz is not None and not limits.allow_upsampling:
        native_hz = min(rate_hz, entry.native_rate_hz or rate_hz)
        if native_hz < limits.sample_rate_hz:
            where = "at" if native_hz == rate_hz else f"in a file of {rate_hz} Hz, but"
            raise _WrongRate(
                f"recorded {where} {native_hz} Hz, the corpus is at {limits.sample_rate_hz} Hz; upsampled speech lacks "
                "its upper band, which models learn instead of voices: lower --sample_rate_hz, or --allow_upsampling"
            )
    speech = entry.kind == "speech"
    audio = read_audio(
        entry.path,
        rate_hz or limits.sample_rate_hz,
        min_duration_s=limits.min_duration_s if speech else _MIN_NOISE_S,
        max_duration_s=limits.max_duration_s if speech else _MAX_NOISE_S,
    )
    digest = hashlib.blake2b(f"{audio.native_rate_hz} ".encode(), digest_size=16)
    digest.update(audio.samples.data)
    return Facts(audio.native_rate_hz, audio.native_channels, len(audio.samples), digest.hexdigest())


def _header_rate(path: Path) -> int | None:
    """The file's rate; None if its header cannot be read, which decoding will then explain."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        return int(soundfile.info(str(path)).samplerate) or None
    except (soundfile.LibsndfileError, OSError, TypeError, ValueError):
        return None


def drop_duplicates(
    checked: Sequence[tuple[Entry, Facts]], root: Path, keep: frozenset[str] = frozenset()
) -> tuple[list[tuple[Entry, Facts]], list[Rejected]]:
    """Leave out all but the first of recordings with the same samples.

    Args:
        checked: Recordings in order.
        root: Rejected paths are given relative to it.
        keep: Ids that stay whatever they repeat, because a given trial list names them.
    """
    first: dict[str, Entry] = {}
    for entry, facts in checked:
        if entry.id in keep:
            first.setdefault(facts.content, entry)
    good: list[tuple[Entry, Facts]] = []
    bad: list[Rejected] = []
    for entry, facts in checked:
        original = first.setdefault(facts.content, entry)
        if original is entry or entry.id in keep:
            good.append((entry, facts))
            continue
        other = " of another speaker" if original.speaker != entry.speaker else ""
        same = shown_path(original.path, root)
        bad.append(Rejected(shown_path(entry.path, root), "duplicate", f"same samples as {same}{other}"))
    return good, bad
