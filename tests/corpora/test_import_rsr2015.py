"""RSR2015 on a made-up tree with key files of the published layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from parvox.corpora import import_rsr2015
from parvox.corpora.entries import Listing
from parvox.corpora.import_rsr2015 import import_rsr2015_part1, import_rsr2015_part2, import_rsr2015_part3
from parvox.corpora.prepare import prepare
from parvox.corpora.trials import Trial
from parvox.errors import CorpusError, TrialError

Importer = Callable[[Path], Listing]
ENROLLING, TESTING = ("01", "04", "07"), ("02", "03")


def write_sph(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(8000)
    soundfile.write(path, samples, 16000, format="NIST", subtype="PCM_16")


@pytest.fixture(scope="module")
def rsr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two speakers of each split and gender, five sessions, two phrases of Parts I and II, two strings of III."""
    root = tmp_path_factory.mktemp("rsr") / "RSR2015_V1"
    seed = 0
    for speaker in ("m001", "m050", "m051", "m100", "m101", "m157", "f001", "f047", "f048", "f094", "f095", "f143"):
        gender = "male" if speaker[0] == "m" else "female"
        for session in ENROLLING + TESTING:
            for phrase in ("001", "030", "031", "060", "061", "064"):
                seed += 1
                write_sph(root / "sph" / gender / speaker / f"{speaker}_{session}_{phrase}.sph", seed)
    write_keys(root)
    return root


def write_password_keys(key: Path, phrases: tuple[str, str]) -> None:
    """The four kinds of trials of Parts I and II: every phrase of a speaker is a model, three sessions long."""
    for name, numbers in (
        ("dev", {"m": ("051", "100"), "f": ("048", "094")}),
        ("eval", {"m": ("101", "157"), "f": ("095", "143")}),
    ):
        for gender, (one, other) in numbers.items():
            folder = "male" if gender == "m" else "female"
            models, index = [], []
            for speaker in (f"{gender}{one}", f"{gender}{other}"):
                for phrase in phrases:
                    files = [f"{folder}/{speaker}/{speaker}_{session}_{phrase}.sph" for session in ENROLLING]
                    models.append(f"{speaker}_{phrase} {','.join(files)}")
                    for tested in (f"{gender}{one}", f"{gender}{other}"):
                        for said in phrases:
                            kind = ["TTII", "CWCW"]
                            flags = [
                                "Y"
                                if ((tested == speaker) == (kind[0][k] == "T"))
                                and ((said == phrase) == (kind[1][k] == "C"))
                                else "N"
                                for k in range(4)
                            ]
                            for session in TESTING:
                                index.append(
                                    f"{speaker}_{phrase},{tested}/{tested}_{session}_{said}.sph,{','.join(flags)}"
                                )
            # The list of models is written both ways in the wild.
            (key / "trn").mkdir(parents=True, exist_ok=True)
            (key / "ndx").mkdir(parents=True, exist_ok=True)
            trn = "3sesspwd" if gender == "m" else "3sess-pwd"
            (key / "trn" / f"{trn}_{name}_{gender}.trn").write_text("\n".join(models) + "\n")
            (key / "ndx" / f"3sess-pwd_{name}_{gender}.ndx").write_text("\n".join(index) + "\n")


def write_keys(root: Path) -> None:
    write_password_keys(root / "key" / "part1", ("001", "030"))
    write_password_keys(root / "key" / "part2", ("031", "060"))
    key = root / "key" / "part3"
    (key / "trn").mkdir(parents=True)
    (key / "ndx").mkdir()
    files = ",".join(f"male/m101/m101_{session}_061.sph" for session in ENROLLING)
    (key / "trn" / "3seq10_eval_m.trn").write_text(f"m101_01 {files}\n")
    lines = [
        "0123456789",
        "m101_01,m101/m101_02_064.sph,Y,N,N,N",
        "m101_01,m101/m101_03_064.sph,N,Y,N,N",
        "m101_01,m157/m157_02_064.sph,N,N,Y,N",
        "m101_01,m157/m157_03_064.sph,N,N,N,Y",
        "m157_01,m157/m157_03_064.sph,Y,N,N,N",  # not enrolled
    ]
    (key / "ndx" / "seq5_testeval_m.ndx").write_text("\n".join(f"ABCDEFGHI,{line}" for line in lines[1:]) + "\n")


