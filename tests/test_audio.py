"""Reading recordings: what comes out is right, and what cannot be used is named."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from parvox.audio import Audio, RecordingError, read_audio

RATE = 16000


def tone(seconds: float = 1.0, rate: int = RATE, hz: float = 440.0, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def refusal(source: object, **options: object) -> RecordingError:
    with pytest.raises(RecordingError) as caught:
        read_audio(source, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "subtype", "tolerance"),
    [
        ("WAV", "PCM_16", 1 / 32768),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_U8", 1 / 100),
        ("WAV", "FLOAT", 0.0),
        ("WAV", "DOUBLE", 0.0),
        ("FLAC", "PCM_16", 1 / 32768),
        ("OGG", "VORBIS", 0.05),
        ("OGG", "OPUS", 0.05),
    ],
)
def test_formats_give_the_samples_that_went_in(kind: str, subtype: str, tolerance: float) -> None:
    samples = tone(0.5)
    audio = read_audio(encoded(samples, kind=kind, subtype=subtype))
    assert audio.samples.dtype == np.float32
    assert audio.samples.shape == samples.shape
    inner = slice(800, -800)  # codecs blur the edges of a tone that starts at once
    assert np.abs(audio.samples - samples)[inner].max() <= tolerance


def test_mp3_holds_the_tone() -> None:
    audio = read_audio(encoded(tone(1.0), kind="MP3"))
    assert audio.duration_s == pytest.approx(1.0, abs=0.01)
    spectrum = np.abs(np.fft.rfft(audio.samples))
    assert np.argmax(spectrum) * RATE / len(audio.samples) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_any_rate_becomes_the_rate_asked_for(rate: int) -> None:
    audio = read_audio(encoded(tone(1.0, rate), rate, subtype="FLOAT"))
    assert (audio.sample_rate_hz, audio.native_rate_hz) == (RATE, rate)
    assert abs(len(audio.samples) - RATE) <= 1
    inner = slice(1000, -1000)
    wanted = tone(1.0)[: len(audio.samples)]
    assert np.abs(audio.samples[inner] - wanted[: len(audio.samples)][inner]).max() < 1e-3


def test_resampling_down_removes_what_the_lower_rate_cannot_hold() -> None:
    audio = read_audio(encoded(tone(1.0, 48000, hz=12000), 48000, subtype="FLOAT"))
    assert np.abs(audio.samples[1000:-1000]).max() < 1e-3


def test_stereo_is_the_mean_of_its_channels() -> None:
    left, right = tone(0.3, hz=300), tone(0.3, hz=500)
    audio = read_audio(encoded(np.stack([left, right], 1), subtype="FLOAT"))
    assert audio.native_channels == 2
    np.testing.assert_allclose(audio.samples, (left + right) / 2, atol=1e-7)


def test_samples_beyond_full_scale_are_scaled_not_clipped() -> None:
    loud = 7.5 * tone(0.3)
    audio = read_audio(encoded(loud, subtype="FLOAT"))
    np.testing.assert_allclose(audio.samples, loud / np.abs(loud).max(), atol=1e-6)


def test_sources_of_every_sort_agree(tmp_path: Path) -> None:
    data = encoded(tone(0.2))
    path = tmp_path / "a.txt"  # the content counts, not the name
    path.write_bytes(data)

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.inner = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            return self.inner.readinto(buffer)

    with path.open("rb") as opened:
        everything = [read_audio(source) for source in (path, str(path), data, io.BytesIO(data), opened, Pipe())]
    for audio in everything:
        np.testing.assert_array_equal(audio.samples, everything[0].samples)
    assert everything[0].name == str(path)
    assert read_audio(data, name="upload").name == "upload"


def test_a_recording_is_not_printed_with_its_samples() -> None:
    assert "samples=" not in repr(read_audio(encoded(tone(0.1))))


def test_names_that_are_not_text_can_be_read(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.wav"))
    path.write_bytes(encoded(tone(0.2)))
    assert read_audio(path).duration_s == pytest.approx(0.2)
    path.write_bytes(b"not audio at all")
    refusal(path)


def test_missing(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.wav").reason == "missing"


def test_names_no_file_can_have(tmp_path: Path) -> None:
    assert refusal("a\0b.wav").reason == "unreadable"
    assert refusal(tmp_path / ("x" * 300)).reason == "unreadable"


def test_folder(tmp_path: Path) -> None:
    error = refusal(tmp_path)
    assert error.reason == "unreadable"
    assert "folder" in str(error)


def test_device() -> None:
    assert "not a regular file" in str(refusal("/dev/null"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(tone(0.2)))
    path.chmod(0)
    assert refusal(path).reason == "unreadable"


def test_raw_suffix(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(1000))
    assert refusal(path).reason == "unreadable"


@pytest.mark.parametrize("data", [b"some words\n" * 50, b"PK\x03\x04" + bytes(200), bytes(5000), b"RIFF", b"fLaC"])
def test_not_audio(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    error = refusal(path)
    assert error.reason == "unreadable"
    assert "WAV, FLAC, OGG or MP3" in str(error)


def test_empty_files(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert refusal(tmp_path / "a.wav").reason == "empty"
    assert refusal(b"").reason == "empty"


def test_zero_samples() -> None:
    assert refusal(encoded(np.zeros(0, np.float32))).reason == "empty"


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_digital_silence(kind: str) -> None:
    assert refusal(encoded(np.zeros(RATE, np.float32), kind=kind)).reason == "silent"
    assert refusal(encoded(np.full(RATE, 0.25, np.float32), kind=kind)).reason == "silent"


def test_channels_that_cancel() -> None:
    error = refusal(encoded(np.stack([tone(), -tone()], 1), subtype="FLOAT"))
    assert error.reason == "silent"
    assert "cancel" in str(error)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_not_finite(bad: float, channels: int) -> None:
    samples = np.repeat(tone()[:, None], channels, axis=1)
    samples[5000, -1] = bad
    assert refusal(encoded(samples, subtype="FLOAT")).reason == "not finite"


def test_too_short() -> None:
    error = refusal(encoded(tone(0.05)), min_duration_s=0.5)
    assert error.reason == "too short"
    assert "0.05 s" in str(error)
    assert "0.5 s" in str(error)
    assert read_audio(encoded(tone(0.5)), min_duration_s=0.5).duration_s == 0.5


def test_one_sample_at_a_high_rate() -> None:
    assert refusal(encoded(np.array([0.5, -0.5]), 768_000)).reason == "too short"


def three_hours(tmp_path: Path) -> Path:
    """A sparse WAV of three hours: reading it would take 345 MB of samples."""
    path = tmp_path / "long.wav"
    size = 3 * 3600 * RATE * 2
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", size
    )  # fmt: skip
    with path.open("wb") as file:
        file.write(header + encoded(tone(2.0))[44:])
        file.truncate(len(header) + size)
    return path


def test_three_hours_are_refused_from_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundfile.SoundFile, "read", None)  # decoding anything would fail
    error = refusal(three_hours(tmp_path), max_duration_s=600)
    assert error.reason == "too long"
    assert "10800.0 s" in str(error)
    assert "600 s" in str(error)


def test_three_hours_are_cut_without_decoding_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = 0
    read = soundfile.SoundFile.read

    def counting(self: soundfile.SoundFile, frames: int, **options: object) -> np.ndarray:
        nonlocal decoded
        block = read(self, frames, **options)
        decoded += len(block)
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    audio = read_audio(three_hours(tmp_path), max_duration_s=2.0, cut=True)
    assert audio.duration_s == 2.0
    assert decoded <= 2 * RATE + 1
    assert audio.samples.any()


def without_length(flac: bytes) -> bytes:
    """The FLAC with the header's count of samples set to 0, unknown, as a live encoder leaves it."""
    data = bytearray(flac)
    assert data[:4] == b"fLaC"
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def test_unknown_length() -> None:
    whole = encoded(tone(3.0), kind="FLAC")
    audio = read_audio(without_length(whole))
    np.testing.assert_array_equal(audio.samples, read_audio(whole).samples)
    assert refusal(without_length(whole), max_duration_s=1.0).reason == "too long"
    assert read_audio(without_length(whole), max_duration_s=1.0, cut=True).duration_s == 1.0


