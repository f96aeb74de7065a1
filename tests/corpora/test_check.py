from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from parvox.corpora.check import Facts, Limits, check_recordings, drop_duplicates
from parvox.corpora.entries import Entry

LIMITS = Limits(sample_rate_hz=16000, min_duration_s=0.4, max_duration_s=10.0, allow_upsampling=False)
MakeWav = Callable[..., Path]


def entry(path: Path, **more: object) -> Entry:
    values = {"id": path.name, "source": "a", "speaker": "anna", **more}
    return Entry(path=path, **values)  # type: ignore[arg-type]


def noise(seconds: float, rate: int = 16000, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))


def spoil(folder: Path, name: str) -> Path:
    """A recording with one thing wrong with it."""
    path = folder / name
    good = noise(1.0)
    if name == "text.wav":
        path.write_text("not a recording, whatever its name says\n")
    elif name == "no_bytes.wav":
        path.write_bytes(b"")
    elif name == "no_samples.wav":
        soundfile.write(path, np.zeros(0), 16000)
    elif name == "silence.flac":
        soundfile.write(path, np.zeros(16000), 16000)
    elif name == "nan.wav":
        good[5000] = np.nan
        soundfile.write(path, good, 16000, subtype="FLOAT")
    elif name == "short.wav":
        soundfile.write(path, good[:800], 16000)
    elif name == "long.flac":
        soundfile.write(path, noise(11.0), 16000)
    elif name == "cut_off.flac":
        soundfile.write(path, good, 16000)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif name == "telephone.wav":
        soundfile.write(path, noise(1.0, 8000), 8000)
    return path


SPOILT = {
    "text.wav": "unreadable",
    "no_bytes.wav": "empty",
    "no_samples.wav": "empty",
    "silence.flac": "silent",
    "nan.wav": "not finite",
    "short.wav": "too short",
    "long.flac": "too long",
    "cut_off.flac": "truncated",
    "telephone.wav": "wrong rate",
    "gone.wav": "missing",
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_recording_is_rejected_with_its_reason(tmp_path: Path, name: str, make_wav: MakeWav) -> None:
    path = spoil(tmp_path, name)
    sound = make_wav(tmp_path / "sound.wav", 1.0)
    good, bad = check_recordings([entry(path), entry(sound)], LIMITS, tmp_path, jobs=2)
    assert [one.id for one, _ in good] == ["sound.wav"]
    assert [(item.path, item.reason) for item in bad] == [(name, SPOILT[name])]
    assert bad[0].detail
    assert "\n" not in bad[0].detail
    assert str(tmp_path) not in bad[0].detail


def test_facts(tmp_path: Path) -> None:
    samples = noise(1.0, 44100)
    soundfile.write(tmp_path / "a.wav", np.stack([samples, 0.5 * samples], axis=1), 44100)
    [(_, facts)], _ = check_recordings([entry(tmp_path / "a.wav")], LIMITS, tmp_path, jobs=1)
    assert (facts.rate_hz, facts.channels, facts.samples) == (44100, 2, 44100)


def test_rates(tmp_path: Path, make_wav: MakeWav) -> None:
    low = entry(make_wav(tmp_path / "low.wav", 1.0, rate=8000))
    stretched = entry(make_wav(tmp_path / "stretched.wav", 1.0), native_rate_hz=8000)
    high = entry(make_wav(tmp_path / "high.wav", 1.0, rate=48000), native_rate_hz=44100)
    good, bad = check_recordings([low, stretched, high], LIMITS, tmp_path, jobs=1)
    assert [one.id for one, _ in good] == ["high.wav"]
    assert [item.reason for item in bad] == ["wrong rate", "wrong rate"]
    assert "recorded at 8000 Hz" in bad[0].detail
    assert "in a file of 16000 Hz, but 8000 Hz" in bad[1].detail
    allowed = Limits(16000, 0.4, 10.0, allow_upsampling=True)
    assert len(check_recordings([low, stretched, high], allowed, tmp_path, jobs=1)[0]) == 3
    narrow = Limits(8000, 0.4, 10.0, allow_upsampling=False)
    assert len(check_recordings([low, stretched, high], narrow, tmp_path, jobs=1)[0]) == 3


def test_impulse_responses_may_be_short(tmp_path: Path, make_wav: MakeWav) -> None:
    path = make_wav(tmp_path / "rir.wav", 0.05, kind="noise")
    good, _ = check_recordings([entry(path, kind="rir"), entry(path)], LIMITS, tmp_path, jobs=1)
    assert [one.kind for one, _ in good] == ["rir"]


def test_order_is_kept_over_many_files_and_threads(tmp_path: Path, make_wav: MakeWav) -> None:
    entries = [
        entry(spoil(tmp_path, "silence.flac"), id=str(n))
        if n % 3 == 0
        else entry(make_wav(tmp_path / f"{n}.wav", 0.5, seed=n), id=str(n))
        for n in range(200)
    ]
    good, bad = check_recordings(entries, LIMITS, tmp_path, jobs=4)
    assert [one.id for one, _ in good] == [str(n) for n in range(200) if n % 3]
    assert len(bad) == 67


class TestDuplicates:
    def checked(self, entries: list[Entry], root: Path) -> list[tuple[Entry, Facts]]:
        good, bad = check_recordings(entries, LIMITS, root, jobs=1)
        assert not bad
        return good

    def test_copies_are_found_by_content(self, tmp_path: Path) -> None:
        samples = np.round(noise(1.0) * 2**15).astype(np.int16)  # WAV and FLAC writers round differently
        soundfile.write(tmp_path / "a.wav", samples, 16000)
        soundfile.write(tmp_path / "b.flac", samples, 16000)
        soundfile.write(tmp_path / "c.flac", noise(1.0, seed=1), 16000)
        soundfile.write(tmp_path / "d.flac", samples, 16000)
        soundfile.write(tmp_path / "e.wav", samples, 22050)  # the same samples, another sound
        entries = [entry(tmp_path / name) for name in ("a.wav", "b.flac", "c.flac", "e.wav")]
        entries.append(entry(tmp_path / "d.flac", speaker="ben"))
        good, bad = drop_duplicates(self.checked(entries, tmp_path), tmp_path)
        assert [one.id for one, _ in good] == ["a.wav", "c.flac", "e.wav"]
        assert [(item.path, item.reason, item.detail) for item in bad] == [
            ("b.flac", "duplicate", "same samples as a.wav"),
            ("d.flac", "duplicate", "same samples as a.wav of another speaker"),
        ]

    def test_what_a_trial_list_names_is_kept(self, tmp_path: Path) -> None:
        for name in ("a.wav", "b.wav", "c.wav"):
            soundfile.write(tmp_path / name, noise(1.0), 16000)
        checked = self.checked([entry(tmp_path / name) for name in ("a.wav", "b.wav", "c.wav")], tmp_path)
        good, bad = drop_duplicates(checked, tmp_path, keep=frozenset({"b.wav", "c.wav"}))
        assert [one.id for one, _ in good] == ["b.wav", "c.wav"]
        assert [item.detail for item in bad] == ["same samples as b.wav"]
