from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from parvox.audio import read_audio
from parvox.corpora.prepare import PrepareSettings, prepare
from parvox.corpora.prepared import PreparedCorpus
from parvox.corpora.trials import Trial
from parvox.errors import CorpusError, OutputError, TrialError

MakeWav = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path, make_wav: MakeWav) -> Path:
    """Six speakers of four short recordings."""
    for speaker in range(6):
        for number in range(4):
            make_wav(tmp_path / "tree" / f"s{speaker}" / f"{number}.wav", 0.5, kind="noise", seed=10 * speaker + number)
    return tmp_path / "tree"


def rejected(folder: Path) -> dict[str, str]:
    with (folder / "rejected.csv").open(newline="", encoding="utf-8") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def test_tiny_corpus(prepared_tiny: Path) -> None:
    corpus = PreparedCorpus.load(prepared_tiny)
    assert corpus.info.synthetic
    assert corpus.info.sources == ["tiny"]
    assert {name: (split.speakers, split.utterances) for name, split in corpus.info.splits.items()} == {
        "train": (6, 36),
        "dev": (3, 18),
        "test": (3, 18),
    }
    speakers = [set(corpus.speakers(split)) for split in corpus.splits]
    assert not speakers[0] & speakers[1]
    assert not speakers[0] & speakers[2]
    assert not speakers[1] & speakers[2]
    for split in ("dev", "test"):
        cuts = {cut.id: cut.supervisions[0] for cut in corpus.cuts(split)}
        trials = corpus.trials(split)
        assert sum(trial.target for trial in trials) == 3 * 9  # pairs of different sessions
        for trial in trials:
            one, other = cuts[trial.enrol], cuts[trial.test]
            assert (one.speaker == other.speaker) == trial.target
            assert not trial.target or one.session != other.session
    assert rejected(prepared_tiny) == {}


def test_cuts_read_what_is_on_disk(prepared_tiny: Path, tiny_tree: Path) -> None:
    cut = next(iter(PreparedCorpus.load(prepared_tiny).cuts("train")))
    segment = cut.supervisions[0]
    samples, _ = soundfile.read(tiny_tree / f"{cut.id}.wav", dtype="float32")
    np.testing.assert_array_equal(cut.load_audio(), samples[None])
    assert segment.speaker == cut.id.split("/")[0]
    assert (segment.source, segment.recording, segment.gender) == ("tiny", cut.id, "f" if int(cut.id[3:5]) % 2 else "m")
    assert segment.session in ("day0", "day1")
    assert cut.num_samples == len(samples)


def test_two_runs_write_the_same_bytes_whatever_the_order(tree: Path, tmp_path: Path) -> None:
    prepare("folder", tree, tmp_path / "one", jobs=1)
    prepare("folder", tree, tmp_path / "two", jobs=3)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == [
        "corpus.json",
        "dev.jsonl.gz",
        "dev.trials",
        "rejected.csv",
        "test.jsonl.gz",
        "test.trials",
        "train.jsonl.gz",
    ]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_fingerprint_knows_content_and_not_place(tree: Path, tmp_path: Path, make_wav: MakeWav) -> None:
    def fingerprint(root: Path, out: str, **more: object) -> str:
        return prepare("folder", root, tmp_path / out, PrepareSettings(**more)).info.fingerprint  # type: ignore[arg-type]

    first = fingerprint(tree, "one")
    moved = tmp_path / "elsewhere" / "tree"
    shutil.copytree(tree, moved)
    assert fingerprint(moved, "two") == first
    assert fingerprint(tree, "three", relative=True) == first
    assert fingerprint(tree, "four", seed=1) != first
    make_wav(moved / "s0" / "0.wav", 0.5, kind="noise", seed=999)
    assert fingerprint(moved, "five") != first


def test_relative_corpora_move_with_their_recordings(tree: Path, tmp_path: Path) -> None:
    prepare("folder", tree, tmp_path / "prepared", PrepareSettings(relative=True))
    (tmp_path / "new").mkdir()
    shutil.move(tree, tmp_path / "new" / "tree")
    shutil.move(tmp_path / "prepared", tmp_path / "new" / "prepared")
    cut = next(iter(PreparedCorpus.load(tmp_path / "new" / "prepared").cuts("test")))
    assert cut.load_audio().shape == (1, 8000)


