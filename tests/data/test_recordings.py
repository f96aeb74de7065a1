from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import MonoCut, Recording
from made_corpus import RATE, write_cut

from parvox.audio import read_audio
from parvox.corpora.check import Facts
from parvox.corpora.entries import Entry
from parvox.corpora.manifests import make_cut
from parvox.data.recordings import Recordings
from parvox.errors import CorpusError

MIB = 1 << 20


def _noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-30000, 30000, samples).astype(np.int16)


@pytest.mark.parametrize("cache_bytes", [0, MIB])
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_any_part_is_what_soundfile_reads_cached_or_not(tmp_path: Path, suffix: str, cache_bytes: int) -> None:
    cuts = [write_cut(tmp_path / f"{i}{suffix}", _noise(5000 + i, seed=i), f"s{i % 2}") for i in range(3)]
    recordings = Recordings(cuts, RATE, cache_bytes=cache_bytes)
    assert recordings.samples.tolist() == [5000, 5001, 5002]
    assert recordings.speakers == ["s0", "s1"]
    assert recordings.labels.tolist() == [0, 1, 0]
    for number in (1, 1, 2):
        expected, _ = soundfile.read(tmp_path / f"{number}{suffix}", dtype="float32")
        np.testing.assert_array_equal(recordings.read(number, 1234, 77), expected[1234 : 1234 + 77])
        np.testing.assert_array_equal(recordings.read(number), expected)
    assert recordings.id(2) == "2"


def test_a_cut_from_the_middle_of_one_channel(tmp_path: Path) -> None:
    stereo = np.stack([_noise(8000, 1), _noise(8000, 2)], axis=1)
    soundfile.write(tmp_path / "two.wav", stereo, RATE)
    recording = Recording.from_file(tmp_path / "two.wav")
    cut = MonoCut("middle", 0.1, 0.2, 1, recording=recording)
    samples = Recordings([cut], RATE).read(0, 5, 100)
    np.testing.assert_array_equal(samples, stereo[1605:1705, 1] / np.float32(32768))


def test_several_channels_are_averaged(tmp_path: Path) -> None:
    stereo = np.stack([_noise(1000, 1), _noise(1000, 2)], axis=1)
    soundfile.write(tmp_path / "two.wav", stereo, RATE)
    recordings = Recordings([Recording.from_file(tmp_path / "two.wav").to_cut()], RATE, full_precision=True)
    np.testing.assert_allclose(recordings.read(0, 10, 50), stereo[10:60].mean(axis=1) / 32768, atol=1e-7)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 1), (44100, 2), (16000, 2)])
def test_recordings_of_another_rate_or_more_channels_are_decoded_as_for_verification(
    tmp_path: Path, rate: int, channels: int
) -> None:
    path = tmp_path / "other.wav"
    soundfile.write(path, np.stack([_noise(rate + 137, seed) for seed in range(channels)], axis=1), rate)
    entry = Entry(path=path, id="other", source="made", speaker="one")
    cut = make_cut(entry, Facts(rate, channels, rate + 137, ""), RATE)
    decoded = read_audio(path, RATE).samples
    recordings = Recordings([cut], RATE, full_precision=True)
    np.testing.assert_array_equal(recordings.read(0), decoded)
    np.testing.assert_array_equal(recordings.read(0, 100, 50), decoded[100:150])


def test_what_lhotse_must_transform_or_holds_in_memory_is_left_to_lhotse(tmp_path: Path) -> None:
    cut = write_cut(tmp_path / "a.wav", _noise(8000))
    part = cut.resample(8000).truncate(offset=0.1)
    recordings = Recordings([part], 8000)
    np.testing.assert_allclose(recordings.read(0), part.load_audio()[0].clip(-1, 1), atol=1.01 / 32768)
    np.testing.assert_array_equal(Recordings([cut.move_to_memory()], RATE).read(0), cut.load_audio()[0])


def test_only_full_precision_keeps_samples_beyond_16_bits(tmp_path: Path) -> None:
    samples = np.array([1e-7, 0.5, -3.0, 0.25], np.float32)
    cut = write_cut(tmp_path / "float.wav", samples, subtype="FLOAT")
    for cache_bytes in (0, MIB):
        exact = Recordings([cut], RATE, cache_bytes=cache_bytes, full_precision=True).read(0)
        np.testing.assert_array_equal(exact, samples)
        rounded = Recordings([cut], RATE, cache_bytes=cache_bytes).read(0)
        np.testing.assert_array_equal(rounded, np.array([0, 0.5, -1, 0.25], np.float32))