def speakers(listing: Listing, split: str) -> set[str]:
    return {entry.speaker for entry in listing.entries if entry.split == split}


def test_parts_splits_and_sessions(rsr: Path) -> None:
    for importer, phrases in (
        (import_rsr2015_part1, {"001", "030"}),
        (import_rsr2015_part2, {"031", "060"}),
        (import_rsr2015_part3, {None}),
    ):
        listing = importer(rsr)
        assert {entry.text for entry in listing.entries} == phrases
        assert speakers(listing, "train") == {"m001", "m050", "f001", "f047"}
        assert speakers(listing, "dev") == {"m051", "m100", "f048", "f094"}
        assert speakers(listing, "test") == {"m101", "m157", "f095", "f143"}
        assert not listing.rejected
    listing = import_rsr2015_part1(rsr)
    entry = next(entry for entry in listing.entries if entry.id == "f143/f143_04_030")
    assert (entry.speaker, entry.session, entry.gender, entry.text) == ("f143", "04", "f", "030")
    assert listing.text_dependent
    assert not import_rsr2015_part3(rsr).text_dependent


@pytest.mark.parametrize(
    ("importer", "phrase", "other"), [(import_rsr2015_part1, "001", "030"), (import_rsr2015_part2, "031", "060")]
)
def test_key_files_become_voices_and_trials(rsr: Path, importer: Importer, phrase: str, other: str) -> None:
    listed = importer(rsr).trial_lists
    assert set(listed) == {"dev", "test"}
    test = listed["test"]
    assert len(test.voices) == 8
    assert test.voices[f"m157_{other}"] == tuple(f"m157/m157_{session}_{other}" for session in ENROLLING)
    assert len(test.trials) == 8 * 2 * 2 * 2  # models, speakers, phrases, sessions
    assert sum(trial.target for trial in test.trials) == 8 * 2
    assert Trial(f"m101_{phrase}", f"m101/m101_02_{phrase}", True) in test.trials
    assert Trial(f"m101_{phrase}", f"m101/m101_02_{other}", False) in test.trials
    assert Trial(f"f095_{phrase}", f"f143/f143_03_{other}", False) in test.trials


def test_without_key_files_there_are_no_trials(rsr: Path, tmp_path: Path) -> None:
    shutil.copytree(rsr / "sph" / "male" / "m101", tmp_path / "sph" / "male" / "m101")
    assert import_rsr2015_part2(tmp_path).trial_lists == {}


def test_digits_are_tried_on_what_was_asked_for(rsr: Path) -> None:
    test = import_rsr2015_part3(rsr).trial_lists["test"]
    assert test.trials == [
        Trial("m101_01", "m101/m101_02_064", True),
        Trial("m101_01", "m157/m157_02_064", False),
    ]


def test_prepared(rsr: Path, tmp_path: Path) -> None:
    corpus = prepare("rsr2015-part1", rsr, tmp_path / "out")
    info = corpus.info.splits["test"]
    assert corpus.info.text_dependent
    assert (info.speakers, info.phrases, info.voices) == (4, 2, 8)
    # Each of 8 models meets 2 sessions of its own phrase, of its speaker's other one, and of the other speaker's two.
    assert info.kinds == {"target-correct": 16, "target-wrong": 16, "impostor-correct": 16, "impostor-wrong": 16}
    assert info.trials_from.startswith("key/part1, eval (sha256 ")
    path = corpus.enrolments("test")
    assert path is not None
    assert path.read_text().splitlines()[0] == "f095_001 f095/f095_01_001 f095/f095_04_001 f095/f095_07_001"
    single = corpus.utterance_trials("test")
    assert Trial("m101/m101_01_001", "m101/m101_02_001", True) in single
    assert len(single) == len(corpus.trials("test"))
    corpus.verify()
    path.write_text(path.read_text().replace("f095_07", "f095_02"))
    with pytest.raises(CorpusError, match="were changed"):
        corpus.verify()


def test_without_keys_trials_of_four_kinds_are_drawn(rsr: Path, tmp_path: Path) -> None:
    corpus = prepare("rsr2015-part1", rsr / "sph", tmp_path / "out")
    assert set(corpus.info.splits["dev"].kinds) == {
        "target-correct",
        "target-wrong",
        "impostor-correct",
        "impostor-wrong",
    }
    cuts = {cut.id: cut.supervisions[0] for cut in corpus.cuts("dev")}
    for enrol, test, target in corpus.trials("dev"):
        one, other = cuts[enrol], cuts[test]
        assert target == (one.speaker == other.speaker and one.text == other.text)
        assert one.gender == other.gender
        assert one.speaker != other.speaker or one.custom["session"] != other.custom["session"]