@pytest.mark.parametrize("announced", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_streamed_wav(announced: int) -> None:
    data = bytearray(encoded(tone(1.0)))
    data[40:44] = struct.pack("<I", announced)
    assert read_audio(bytes(data)).duration_s == 1.0


@pytest.mark.parametrize("kind", ["FLAC", "WAV", "AIFF", "MP3"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_truncated(kind: str, kept: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 4 * RATE).astype(np.float32)
    whole = encoded(noise, kind=kind)
    path = tmp_path / "a"
    path.write_bytes(whole[: int(len(whole) * kept)])
    assert refusal(path).reason == "truncated"


@pytest.mark.parametrize("rate", [1, 999, 800_000])
def test_rates_that_are_no_rates(rate: int) -> None:
    assert refusal(encoded(tone(0.5), rate)).reason == "bad rate"


def test_errors_survive_worker_processes() -> None:
    error = copy.copy(refusal(b""))  # rebuilt the way multiprocessing rebuilds what a worker raised
    assert (type(error), error.reason) == (RecordingError, "empty")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["WAV", "FLAC", "OGG", "MP3", "AIFF"]))
    damaged = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, min(len(damaged) - 1, 400)))] = data.draw(st.integers(0, 255))
    audio: Audio | None = None
    with contextlib.suppress(RecordingError):  # anything else that is raised fails the test
        audio = read_audio(bytes(damaged[: data.draw(st.integers(1, len(damaged)))]), max_duration_s=20)
    if audio is not None:
        assert np.isfinite(audio.samples).all()
        assert audio.samples.ndim == 1


def test_damage_prints_no_stack_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    traces: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", traces.append)  # where errors inside libsndfile's callbacks end
    damaged = bytearray(WHOLE["AIFF"])
    damaged[41] = 189  # the data begin far behind the file's end
    with contextlib.suppress(RecordingError):
        read_audio(bytes(damaged))
    assert not traces


WHOLE = {kind: encoded(tone(0.3), kind=kind) for kind in ("WAV", "FLAC", "OGG", "MP3", "AIFF")}


def test_real_recordings(real_corpus: Path) -> None:
    paths = sorted(real_corpus.rglob("*.flac"))[:: max(1, len(list(real_corpus.rglob("*.flac"))) // 25)]
    assert len(paths) >= 20
    for path in paths:
        audio = read_audio(path)
        wanted, rate = soundfile.read(path, dtype="float32")
        assert rate == audio.sample_rate_hz
        np.testing.assert_array_equal(audio.samples, wanted)
