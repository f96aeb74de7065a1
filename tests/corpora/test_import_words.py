"""AudioMNIST and HI-MIA, read by Lhotse's recipes from made-up trees."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from parvox.corpora.import_words import import_audiomnist, import_himia
from parvox.corpora.prepare import prepare
from parvox.errors import CorpusError

MakeWav = Callable[..., Path]


@pytest.fixture
def audiomnist(tmp_path: Path, make_wav: MakeWav) -> Path:
    root = tmp_path / "AudioMNIST"
    people = {f"{number:02d}": {"gender": "female" if number == 2 else "male"} for number in range(1, 61)}
    (root / "data").mkdir(parents=True)
    (root / "data/audioMNIST_meta.txt").write_text(json.dumps(people))
    for speaker in ("01", "02"):
        for digit in (0, 7):
            for take in range(2):
                seed = int(speaker) * 100 + digit * 10 + take
                make_wav(root / f"data/{speaker}/{digit}_{speaker}_{take}.wav", 0.5, 48000, "noise", seed)
    return root


def test_audiomnist(audiomnist: Path) -> None:
    for root in (audiomnist, audiomnist.parent):
        listing = import_audiomnist(root)
        found = {entry.id: entry for entry in listing.entries}
        assert len(found) == 8
        entry = found["02/7_02_1"]
        assert (entry.speaker, entry.text, entry.gender, entry.language) == ("02", "seven", "f", "en")
        assert entry.path.is_file()
        assert not listing.rejected


def test_a_damaged_digit_is_left_out(audiomnist: Path) -> None:
    (audiomnist / "data/01/0_01_0.wav").write_bytes(b"RIFF")
    listing = import_audiomnist(audiomnist)
    assert len(listing.entries) == 7
    assert [(item.path, item.reason) for item in listing.rejected] == [("data/01/0_01_0.wav", "unreadable")]


@pytest.fixture
def himia(tmp_path: Path, make_wav: MakeWav) -> Path:
    root = tmp_path / "HiMia"
    seed = 0
    for part, speakers in (("train", range(3)), ("dev", range(3, 5)), ("test", range(5, 7))):
        folder = root / (part if part == "test" else f"{part}/SPEECHDATA")
        lines = []
        for speaker in speakers:
            for microphone in ("2_00", "7_01"):
                for utterance in ("F0041", "N0042"):
                    name = f"SV{speaker:04d}_{microphone}_{utterance}.wav"
                    place = f"wav/{name}" if part == "test" else f"wav/SV{speaker:04d}/{name}"
                    make_wav(folder / place, 0.5, kind="noise", seed=(seed := seed + 1))
                    lines.append(name if part == "test" else place)
        (folder / ("wav.scp" if part == "test" else f"{part}.scp")).write_text("\n".join(lines) + "\n")
    return root


def test_himia(himia: Path, tmp_path: Path) -> None:
    listing = import_himia(himia)
    assert {entry.split for entry in listing.entries} == {"train", "dev", "test"}
    assert len({entry.text for entry in listing.entries}) == 1
    assert not listing.rejected
    corpus = prepare("himia", himia.parent, tmp_path / "out")
    assert set(corpus.info.splits["test"].kinds) == {"target-correct", "impostor-correct"}  # there is but one phrase
    recording = {cut.id: cut.supervisions[0].custom["recording"] for cut in corpus.cuts("test")}
    for enrol, test, _ in corpus.trials("test"):
        assert recording[enrol] != recording[test]  # never one utterance through two microphones


def test_a_damaged_utterance_of_himia_is_left_out(himia: Path) -> None:
    (himia / "test/wav/SV0005_2_00_F0041.wav").write_bytes(b"RIFF")
    (himia / "cw_test").mkdir()
    listing = import_himia(himia)
    assert len(listing.entries) == 27
    assert [(item.path, item.reason) for item in listing.rejected] == [("test/wav/SV0005_2_00_F0041.wav", "unreadable")]
    assert listing.notes == ["cw_test/ was left out: its words are by other speakers"]


def test_not_these_corpora(tmp_path: Path, make_wav: MakeWav) -> None:
    make_wav(tmp_path / "data" / "01" / "0_01_0.wav", 0.1)
    with pytest.raises(CorpusError, match="cannot be read as this corpus .* expected AudioMNIST's"):
        import_audiomnist(tmp_path)
    with pytest.raises(CorpusError, match="holds none of its parts; expected HI-MIA's"):
        import_himia(tmp_path)