def test_a_voice_is_lost_with_any_of_its_recordings(rsr: Path, tmp_path: Path) -> None:
    root = tmp_path / "rsr"
    shutil.copytree(rsr, root)
    (root / "sph/male/m101/m101_01_001.sph").write_bytes(b"no sound")
    corpus = prepare("rsr2015-part1", root, tmp_path / "out")
    assert corpus.info.splits["test"].voices == 7
    assert any("8 of 64 trials left out" in note for note in corpus.info.notes)
    (root / "sph/male/m101/m101_01_001.sph").unlink()
    with pytest.raises(
        TrialError, match=r"voice m101_001 names 'm101/m101_01_001', but the corpus has no such recording"
    ):
        prepare("rsr2015-part1", root, tmp_path / "again")


@pytest.mark.parametrize(
    ("file", "enrolled", "words"),
    [
        ("ndx/3sess-pwd_eval_m.ndx", None, "is a target in one line and none in another"),
        ("trn/3sesspwd_eval_m.trn", "male/m157/m157_01_001.sph", "enrolled with recordings of m101 and m157"),
    ],
)
def test_keys_that_contradict_themselves(
    rsr: Path, tmp_path: Path, file: str, enrolled: str | None, words: str
) -> None:
    root = tmp_path / "rsr"
    root.mkdir()
    (root / "sph").symlink_to(rsr / "sph", target_is_directory=True)
    shutil.copytree(rsr / "key", root / "key")
    path = root / "key" / "part1" / file
    lines = path.read_text().splitlines()
    if enrolled is None:
        target = next(line for line in lines if line.endswith("Y,N,N,N"))
        lines.append(target.replace("Y,N,N,N", "N,N,Y,N"))
    else:
        lines[0] = lines[0].rpartition(",")[0] + "," + enrolled
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(TrialError, match=words):
        prepare("rsr2015-part1", root, tmp_path / "out")


def test_of_too_many_impostors_with_wrong_words_some_stay(rsr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_rsr2015, "MOST_IMPOSTOR_WRONG", 16)
    full = import_rsr2015_part1(rsr)
    test = full.trial_lists["test"]
    left = 64 - len(test.trials)
    assert 0 < left < 16
    assert any(f"{left} trials by impostors with a wrong phrase were left out" in note for note in full.notes)
    assert sum(trial.target for trial in test.trials) == 16


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("trn/3sesspwd_eval_m.trn", "m101_001\n", "line 1: 'm101_001' is no model"),
        ("trn/3sesspwd_eval_m.trn", "m101_001 a.sph,b.sph\n", "is no model"),
        (
            "trn/3sesspwd_eval_m.trn",
            "m101_001 m101_01_001.sph\nm101_001 m101_04_001.sph\n",
            "eval_m.trn line 2: m101_001 is enrolled again with other files",
        ),
        ("ndx/3sess-pwd_eval_m.ndx", "m101_001,m101/m101_02_001.sph,Y,Y,N,N\n", "line 1: .* is no trial"),
        ("ndx/3sess-pwd_eval_m.ndx", "m101_001,m101_02_001.sph\n", "is no trial"),
        ("ndx/3sess-pwd_eval_m.ndx", b"\xff\xfe\x00", "is not a text file"),
        ("trn/3sesspwd_eval_m.trn", None, "has no list of models beside it"),
    ],
)
def test_damaged_keys(rsr: Path, tmp_path: Path, file: str, text: str | bytes | None, words: str) -> None:
    root = tmp_path / "rsr"
    root.mkdir()
    (root / "sph").symlink_to(rsr / "sph", target_is_directory=True)
    shutil.copytree(rsr / "key", root / "key")
    path = root / "key" / "part1" / file
    if text is None:
        path.unlink()
    elif isinstance(text, bytes):
        path.write_bytes(text)
    else:
        path.write_text(text)
    with pytest.raises((CorpusError, TrialError), match=words) as error:
        import_rsr2015_part1(root)
    assert "\n" not in str(error.value)
