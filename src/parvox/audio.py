"""Recordings in: decoding, down-mixing and resampling, with every unusable recording named and explained."""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from parvox.errors import AudioError

Reason = Literal[
    "missing", "unreadable", "empty", "truncated", "silent", "not finite", "bad rate", "too short", "too long"
]
"""Why a recording cannot be used, in one or two words."""

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".sph", ".w64"})
"""File names that folder searches take for recordings; `read_audio` itself looks at the content, not the name."""

_EXPECTED = "WAV, FLAC, OGG or MP3 is expected"
_BLOCK_FRAMES = 1 << 18
_UNKNOWN_FRAMES = 1 << 62  # libsndfile reports 2^63 - 1 for a FLAC stream whose header leaves the length open
_STREAM_BYTES = 0x7FFF0000  # WAV writers that cannot seek back announce 2 or 4 GiB
_RATES_HZ = (1_000, 768_000)


class RecordingError(AudioError):
    """An `AudioError` that also says in a word what is wrong, for tables of rejected recordings.

    Args:
        reason: The kind of problem.
        message: The one line for people.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason

    def __reduce__(self) -> tuple[type[RecordingError], tuple[str, str]]:
        return RecordingError, (self.reason, str(self))  # worker processes hand errors over pickled


@dataclass(frozen=True)
class Audio:
    """A decoded recording.

    Attributes:
        samples: (samples,) float32, one channel, within [-1, 1] up to resampling overshoot.
        sample_rate_hz: Rate of `samples`.
        native_rate_hz: Rate the recording was stored at.
        native_channels: Channels the recording was stored with.
        duration_s: How long `samples` lasts.
        name: Where it came from, for messages.
    """

    samples: NDArray[np.float32] = field(repr=False)
    sample_rate_hz: int
    native_rate_hz: int
    native_channels: int
    duration_s: float
    name: str = "recording"


def read_audio(
    source: str | os.PathLike[str] | bytes | BinaryIO,
    sample_rate_hz: int = 16000,
    *,
    max_duration_s: float | None = None,
    min_duration_s: float = 0.0,
    cut: bool = False,
    name: str | None = None,
) -> Audio:
    """Decode a recording to one channel at one rate.

    WAV, FLAC, OGG (Vorbis, Opus) and MP3, whatever the file's name ends in; integer formats are scaled to [-1, 1],
    channels are averaged, and the rate is changed by soxr at its HQ setting. A recording that exceeds [-1, 1] (float
    files and lossy codecs can) is scaled so that its peak is 1 rather than clipped, for clipping would distort it and
    speaker models with mean-normalised features do not hear its level.

    Args:
        source: A path, the bytes of a file, or an open binary file.
        sample_rate_hz: The rate wanted.
        max_duration_s: The longest recording allowed; a longer one is refused from its header, before decoding.
        min_duration_s: The shortest recording allowed.
        cut: Use the first `max_duration_s` of a longer recording instead of refusing it.
        name: What to call the recording in messages; its path unless given.

    Raises:
        RecordingError: it is missing, a folder, not audio, truncated, without samples, digitally silent, not finite,
            or not of the duration asked for.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        name = _shown(name or str(path))
        _check_file(path, name)
        # A name need not be valid text, but its bytes always are a name; Windows wants text.
        sound: str | bytes | BinaryIO = str(path) if sys.platform == "win32" else os.fsencode(path)
    else:
        if isinstance(source, bytes):
            source = io.BytesIO(source)
        name = _shown(name or str(getattr(source, "name", "recording")))
        sound = source if source.seekable() else io.BytesIO(source.read())
        if not sound.seek(0, io.SEEK_END):
            raise RecordingError("empty", f"{name}: empty, 0 bytes; {_EXPECTED}")
        sound.seek(0)
        sound = cast(BinaryIO, _Stream(sound))
    return _decode(sound, name, sample_rate_hz, max_duration_s, min_duration_s, cut)


class _Sequential(soundfile.SoundFile):
    """A sound file read from front to back: `SoundFile` would seek after each block, which streams cannot."""

    def seekable(self) -> bool:
        return False


