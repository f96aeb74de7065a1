"""DeepMine Part 1 on made-up trees of the challenges' layouts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from parvox.corpora.import_deepmine import import_deepmine
from parvox.corpora.prepare import PrepareSettings, prepare
from parvox.corpora.trials import Trial
from parvox.errors import CorpusError, TrialError

MakeWav = Callable[..., Path]
MODELS = ["model-id phrase-id enroll-file-id1 enroll-file-id2 enroll-file-id3"]
TRIALS = ["model-id evaluation-file-id trial-type"]


@pytest.fixture
def deepmine(tmp_path: Path, make_wav: MakeWav) -> Path:
    """Six labelled speakers; two more, with two phrases each, who are enrolled and tested without labels."""
    root = tmp_path / "task1"
    (root / "docs").mkdir(parents=True)
    seed = 0
    labels = ["train-file-id speaker-id phrase-id"]
    for speaker in range(6):
        for phrase in ("01", "02"):
            for take in range(2):
                name = f"trn_{speaker}{phrase}{take}"
                make_wav(root / f"wav/train/{name}.wav", 0.5, kind="noise", seed=(seed := seed + 1))
                labels.append(f"{name} spk_{speaker} {phrase}")
    make_wav(root / "wav/train/trn_free.wav", 0.5, kind="noise", seed=(seed := seed + 1))
    labels.append("trn_free spk_0 FT")
    (root / "docs/train_labels.txt").write_text("\n".join(labels) + "\n")
    models = list(MODELS)
    for model in range(4):  # models 0 and 1 are one speaker, 2 and 3 another
        files = [f"enr_{model}{take}" for take in range(3)]
        for name in files:
            make_wav(root / f"wav/enrollment/{name}.wav", 0.5, kind="noise", seed=(seed := seed + 1))
        models.append(f"model_{model} 0{1 + model % 2} {' '.join(files)}")
    trials = list(TRIALS)
    for test in range(4):  # by the speaker, and saying the phrase, of the model of that number
        make_wav(root / f"wav/evaluation/evl_{test}.wav", 0.5, kind="noise", seed=(seed := seed + 1))
        for model in range(4):
            same = ("T" if model // 2 == test // 2 else "I") + ("C" if model % 2 == test % 2 else "W")
            trials.append(f"model_{model} evl_{test} {same}")
    (root / "docs/model_enrollment.txt").write_text("\n".join(models) + "\n")
    (root / "docs/trials.txt").write_text("\n".join(trials) + "\n")
    return root


def test_speakers_follow_from_the_kinds(deepmine: Path) -> None:
    listing = import_deepmine(deepmine)
    found = {entry.id: entry for entry in listing.entries}
    assert (found["train/trn_3021"].speaker, found["train/trn_3021"].text) == ("spk_3", "02")
    assert found["train/trn_free"].text is None
    by_speaker: dict[str, set[str]] = {}
    for name, entry in found.items():
        if not name.startswith("train/"):
            assert entry.split == "test"
            by_speaker.setdefault(entry.speaker, set()).add(name.rpartition("/")[2])
    assert sorted(map(sorted, by_speaker.values())) == [
        ["enr_00", "enr_01", "enr_02", "enr_10", "enr_11", "enr_12", "evl_0", "evl_1"],
        ["enr_20", "enr_21", "enr_22", "enr_30", "enr_31", "enr_32", "evl_2", "evl_3"],
    ]
    assert [found[f"evaluation/evl_{k}"].text for k in range(4)] == ["01", "02", "01", "02"]
    test = listing.trial_lists["test"]
    assert test.voices["model_3"] == ("enrollment/enr_30", "enrollment/enr_31", "enrollment/enr_32")
    assert Trial("model_2", "evaluation/evl_2", True) in test.trials
    assert not listing.rejected


def test_prepared(deepmine: Path, tmp_path: Path) -> None:
    corpus = prepare("deepmine", deepmine, tmp_path / "out", PrepareSettings(dev_speakers=2))
    info = corpus.info.splits
    assert (info["train"].speakers, info["dev"].speakers, info["test"].speakers) == (4, 2, 2)
    assert info["test"].kinds == dict.fromkeys(
        ("target-correct", "target-wrong", "impostor-correct", "impostor-wrong"), 4
    )
    assert info["test"].voices == 4
    assert info["dev"].trials_from == "drawn with seed 0"
    assert corpus.phrases("dev") == ["01", "02"]


def test_lists_of_2024(deepmine: Path) -> None:
    docs = deepmine / "docs"
    (docs / "model_enrollment.txt").rename(docs / "dev_model_enrollment.txt")
    (docs / "trials.txt").rename(docs / "dev_trials.txt")
    listing = import_deepmine(deepmine)
    assert set(listing.trial_lists) == {"dev"}
    assert {entry.split for entry in listing.entries} == {None, "dev"}


def test_without_kinds_nothing_can_be_scored(deepmine: Path, tmp_path: Path) -> None:
    docs = deepmine / "docs"
    lines = [line.rpartition(" ")[0] for line in (docs / "trials.txt").read_text().splitlines()]
    (docs / "trials.txt").write_text("\n".join(lines) + "\n")
    corpus = prepare("deepmine", deepmine, tmp_path / "out", PrepareSettings(dev_speakers=2, test_speakers=2))
    assert corpus.info.rejected == {"no speaker": 4 * 3 + 4}
    assert any("tells no kinds" in note for note in corpus.info.notes)
    assert set(corpus.info.splits["test"].kinds) == {
        "target-correct",
        "target-wrong",
        "impostor-correct",
        "impostor-wrong",
    }


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("trials.txt", "model_0 evl_0", "is no trial; expected 'model recording TC'"),
        ("trials.txt", "model_0 evl_0 XX", "is no trial"),
        ("trials.txt", "model_9 evl_0 TC", "names a model that model_enrollment.txt does not enrol"),
        ("trials.txt", "model_0 evl_2 TC", "contradicts other trials"),
        ("trials.txt", "model_0 evl_1 TC", "has evaluation/evl_1 say phrase 01"),
        ("train_labels.txt", "trn_x spk_1", "line 27: .* expected 3 columns"),
        (
            "train_labels.txt",
            "trn_0010 spk_1 01",
            "labels.txt line 27: trn_0010 'spk_1 01' given, but 'spk_0 01' before",
        ),
        ("model_enrollment.txt", "model_9 01", "expected 3 columns"),
        (
            "model_enrollment.txt",
            "model_0 01 enr_10",
            "line 6: model_0 '01 enr_10' given, but '01 enr_00 enr_01 enr_02'",
        ),
        ("model_enrollment.txt", "model_8 02 enr_00 enr_01 enr_02", "model_8 has enrollment/enr_00 say phrase 02"),
        ("model_enrollment.txt", "model_8 01 enr_00 enr_20 enr_21", "contradicts other trials"),
    ],
)
def test_damaged_lists(deepmine: Path, file: str, line: str, words: str) -> None:
    with (deepmine / "docs" / file).open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises((CorpusError, TrialError), match=words) as error:
        import_deepmine(deepmine)
    assert "\n" not in str(error.value)


def test_names_in_the_lists_are_not_those_of_training_speakers(deepmine: Path) -> None:
    before = import_deepmine(deepmine)
    labels = deepmine / "docs/train_labels.txt"
    labels.write_text(labels.read_text().replace("spk_1", "model_0"))
    after = import_deepmine(deepmine)
    assert sum(entry.speaker == "model_0" for entry in after.entries) == 4
    assert [entry.split for entry in after.entries] == [entry.split for entry in before.entries]
    for split in ("dev", "eval"):
        for kind in ("model_enrollment", "trials"):
            shutil.copy(deepmine / f"docs/{kind}.txt", deepmine / f"docs/{split}_{kind}.txt")
    with pytest.raises(TrialError, match="is in the lists of dev and of test"):
        import_deepmine(deepmine)


def test_without_labels(deepmine: Path) -> None:
    (deepmine / "docs/train_labels.txt").unlink()
    with pytest.raises(CorpusError, match="cannot read .*train_labels.txt.*expected DeepMine's"):
        import_deepmine(deepmine)


def test_a_line_twice_is_no_contradiction(deepmine: Path) -> None:
    before = import_deepmine(deepmine)
    with (deepmine / "docs/train_labels.txt").open("a") as stream:
        stream.write("trn_0010 spk_0 01\n")
    assert import_deepmine(deepmine) == before
