from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from parvox.corpora.prepared import PreparedCorpus
from parvox.errors import CorpusError, TrialError


@pytest.fixture
def folder(prepared_tiny: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(prepared_tiny, tmp_path / "prepared"))


def test_what_it_offers(prepared_tiny: Path) -> None:
    corpus = PreparedCorpus.load(prepared_tiny)
    assert corpus.folder == prepared_tiny
    assert corpus.splits == ("train", "dev", "test")
    assert len(corpus.cuts("train")) == 36
    assert [cut.id for cut in corpus.cuts("train", lazy=True)] == [cut.id for cut in corpus.cuts("train")]
    assert len(corpus.speakers("dev")) == 3
    assert corpus.info.options["dev_speakers"] == 3
    assert len(corpus.info.fingerprint) == 64
    corpus.verify()


def test_lazy_sets_can_be_read_again(prepared_tiny: Path) -> None:
    cuts = PreparedCorpus.load(prepared_tiny).cuts("dev", lazy=True)
    first = [cut.id for cut in cuts]
    assert [cut.id for cut in cuts] == first
    assert [cut.id for cut in cuts.subset(last=1)] == [first[-1]]


def test_lhotse_alone_reads_the_manifests(prepared_tiny: Path) -> None:
    from lhotse import CutSet, validate

    cuts = CutSet.from_file(prepared_tiny / "test.jsonl.gz").to_eager()
    validate(cuts)
    assert len(cuts) == 18


def test_unknown_split(prepared_tiny: Path) -> None:
    with pytest.raises(CorpusError, match="no split 'tset': did you mean 'test'"):
        PreparedCorpus.load(prepared_tiny).cuts("tset")
    with pytest.raises(CorpusError, match="no trials for train"):
        PreparedCorpus.load(prepared_tiny).trials("train")


def test_no_folder_and_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such folder.*parvox prepare"):
        PreparedCorpus.load(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(CorpusError, match="is a file"):
        PreparedCorpus.load(tmp_path / "file")
    with pytest.raises(CorpusError, match=r"has no corpus\.json"):
        PreparedCorpus.load(tmp_path)


@pytest.mark.parametrize("name", ["train.jsonl.gz", "noise.jsonl.gz"])
def test_a_missing_manifest_is_named_on_loading(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CorpusError, match=f"{name} is missing; prepare the corpus again"):
        PreparedCorpus.load(folder)


def test_missing_and_damaged_trials(folder: Path) -> None:
    (folder / "dev.trials").unlink()
    with pytest.raises(CorpusError, match=r"dev\.trials is missing"):
        PreparedCorpus.load(folder).trials("dev")
    (folder / "test.trials").write_text("1 a\n")
    with pytest.raises(TrialError, match="line 1"):
        PreparedCorpus.load(folder).trials("test")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 99}', '{"format": 1}', '{"format": 1, "splits": {"train": {"voices": 3}}}']
)
def test_damaged_info(folder: Path, text: str) -> None:
    (folder / "corpus.json").write_text(text)
    with pytest.raises(CorpusError, match="prepare the corpus again"):
        PreparedCorpus.load(folder)


def test_fields_of_later_versions_are_passed_over(folder: Path) -> None:
    data = json.loads((folder / "corpus.json").read_text())
    (folder / "corpus.json").write_text(json.dumps({**data, "novelty": 1}))
    assert PreparedCorpus.load(folder).info.name == data["name"]