class _Stream:
    """A file-like source that a damaged header cannot make raise: inside libsndfile's callback, where seeks to
    impossible places come from, an exception would print a stack trace and be lost.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._source.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1


def _check_file(path: Path, name: str) -> None:
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            path.open("rb").close()
    except FileNotFoundError:
        raise RecordingError("missing", f"{name}: no such file; give the path of a recording") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        words = getattr(error, "strerror", None) or str(error)
        raise RecordingError("unreadable", f"{name}: cannot be opened ({words}); {_EXPECTED}") from None
    if stat.S_ISDIR(status.st_mode):
        raise RecordingError("unreadable", f"{name}: a folder; one recording is expected, {_EXPECTED}")
    if not stat.S_ISREG(status.st_mode):
        raise RecordingError("unreadable", f"{name}: not a regular file; {_EXPECTED}")
    if status.st_size == 0:
        raise RecordingError("empty", f"{name}: empty, 0 bytes; {_EXPECTED}")


def _decode(
    source: str | bytes | BinaryIO,
    name: str,
    sample_rate_hz: int,
    max_duration_s: float | None,
    min_duration_s: float,
    cut: bool,
) -> Audio:
    try:
        sound: Any = _Sequential(source)
    except soundfile.LibsndfileError as error:
        words = error.error_string.rstrip(". ").lower()
        raise RecordingError("unreadable", f"{name}: not a recording that can be read ({words}); {_EXPECTED}") from None
    except TypeError:  # soundfile believes the suffix .raw and asks for the rate
        raise RecordingError("unreadable", f"{name}: named as raw audio without a header; {_EXPECTED}") from None
    with sound:
        rate_hz, channels = int(sound.samplerate), int(sound.channels)
        if not _RATES_HZ[0] <= rate_hz <= _RATES_HZ[1]:
            raise RecordingError(
                "bad rate", f"{name}: a sample rate of {rate_hz} Hz; {_RATES_HZ[0]} to {_RATES_HZ[1]} Hz is expected"
            )
        announced: int | None = sound.frames if sound.frames < _UNKNOWN_FRAMES else None
        limit = None if max_duration_s is None else int(max_duration_s * rate_hz)
        if limit is not None and not cut and announced is not None and announced > limit:
            raise _too_long(name, f"{announced / rate_hz:.1f} s", max_duration_s)
        if announced is not None and not cut:
            _check_riff(sound, name)
        mono, loudest = _read_mono(sound, name, limit)
    if limit is not None and len(mono) > limit:
        if not cut:
            raise _too_long(name, f"more than {limit / rate_hz:.1f} s", max_duration_s)
        mono = mono[:limit]
    elif announced is not None and len(mono) < announced:
        raise _truncated(name, len(mono) / rate_hz, announced / rate_hz)
    duration_s = len(mono) / rate_hz
    if len(mono) == 0:
        raise RecordingError("empty", f"{name}: no samples, only a header; record it again")
    if duration_s < min_duration_s:
        raise RecordingError("too short", f"{name}: {duration_s:.3g} s; at least {min_duration_s:.3g} s is expected")
    if mono.min() == mono.max():
        why = "its channels cancel each other" if loudest > 0 and channels > 1 and not mono[0] else "digital silence"
        raise RecordingError("silent", f"{name}: {why}, {duration_s:.3g} s; a recording of speech is expected")
    peak = float(np.abs(mono).max())
    if peak > 1.0:
        mono = mono / np.float32(peak)
    if rate_hz != sample_rate_hz:
        mono = soxr.resample(mono, rate_hz, sample_rate_hz, quality="HQ")
    samples = np.ascontiguousarray(mono, dtype=np.float32)
    if not len(samples):
        raise RecordingError("too short", f"{name}: {duration_s:.3g} s; too short to change its rate of {rate_hz} Hz")
    return Audio(samples, sample_rate_hz, rate_hz, channels, len(samples) / sample_rate_hz, name)


def _read_mono(sound: Any, name: str, limit: int | None) -> tuple[NDArray[np.float32], float]:
    """The mean of the channels, up to one frame past `limit`, and the loudest sample of any channel."""
    blocks: list[NDArray[np.float32]] = []
    total, loudest = 0, 0.0
    while limit is None or total <= limit:
        wanted = _BLOCK_FRAMES if limit is None else min(_BLOCK_FRAMES, limit + 1 - total)
        try:
            block: NDArray[np.float32] = sound.read(wanted, dtype="float32", always_2d=True)  # (frames, channels)
        except soundfile.LibsndfileError as error:
            words = error.error_string.rstrip(". ").lower()
            at = f"after {total / sound.samplerate:.1f} s" if total else "at its beginning"
            raise RecordingError(
                "truncated", f"{name}: damaged or truncated, decoding stopped {at} ({words}); get a whole copy"
            ) from None
        if not len(block):
            break
        if not np.isfinite(block).all():
            raise RecordingError("not finite", f"{name}: NaN or infinite samples; every sample must be a finite number")
        loudest = max(loudest, float(np.abs(block).max()))
        blocks.append(block[:, 0] if block.shape[1] == 1 else block.mean(axis=1))
        total += len(block)
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32), loudest


def _check_riff(sound: Any, name: str) -> None:
    """Refuse a WAV or AIFF file whose data chunk ends beyond the file; libsndfile reads what is there and is quiet.

    Its log is the only place where it tells. Formats without such a chunk are judged by the frames they yield.
    """
    found = re.search(r"^ ?(?:data|SSND) : (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
    if found is None:
        return
    announced, there = int(found[1]), int(found[2])
    if there < announced < _STREAM_BYTES:
        seconds = sound.frames / sound.samplerate
        raise _truncated(name, seconds, seconds * announced / max(there, 1))


def _truncated(name: str, there_s: float, announced_s: float) -> RecordingError:
    return RecordingError(
        "truncated",
        f"{name}: truncated, {there_s:.1f} s of the {announced_s:.1f} s that its header announces; get a whole copy",
    )


def _too_long(name: str, duration: str, max_duration_s: float | None) -> RecordingError:
    return RecordingError(
        "too long",
        f"{name}: {duration}; at most {max_duration_s:g} s is expected: use its beginning (cut) or raise the limit "
        "(max_duration_s)",
    )


def _shown(name: str) -> str:
    """`name` on one line, whatever is in it."""
    return name if name.isprintable() else ascii(name)
