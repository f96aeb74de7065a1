"""Recordings that can be read by number, any part of them, quickly and from many processes."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from parvox.audio import read_audio
from parvox.corpora.phrases import phrase_of
from parvox.corpora.shards import shard_of
from parvox.errors import AudioError, CorpusError

if TYPE_CHECKING:
    from lhotse.cut import Cut

_INT16 = 32768.0
# In these containers libsndfile seeks to the exact sample; in lossy ones the decoder's state depends on the start.
_SEEKABLE = {"WAV", "WAVEX", "RF64", "W64", "FLAC", "AIFF", "AU", "NIST", "CAF"}


class Recordings:
    """The audio of a Lhotse cut set, by number.

    Keeps where each cut's samples lie in a few arrays instead of millions of objects, so that forked workers share
    them. Decoded audio is kept in memory that workers share as well, as far as it fits: each recording is decoded
    once, by whoever needs it first.

    Args:
        cuts: Any cuts with audio; several channels are averaged, as `parvox.audio.read_audio` does.
        sample_rate_hz: The rate that all of them must have.
        cache_bytes: Memory for decoded audio; the first recordings that fit are kept.
        full_precision: Keep float samples as they are. Otherwise samples are rounded to 16 bits, cached or not, which
            changes nothing for 16-bit recordings and halves the memory.
        with_phrases: Keep what each recording says.

    Attributes:
        samples: (recordings,) int64, the length of each.
        speakers: The speaker names, sorted; empty where a cut has none.
        labels: (recordings,) int64, the place of each recording's speaker in `speakers`, -1 without one.
        phrases: What is said, sorted; empty unless asked for.
        phrase_labels: (recordings,) int64, the place of each recording's phrase in `phrases`; empty likewise.

    Raises:
        CorpusError: A cut has another rate or no samples, or the set is empty; a phrase is asked for and not known.
    """

    def __init__(
        self,
        cuts: Iterable[Cut],
        sample_rate_hz: int,
        *,
        cache_bytes: int = 0,
        full_precision: bool = False,
        with_phrases: bool = False,
    ) -> None:
        self.sample_rate_hz = sample_rate_hz
        ids: list[str] = []
        paths: list[str] = []
        spoken_by: list[str | None] = []
        said: list[str] = []
        spans: list[tuple[int, int, int]] = []  # first sample, samples, channel in the file
        self._other: dict[int, Cut] = {}  # whatever is not simply part of a file
        for number, cut in enumerate(cuts):
            span = _checked_span(cut, sample_rate_hz)
            if _plain_path(cut) is None:
                self._other[number] = cut
            ids.append(cut.id)
            paths.append(_any_path(cut))
            spans.append(span)
            spoken_by.append(cut.supervisions[0].speaker if cut.supervisions else None)
            if with_phrases:
                said.append(sys.intern(phrase_of(cut)))
        if not ids:
            raise CorpusError("a set of recordings is empty; expected at least one: prepare the corpus again")
        self._ids, self._paths = _Strings(ids), _Strings(paths)
        first, samples, channel = np.array(spans, np.int64).T
        self._first, self.samples, self._channel = first, np.ascontiguousarray(samples), channel
        self.speakers = sorted({name for name in spoken_by if name is not None})
        place = {name: index for index, name in enumerate(self.speakers)}
        self.labels = np.array([-1 if name is None else place[name] for name in spoken_by], np.int64)
        self.phrases = sorted(set(said))
        place = {phrase: index for index, phrase in enumerate(self.phrases)}
        self.phrase_labels = np.array([place[phrase] for phrase in said], np.int64)
        self._dtype: Any = np.float32 if full_precision else np.int16
        self._cache = _Cache(self.samples, cache_bytes, self._dtype)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def cache_bytes(self) -> int:
        """Memory that the cache takes once it is full."""
        return self._cache.nbytes

    def id(self, number: int) -> str:
        """The cut id of a recording."""
        return self._ids[number]

    def read(self, number: int, start: int = 0, count: int | None = None) -> np.ndarray:
        """Samples of a recording.

        Args:
            number: Which recording.
            start: First sample, counted from the start of the cut.
            count: How many; all that follow if None.

        Returns:
            (count,) float32, in [-1, 1] unless `full_precision` let louder ones be.

        Raises:
            CorpusError: The audio is gone, broken or shorter than its manifest says.
        """
        count = int(self.samples[number]) - start if count is None else count
        kept = self._cache.slot(number)
        if kept is None:
            samples = self._decode(number, start, count)
        else:
            if not self._cache.filled[number]:
                kept[:] = self._decode(number, 0, len(kept))
                self._cache.filled[number] = True  # last, so that nobody reads a slot half filled
            samples = kept[start : start + count]
        if samples.dtype == np.int16:
            scaled: np.ndarray = np.multiply(samples, np.float32(1 / _INT16), dtype=np.float32)
            return scaled
        return np.array(samples, np.float32)

    def _decode(self, number: int, start: int, count: int) -> np.ndarray:
        what = self._paths[number] or f"the audio of {self.id(number)}"
        try:
            if number in self._other:
                samples = _load(self._other[number])[start : start + count]
            else:
                samples = self._read_file(number, int(self._first[number]) + start, count)
            if samples.dtype != np.int16 and not np.isfinite(samples).all():
                raise ValueError("it holds NaN or infinite samples now")
        except (AudioError, OSError, RuntimeError, ValueError) as error:  # libsndfile's error is a RuntimeError
            raise CorpusError(
                f"cannot read {what} (utterance {self.id(number)}), which was readable when the corpus was prepared: "
                f"{_one_line(error)}; put it back, or prepare the corpus again without it"
            ) from error
        if len(samples) != count:
            raise CorpusError(
                f"{what} (utterance {self.id(number)}) has changed since the corpus was prepared: it ends "
                f"{count - len(samples)} samples early; put it back, or prepare the corpus again"
            )
        return _stored(samples, self._dtype)

    def _read_file(self, number: int, first: int, count: int) -> np.ndarray:
        with soundfile.SoundFile(self._paths[number]) as file:
            if file.samplerate != self.sample_rate_hz:
                raise ValueError(f"it is at {file.samplerate} Hz now, {self.sample_rate_hz} Hz was expected")
            if self._channel[number] >= file.channels:
                raise ValueError(f"it has {file.channels} channels now, number {self._channel[number]} was expected")
            dtype = "int16" if file.subtype == "PCM_16" and self._dtype == np.int16 else "float32"
            if file.format in _SEEKABLE:
                file.seek(min(first, file.frames))
                samples = file.read(count, dtype=dtype, always_2d=True)
            else:
                samples = file.read(first + count, dtype=dtype, always_2d=True)[first:]
        channel: np.ndarray = samples[:, self._channel[number]]
        return channel


class _Cache:
    """Memory for the first recordings that fit, shared with processes forked from this one.

    An anonymous shared mapping rather than /dev/shm, which containers keep small; its pages are taken when written.
    """

    def __init__(self, samples: np.ndarray, nbytes: int, dtype: Any) -> None:
        ends = np.cumsum(samples)
        self._samples = samples
        self._dtype: np.dtype[Any] = np.dtype(dtype)
        self.nbytes: int
        self._kept = int(np.searchsorted(ends, nbytes // self._dtype.itemsize, side="right"))
        self._ends = ends[: self._kept].copy()
        self._open()

    def _open(self) -> None:
        total = int(self._ends[-1]) if self._kept else 0
        self.nbytes = total * self._dtype.itemsize
        memory = mmap.mmap(-1, max(1, self.nbytes + self._kept))
        self._audio = np.frombuffer(memory, self._dtype, total)
        self.filled = np.frombuffer(memory, np.bool_, self._kept, offset=self.nbytes)

    def slot(self, number: int) -> np.ndarray | None:
        """Where a recording is kept; None if there is no room for it."""
        if number >= self._kept:
            return None
        end = int(self._ends[number])
        return self._audio[end - int(self._samples[number]) : end]

    # Where processes are spawned instead of forked, each has a cache of its own.
    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_audio", "filled")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


class _Strings:
    """A list of strings in two arrays: no objects whose reference counts would unshare memory after a fork."""

    def __init__(self, strings: list[str]) -> None:
        encoded = [string.encode() for string in strings]
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends = np.cumsum([len(string) for string in encoded])

    def __getitem__(self, number: int) -> str:
        start = self._ends[number - 1] if number else 0
        return self._bytes[start : self._ends[number]].tobytes().decode()


def _checked_span(cut: Cut, sample_rate_hz: int) -> tuple[int, int, int]:
    if not cut.has_recording:
        raise CorpusError(f"cut {cut.id} has no recording: prepare the corpus again")
    if cut.sampling_rate != sample_rate_hz:
        raise CorpusError(
            f"cut {cut.id} is at {cut.sampling_rate} Hz, the corpus is at {sample_rate_hz} Hz: "
            "prepare the corpus again at one rate"
        )
    if not cut.num_samples:
        raise CorpusError(f"cut {cut.id} has no samples: prepare the corpus again")
    if shard_of(cut) is not None:
        raise CorpusError(
            f"{cut.id} lies in a shard, which is read from front to back, as evaluation does; here recordings are read "
            "in any order: give the corpus that the shards were made of"
        )
    if _plain_path(cut) is None:
        return 0, cut.num_samples, 0
    source = cut.recording.sources[0]
    return round(cut.start * sample_rate_hz), cut.num_samples, source.channels.index(cut.channel)


def _plain_path(cut: Cut) -> str | None:
    """The file that a cut is simply part of; None if Lhotse has to do more than read it."""
    from lhotse.cut import MonoCut

    if not isinstance(cut, MonoCut) or cut.recording.transforms or len(cut.recording.sources) != 1:
        return None
    source = cut.recording.sources[0]
    return str(source.source) if source.type == "file" else None


def _any_path(cut: Cut) -> str:
    """The file to name when a cut cannot be read; empty if there is none."""
    sources = getattr(getattr(cut, "recording", None), "sources", [])
    return next((str(source.source) for source in sources if source.type == "file"), "")


def _load(cut: Cut) -> np.ndarray:
    from lhotse.audio.utils import AudioLoadingError, DurationMismatchError

    if _is_decoded_recording(cut):
        return read_audio(cut.recording.sources[0].source, cut.sampling_rate).samples
    try:
        samples: np.ndarray = cut.load_audio().mean(axis=0)
    except (AudioLoadingError, DurationMismatchError, AssertionError) as error:  # Lhotse asserts about missing files
        raise ValueError(str(error)) from error
    return samples


def _is_decoded_recording(cut: Cut) -> bool:
    """Whether a cut is a whole file that is only down-mixed and resampled.

    Then Parvox's own decoding reads it, so that models are trained and tested on the very samples that they will get
    when they are used; Lhotse's resampler has another filter.
    """
    from lhotse.cut import MonoCut

    if not isinstance(cut, MonoCut) or cut.start != 0 or cut.num_samples != cut.recording.num_samples:
        return False
    sources = cut.recording.sources
    # Several channels in the source mean that the cut picks one of them.
    if len(sources) != 1 or sources[0].type != "file" or sources[0].channels != [0]:
        return False
    transforms = cut.recording.transforms or []
    names = {step["name"] if isinstance(step, dict) else type(step).__name__ for step in transforms}
    return names <= {"Resample", "ParvoxDownmix"}


def _stored(samples: np.ndarray, dtype: Any) -> np.ndarray:
    if samples.dtype == dtype:
        return samples
    if dtype == np.int16:
        return np.clip(np.rint(samples * _INT16), -_INT16, _INT16 - 1).astype(np.int16)
    return samples.astype(dtype)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:200]}…"  # Lhotse's run to pages