@pytest.mark.parametrize("how", ["cut off", "not gzip", "bit", "not JSON", "not a cut", "shortened"])
def test_damaged_manifests(folder: Path, how: str) -> None:
    path = folder / "test.jsonl.gz"
    data = path.read_bytes()
    lines = gzip.decompress(data).splitlines(keepends=True)
    damaged = {
        "cut off": data[: len(data) // 2],
        "not gzip": b"plain text",
        "bit": data[:100] + bytes([data[100] ^ 8]) + data[101:],
        "not JSON": gzip.compress(lines[0] + b"{oops\n"),
        "not a cut": gzip.compress(lines[0] + b'{"id": "x", "type": "MonoCut"}\n'),
        "shortened": gzip.compress(b"".join(lines[:5])),
    }
    path.write_bytes(damaged[how])
    corpus = PreparedCorpus.load(folder)
    for read in (corpus.cuts, corpus.speakers):
        with pytest.raises(CorpusError, match=r"test\.jsonl\.gz.*prepare the corpus again") as error:
            read("test")
        assert "\n" not in str(error.value)


def test_changes_are_found_by_the_fingerprint(folder: Path) -> None:
    trials = folder / "test.trials"
    text = trials.read_text()
    trials.write_bytes(text.replace("\n", "\r\n").encode())
    PreparedCorpus.load(folder).verify()  # line ends are no change
    trials.write_text(text.replace("1 ", "0 ", 1))
    with pytest.raises(CorpusError, match="were changed since they were made"):
        PreparedCorpus.load(folder).verify()


def reverberated(cut: dict, command: str) -> None:
    source = {"type": "command", "channels": [0], "source": command}
    rir = {"id": "r", "sources": [source], "sampling_rate": 16000, "num_samples": 9, "duration": 9 / 16000}
    step = {"name": "ReverbWithImpulseResponse", "kwargs": {"rir": {**rir, "channel_ids": [0]}}}
    cut["recording"]["transforms"] = [step]


TAMPERED = {
    "the audio of .* is of the kind command, expected file": lambda cut, command: cut["recording"]["sources"][0].update(
        type="command", source=command
    ),
    "the audio of .* is transformed otherwise than by ParvoxDownmix and Resample": reverberated,
    "holds more than text and numbers": lambda cut, command: cut.update(custom={"other": cut["recording"]}),
    "MixedCut .* given; expected a MonoCut": lambda cut, command: cut.update(type="MixedCut", tracks=[]),
    "holds more than a recording": lambda cut, command: cut.update(features={"type": "fbank"}),
    "does not say who speaks": lambda cut, command: cut.update(supervisions=[]),
    "is of the kind nothing": lambda cut, command: cut["recording"].update(sources=[]),
}


@pytest.mark.parametrize("problem", TAMPERED)
def test_manifests_that_hold_more_than_speech_are_refused(folder: Path, tmp_path: Path, problem: str) -> None:
    """Lhotse would run commands, wherever in a cut they stand."""
    manifest, ran = folder / "test.jsonl.gz", tmp_path / "ran"
    cuts = [json.loads(line) for line in gzip.decompress(manifest.read_bytes()).splitlines()]
    TAMPERED[problem](cuts[0], f"touch {ran}")
    manifest.write_bytes(gzip.compress("\n".join(map(json.dumps, cuts)).encode()))
    with pytest.raises(CorpusError, match=problem):
        for cut in PreparedCorpus.load(folder).cuts("test", lazy=True):
            cut.load_audio()
    assert not ran.exists()


def change(folder: Path, split: str, **values: object) -> None:
    data = json.loads((folder / "corpus.json").read_text())
    data["splits"][split] = data["splits"].get("test", {}) | values
    (folder / "corpus.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("split", "values", "problem"),
    [
        ("../../escaped", {}, "'../../escaped' is no split"),
        ("test", {"shards": "x"}, "'x' is no count"),
        ("test", {"shards": 1.5}, "1.5 is no count"),
        ("test", {"shards": True}, "True is no count"),
        ("test", {"shards": -1}, "-1 is no count"),
        ("test", {"shards": 10**9}, "more shards than utterances"),
        ("test", {"utterances": "x"}, "'x' is no count"),
        ("test", {"trials_from": 5}, "trials_from is 5, expected words"),
    ],
)
def test_names_and_numbers_that_lead_nowhere(folder: Path, split: str, values: dict, problem: str) -> None:
    change(folder, split, **values)
    with pytest.raises(CorpusError, match=f"{problem}.*; prepare the corpus again"):
        PreparedCorpus.load(folder)