def test_lossy_recordings_are_the_same_cached_or_not(tmp_path: Path) -> None:
    samples = 0.3 * np.sin(np.arange(16000) / 9)
    cut = write_cut(tmp_path / "tone.ogg", samples, subtype="VORBIS")
    direct = Recordings([cut], RATE).read(0, 7001, 3000)
    cached = Recordings([cut], RATE, cache_bytes=MIB).read(0, 7001, 3000)
    np.testing.assert_array_equal(direct, cached)


def test_the_cache_keeps_what_fits_and_outlives_the_file(tmp_path: Path) -> None:
    cuts = [write_cut(tmp_path / f"{i}.wav", _noise(1000, i)) for i in range(3)]
    recordings = Recordings(cuts, RATE, cache_bytes=4500)  # two and a quarter of them
    assert recordings.cache_bytes == 4000
    before = [recordings.read(number) for number in range(3)]
    for number in range(3):
        (tmp_path / f"{number}.wav").unlink()
    np.testing.assert_array_equal(recordings.read(0), before[0])
    np.testing.assert_array_equal(recordings.read(1, 10, 20), before[1][10:30])
    with pytest.raises(CorpusError, match=r"2\.wav"):
        recordings.read(2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_processes_fill_one_cache(tmp_path: Path) -> None:
    recordings = Recordings([write_cut(tmp_path / "a.wav", _noise(1000))], RATE, cache_bytes=MIB)
    child = multiprocessing.get_context("fork").Process(target=recordings.read, args=(0,))
    child.start()
    child.join()
    assert child.exitcode == 0
    (tmp_path / "a.wav").unlink()
    np.testing.assert_array_equal(recordings.read(0), _noise(1000) / np.float32(32768))


def test_a_pickled_copy_reads_the_same(tmp_path: Path) -> None:
    recordings = Recordings([write_cut(tmp_path / "a.wav", _noise(1000))], RATE, cache_bytes=MIB)
    copy = pickle.loads(pickle.dumps(recordings))
    np.testing.assert_array_equal(copy.read(0), recordings.read(0))


def test_ids_and_paths_may_hold_any_letters(tmp_path: Path) -> None:
    cuts = [write_cut(tmp_path / name, _noise(500, i)) for i, name in enumerate(("日本.wav", "é.wav", "a.wav"))]
    recordings = Recordings(cuts, RATE)
    assert [recordings.id(number) for number in range(3)] == ["日本", "é", "a"]
    np.testing.assert_array_equal(recordings.read(1), _noise(500, 1) / np.float32(32768))


def _deleted(path: Path) -> None:
    path.unlink()


def _replaced_by_text(path: Path) -> None:
    path.write_text("not audio")


def _shortened(path: Path) -> None:
    soundfile.write(path, _noise(900), RATE)


def _of_another_rate(path: Path) -> None:
    soundfile.write(path, _noise(1000), 8000)


def _not_finite(path: Path) -> None:
    soundfile.write(path, np.full(1000, np.nan, np.float32), RATE, subtype="FLOAT")


@pytest.mark.parametrize("damage", [_deleted, _replaced_by_text, _shortened, _of_another_rate, _not_finite])
@pytest.mark.parametrize("cache_bytes", [0, MIB])
def test_a_recording_broken_since_is_named_on_one_line(tmp_path: Path, damage: object, cache_bytes: int) -> None:
    path = tmp_path / "gone.wav"
    recordings = Recordings([write_cut(path, _noise(1000))], RATE, cache_bytes=cache_bytes)
    damage(path)  # type: ignore[operator]
    with pytest.raises(CorpusError) as caught:
        recordings.read(0)
    message = str(caught.value)
    assert str(path) in message
    assert "utterance gone" in message
    assert "\n" not in message


def test_a_transformed_recording_broken_since_is_named_too(tmp_path: Path) -> None:
    cut = write_cut(tmp_path / "gone.wav", _noise(8000)).resample(8000)
    recordings = Recordings([cut, cut.truncate(offset=0.1, preserve_id=True)], 8000)
    (tmp_path / "gone.wav").unlink()
    for number in range(2):
        with pytest.raises(CorpusError, match=r"gone\.wav \(utterance gone\)") as caught:
            recordings.read(number)
        assert len(str(caught.value)) < 500


def test_cuts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    cut = write_cut(tmp_path / "a.wav", _noise(1000))
    with pytest.raises(CorpusError, match="8000 Hz"):
        Recordings([cut], 8000)
    with pytest.raises(CorpusError, match="empty"):
        Recordings([], RATE)
    with pytest.raises(CorpusError, match="no recording"):
        Recordings([MonoCut("bare", 0, 1.0, 0)], RATE)