def test_spoilt_recordings_are_listed_and_left_out(tree: Path, tmp_path: Path, make_wav: MakeWav) -> None:
    (tree / "s0" / "text.wav").write_text("no")
    make_wav(tree / "s0" / "short.wav", 0.05)
    shutil.copy(tree / "s1" / "0.wav", tree / "s1" / "copy.wav")
    make_wav(tree / "lost.wav", 0.5)
    corpus = prepare("folder", tree, tmp_path / "out")
    assert rejected(tmp_path / "out") == {
        "lost.wav": "no speaker",
        "s0/short.wav": "too short",
        "s0/text.wav": "unreadable",
        "s1/copy.wav": "duplicate",
    }
    assert corpus.info.rejected == {"duplicate": 1, "no speaker": 1, "too short": 1, "unreadable": 1}
    assert sum(split.utterances for split in corpus.info.splits.values()) == 24


def test_nothing_usable(tmp_path: Path, make_wav: MakeWav) -> None:
    (tmp_path / "tree" / "anna").mkdir(parents=True)
    (tmp_path / "tree" / "anna" / "a.wav").write_text("no")
    make_wav(tmp_path / "tree" / "anna" / "b.wav", 0.05)
    with pytest.raises(CorpusError, match=r"none of the 2 recordings.*1 too short, 1 unreadable.*anna/a\.wav"):
        prepare("folder", tmp_path / "tree", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_speaker_only(tmp_path: Path, make_wav: MakeWav) -> None:
    for number in range(3):
        make_wav(tmp_path / "tree" / "anna" / f"{number}.wav", 0.5, seed=number)
    with pytest.raises(CorpusError, match="1 speaker cannot be split"):
        prepare("folder", tmp_path / "tree", tmp_path / "out")
    corpus = prepare("folder", tmp_path / "tree", tmp_path / "out", PrepareSettings(dev_fraction=0, test_fraction=0))
    assert corpus.splits == ("train",)


def test_a_speaker_with_one_utterance_still_supplies_non_targets(tree: Path, tmp_path: Path, make_wav: MakeWav) -> None:
    make_wav(tree / "single" / "only.wav", 0.5, kind="noise", seed=77)
    split = "".join(f"s{n},{'test' if n < 2 else 'train'}\n" for n in range(6))
    (tmp_path / "split.csv").write_text(f"speaker,split\n{split}single,test\n")
    corpus = prepare("folder", tree, tmp_path / "out", PrepareSettings(split_file=tmp_path / "split.csv"))
    trials = [trial for trial in corpus.trials("test") if "single/only" in trial[:2]]
    assert trials
    assert not any(trial.target for trial in trials)
    assert corpus.speakers("test") == ["s0", "s1", "single"]


def test_no_target_pairs_at_all_is_said_where_it_matters(tmp_path: Path, make_wav: MakeWav) -> None:
    for speaker in range(4):
        make_wav(tmp_path / "tree" / f"s{speaker}" / "only.wav", 0.5, seed=speaker)
    corpus = prepare("folder", tmp_path / "tree", tmp_path / "out")
    with pytest.raises(CorpusError, match="no trials for test.*speaker with two recordings"):
        corpus.trials("test")
    assert not (tmp_path / "out" / "test.trials").exists()


def test_stereo_is_averaged_and_rates_are_lowered_while_reading(tree: Path, tmp_path: Path) -> None:
    time = np.arange(48000) / 48000
    left, right = 0.5 * np.sin(2 * np.pi * 440 * time), 0.3 * np.sin(2 * np.pi * 1000 * time)
    soundfile.write(tree / "s0" / "stereo.wav", np.stack([left, right], axis=1), 48000, subtype="FLOAT")
    plain = np.random.default_rng(0).uniform(-0.5, 0.5, (16000, 2)).astype(np.float32)
    soundfile.write(tree / "s0" / "plain.wav", plain, 16000, subtype="FLOAT")
    corpus = prepare("folder", tree, tmp_path / "out", PrepareSettings(dev_fraction=0, test_fraction=0))
    cuts = {cut.id: cut for cut in corpus.cuts("train")}
    assert (cuts["s0/stereo"].sampling_rate, cuts["s0/stereo"].num_samples) == (16000, 16000)
    assert cuts["s0/stereo"].num_channels == 1
    expected = (0.5 * np.sin(2 * np.pi * 440 * time[::3]) + 0.3 * np.sin(2 * np.pi * 1000 * time[::3])) / 2
    read = cuts["s0/stereo"].load_audio()
    assert read.shape == (1, 16000)
    np.testing.assert_allclose(read[0, 500:-500], expected[500:-500], atol=2e-3)
    np.testing.assert_allclose(cuts["s0/plain"].load_audio()[0], plain.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize(
    ("suffix", "form", "subtype"),
    [("mp3", "MP3", None), ("ogg", "OGG", "VORBIS"), ("opus", "OGG", "OPUS"), ("aiff", "AIFF", None)],
)
def test_every_format_is_read_to_its_length(
    tree: Path, tmp_path: Path, suffix: str, form: str, subtype: str | None
) -> None:
    samples = 0.1 * np.random.default_rng(0).standard_normal((48123, 2))
    soundfile.write(tree / "s0" / f"plain.{suffix}", samples[:16123, 0], 16000, format=form, subtype=subtype)
    soundfile.write(tree / "s0" / f"stereo.{suffix}", samples, 48000, format=form, subtype=subtype)
    corpus = prepare("folder", tree, tmp_path / "out", PrepareSettings(dev_fraction=0, test_fraction=0))
    assert corpus.info.rejected == {}
    cuts = {cut.id: cut for cut in corpus.cuts("train")}
    assert cuts["s0/plain"].load_audio().shape == (1, 16123)
    assert cuts["s0/stereo"].load_audio().shape == (1, 16041)


@pytest.mark.parametrize("rate", [22050, 32000, 44100, 48000])
def test_parvox_s_own_decoding_finds_as_many_samples_as_the_manifest_says(
    tree: Path, tmp_path: Path, make_wav: MakeWav, rate: int
) -> None:
    for number in range(20):
        make_wav(tree / "s0" / f"x{number}.wav", 0.5 + number / 1000 + 1.5 / rate, rate=rate, seed=number)
    corpus = prepare("folder", tree, tmp_path / "out", PrepareSettings(dev_fraction=0, test_fraction=0))
    for cut in corpus.cuts("train"):
        audio = read_audio(cut.recording.sources[0].source, corpus.info.sample_rate_hz)
        assert len(audio.samples) == cut.num_samples


class TestGivenTrials:
    def write(self, tmp_path: Path, text: str) -> PrepareSettings:
        (tmp_path / "list.txt").write_text(text)
        return PrepareSettings(trials=tmp_path / "list.txt")

    def test_its_speakers_are_tested_and_it_is_kept_as_it_is(self, tree: Path, tmp_path: Path) -> None:
        text = "1 s4/0.wav s4/1.wav\n0 s4/0.wav s5/1.wav\n1 s5/3.flac s5/1\n0 s4/0.wav s5/1.wav\n"
        corpus = prepare("folder", tree, tmp_path / "out", self.write(tmp_path, text))
        assert corpus.trials("test") == [
            Trial("s4/0", "s4/1", True),
            Trial("s4/0", "s5/1", False),
            Trial("s5/3", "s5/1", True),
            Trial("s4/0", "s5/1", False),
        ]
        assert corpus.speakers("test") == ["s4", "s5"]
        assert corpus.info.splits["test"].trials_from.startswith("list.txt (sha256 ")
        assert {name: split.speakers for name, split in corpus.info.splits.items()} == {"train": 3, "dev": 1, "test": 2}

    def test_duplicates_that_it_names_are_kept(self, tree: Path, tmp_path: Path) -> None:
        shutil.copy(tree / "s4" / "0.wav", tree / "s4" / "copy.wav")
        settings = self.write(tmp_path, "1 s4/1.wav s4/copy.wav\n0 s4/0.wav s5/0.wav\n")
        corpus = prepare("folder", tree, tmp_path / "out", settings)
        assert len(corpus.trials("test")) == 2
        assert corpus.info.rejected == {}

    def test_trials_of_rejected_recordings_are_dropped_and_counted(self, tree: Path, tmp_path: Path) -> None:
        (tree / "s4" / "1.wav").write_text("no")
        settings = self.write(tmp_path, "1 s4/0.wav s4/1.wav\n0 s4/0.wav s5/1.wav\n1 s5/0.wav s5/1.wav\n")
        corpus = prepare("folder", tree, tmp_path / "out", settings)
        assert len(corpus.trials("test")) == 2
        assert any("1 of 3 trials left out" in note for note in corpus.info.notes)

    def test_unknown_utterances_are_an_error(self, tree: Path, tmp_path: Path) -> None:
        settings = self.write(tmp_path, "1 s4/0.wav s4/1.wav\n0 s4/0.wav s9/1.wav\n")
        with pytest.raises(TrialError, match=r"list.txt: trial 2 names 's9/1.wav'.*expected ids such as 's0/0'"):
            prepare("folder", tree, tmp_path / "out", settings)
        assert not (tmp_path / "out").exists()

    def test_wrong_labels_are_noted(self, tree: Path, tmp_path: Path) -> None:
        corpus = prepare("folder", tree, tmp_path / "out", self.write(tmp_path, "1 s4/0 s5/1\n0 s4/0 s5/0\n"))
        assert any("1 trials are labelled otherwise" in note for note in corpus.info.notes)

    def test_voxceleb_s_ids(self, tmp_path: Path, make_wav: MakeWav) -> None:
        videos = [f"id{speaker}/v{video}" for speaker in (10001, 10002, 10270, 10300) for video in (1, 2)]
        for number, video in enumerate(videos):
            part = "vox1_test_wav" if video > "id10200" else "vox1_dev_wav"
            make_wav(tmp_path / "vox" / part / "wav" / video / "00001.flac", 0.5, kind="noise", seed=number)
        (tmp_path / "vox/vox1_test_wav/wav/id10300/v1/00001.flac").write_text("no")
        settings = self.write(
            tmp_path,
            "1 id10270/v1/00001.wav id10270/v2/00001.wav\n0 id10270/v1/00001.wav id10300/v2/00001.wav\n"
            "0 id10270/v1/00001.wav id10300/v1/00001.wav\n",
        )
        corpus = prepare("voxceleb1", tmp_path / "vox", tmp_path / "out", settings)
        assert corpus.trials("test") == [
            Trial("id10270/v1/00001", "id10270/v2/00001", True),
            Trial("id10270/v1/00001", "id10300/v2/00001", False),
        ]
        assert corpus.info.name == "voxceleb1"


def test_cnceleb_with_its_own_trials(tmp_path: Path, make_wav: MakeWav) -> None:
    root = tmp_path / "cn"
    paths = [f"data/id0000{speaker}/singing-0{session}-001.flac" for speaker in range(3) for session in range(2)]
    paths += [
        "eval/enroll/id00800-enroll.flac",
        "eval/test/id00800-vlog-01-001.flac",
        "eval/test/id00801-vlog-01-001.flac",
    ]
    for number, path in enumerate(paths):
        make_wav(root / path, 0.5, kind="noise", seed=number)
    (root / "eval/lists").mkdir()
    (root / "eval/lists/trials.lst").write_text(
        "id00800-enroll test/id00800-vlog-01-001.wav 1\nid00800-enroll test/id00801-vlog-01-001.wav 0\n"
    )
    corpus = prepare("cnceleb", root, tmp_path / "out")
    assert corpus.trials("test") == [
        Trial("eval/enroll/id00800-enroll", "eval/test/id00800-vlog-01-001", True),
        Trial("eval/enroll/id00800-enroll", "eval/test/id00801-vlog-01-001", False),
    ]
    assert corpus.speakers("test") == ["id00800", "id00801"]
    assert corpus.info.splits["test"].trials_from.startswith("eval/lists/trials.lst")


class TestNoise:
    def test_the_tiny_corpus_keeps_some_for_tests(self, prepared_tiny: Path) -> None:
        corpus = PreparedCorpus.load(prepared_tiny)
        assert corpus.info.clips == {"noise": 1, "noise-test": 1, "rir": 1, "rir-test": 1}
        train, test = corpus.noise(), corpus.noise(test=True)
        assert train is not None
        assert test is not None
        assert {cut.id for cut in train} | {cut.id for cut in test} == {"noise/noise0", "noise/noise1"}
        for cut in train:
            assert cut.supervisions == []
            assert cut.custom["kind"] == "noise"
            assert cut.load_audio().shape == (1, 8000)

    @pytest.fixture
    def noises(self, tmp_path: Path, make_wav: MakeWav) -> Path:
        for number in range(10):
            make_wav(tmp_path / "noises" / f"n{number}.wav", 0.3, kind="noise", seed=1000 + number)
        return tmp_path / "noises"

    def test_from_a_plain_folder(self, tree: Path, noises: Path, tmp_path: Path, make_wav: MakeWav) -> None:
        for number in range(4):
            make_wav(tmp_path / "rooms" / f"array_{number}.wav", 0.1, kind="noise", seed=2000 + number)
        make_wav(tmp_path / "rooms" / "hall.wav", 0.1, kind="noise", seed=3000)
        (noises / "bad.wav").write_text("no")
        settings = PrepareSettings(noise=(noises,), rirs=(tmp_path / "rooms",))
        corpus = prepare("folder", tree, tmp_path / "out", settings)
        assert corpus.info.clips["noise"] == 8
        assert corpus.info.clips["noise-test"] == 2
        rooms = [{cut.id for cut in cuts} for cuts in (corpus.rirs(), corpus.rirs(test=True)) if cuts]
        array = {f"rooms/array_{number}" for number in range(4)}
        assert sorted(rooms, key=len) == [{"rooms/hall"}, array]  # the array's channels stay together
        assert rejected(tmp_path / "out") == {f"{noises}/bad.wav": "unreadable"}

    def test_from_a_prepared_corpus_with_sides_kept(self, tree: Path, noises: Path, tmp_path: Path) -> None:
        prepare("folder", tree, tmp_path / "first", PrepareSettings(noise=(noises,)))
        shutil.copytree(noises, tmp_path / "copies")
        settings = PrepareSettings(noise=(tmp_path / "copies", tmp_path / "first"), seed=5)
        corpus = prepare("folder", tree, tmp_path / "second", settings)
        first = PreparedCorpus.load(tmp_path / "first")
        for test in (False, True):
            ours, theirs = corpus.noise(test=test), first.noise(test=test)
            assert ours is not None
            assert theirs is not None
            assert [cut.id for cut in ours] == [cut.id for cut in theirs]
        assert Counter(rejected(tmp_path / "second").values()) == {"duplicate": 10}

    def test_musan_alone_has_no_speech(self, tmp_path: Path, make_wav: MakeWav, tree: Path) -> None:
        for number in range(5):
            make_wav(tmp_path / "musan/noise/free" / f"n{number}.wav", 0.5, kind="noise", seed=number)
        corpus = prepare("musan", tmp_path / "musan", tmp_path / "m")
        assert corpus.splits == ()
        assert corpus.info.clips == {"noise": 4, "noise-test": 1}
        with pytest.raises(CorpusError, match="holds no speech"):
            corpus.cuts("train")
        joined = prepare("folder", tree, tmp_path / "out", PrepareSettings(noise=(tmp_path / "m",)))
        assert joined.info.clips == {"noise": 4, "noise-test": 1}
        with pytest.raises(CorpusError, match="holds no clips of kind rir"):
            prepare("folder", tree, tmp_path / "x", PrepareSettings(rirs=(tmp_path / "m",)))
        low = PrepareSettings(noise=(tmp_path / "m",), sample_rate_hz=8000)
        with pytest.raises(CorpusError, match="was prepared at 16000 Hz, this corpus is at 8000 Hz"):
            prepare("folder", tree, tmp_path / "x", low)

    def test_arrays_give_their_first_channel(self, tree: Path, tmp_path: Path) -> None:
        (tmp_path / "rooms").mkdir()
        samples = np.random.default_rng(0).uniform(-0.5, 0.5, (800, 3)).astype(np.float32)
        soundfile.write(tmp_path / "rooms" / "array.wav", samples, 16000, subtype="FLOAT")
        cuts = prepare("folder", tree, tmp_path / "out", PrepareSettings(rirs=(tmp_path / "rooms",))).rirs()
        assert cuts is not None
        np.testing.assert_array_equal(next(iter(cuts)).load_audio(), samples[None, :, 0])

    def test_missing_folder(self, tree: Path, tmp_path: Path) -> None:
        with pytest.raises(CorpusError, match="no such folder.*for --noise"):
            prepare("folder", tree, tmp_path / "out", PrepareSettings(noise=(tmp_path / "none",)))


class TestOutput:
    def test_nothing_is_overwritten_unasked(self, tree: Path, tmp_path: Path) -> None:
        prepare("folder", tree, tmp_path / "out")
        before = (tmp_path / "out" / "corpus.json").read_bytes()
        with pytest.raises(OutputError, match="--overwrite"):
            prepare("folder", tree, tmp_path / "out", PrepareSettings(seed=1))
        assert (tmp_path / "out" / "corpus.json").read_bytes() == before
        prepare("folder", tree, tmp_path / "out", PrepareSettings(seed=1), overwrite=True)
        assert json.loads((tmp_path / "out" / "corpus.json").read_text())["options"]["seed"] == 1

    def test_recordings_are_never_replaced(self, tree: Path, tmp_path: Path, make_wav: MakeWav) -> None:
        for out in (tree, tree.parent):
            with pytest.raises(OutputError, match="holds the recordings themselves"):
                prepare("folder", tree, out, overwrite=True)
        make_wav(tmp_path / "precious" / "a.wav", 0.1)
        with pytest.raises(OutputError, match="holds no corpus.json"):
            prepare("folder", tree, tmp_path / "precious", overwrite=True)
        with pytest.raises(OutputError, match="is a file"):
            prepare("folder", tree, tmp_path / "precious" / "a.wav", overwrite=True)
        assert (tmp_path / "precious" / "a.wav").is_file()
        assert len(list(tree.rglob("*.wav"))) == 24

    def test_unwritable(self, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(OutputError, match="file is a file, not a folder"):
            prepare("folder", tree, tmp_path / "file" / "out")

        def forbidden(**_: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        # Root may write everywhere, so the answer of the system is made up.
        monkeypatch.setattr("parvox.files.tempfile.TemporaryFile", forbidden)
        with pytest.raises(OutputError, match="Permission denied"):
            prepare("folder", tree, tmp_path / "out")

    def test_a_full_disk_leaves_nothing_behind(
        self, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("parvox.corpora.prepare.write_cuts", full)
        with pytest.raises(OutputError, match="No space left"):
            prepare("folder", tree, tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["tree"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dev_fraction": 1.1}, "dev_fraction: 1.1 given"),
        ({"test_fraction": -0.1}, "test_fraction"),
        ({"dev_fraction": 0.5, "test_fraction": 0.6}, "1 at most"),
        ({"dev_speakers": -1}, "dev_speakers: -1 given"),
        ({"sample_rate_hz": 16}, "sample_rate_hz: 16 given; expected 1000"),
        ({"min_duration_s": 2.0, "max_duration_s": 1.0}, "min_duration_s < max_duration_s"),
        ({"trials_per_split": 1}, "trials_per_split"),
        ({"nontargets_per_target": 0}, "nontargets_per_target"),
        ({"seed": -1}, "seed"),
        ({"noise_test_fraction": 1.5}, "noise_test_fraction"),
        ({"dev_fraction": float("nan")}, "dev_fraction: nan"),
        ({"split_file": Path("x"), "dev_speakers": 3}, "dev_speakers: 3 given; expected nothing beside split_file"),
        ({"split_file": Path("x"), "test_fraction": 0.3}, "test_fraction: 0.3 given; expected nothing beside"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        PrepareSettings(**settings)  # type: ignore[arg-type]


def test_unknown_importer(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="unknown corpus 'voxceleb': did you mean 'voxceleb"):
        prepare("voxceleb", tmp_path, tmp_path / "out")


def test_a_manifest_keeps_its_train_speakers(tree: Path, tmp_path: Path) -> None:
    rows = "".join(f"s{speaker}/{number}.wav,s{speaker},train\n" for speaker in range(6) for number in range(4))
    (tree / "manifest.csv").write_text(f"path,speaker,split\n{rows}")
    corpus = prepare("csv", tree, tmp_path / "out")
    assert corpus.splits == ("train",)
    assert corpus.info.notes == [
        f"{split}: no speakers, for 6 of 6 are marked to stay in train" for split in ("dev", "test")
    ]
    assert not prepare("csv", tree, tmp_path / "all", PrepareSettings(dev_fraction=0, test_speakers=0)).info.notes
    with pytest.raises(CorpusError, match="2 test speakers wanted, but the corpus marks all others as train"):
        prepare("csv", tree, tmp_path / "none", PrepareSettings(test_speakers=2))


@pytest.mark.parametrize("jobs", [0, -3])
def test_fewer_jobs_than_one(tree: Path, tmp_path: Path, jobs: int) -> None:
    with pytest.raises(CorpusError, match=f"jobs {jobs} given; expected 1 or more"):
        prepare("folder", tree, tmp_path / "out", jobs=jobs)
