"""The importer for manifests on real speech; the tests read nothing but what its manifests and README say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from parvox.corpora.join_settings import JoinSettings
from parvox.corpora.prepare import PrepareSettings, prepare
from parvox.corpora.prepared import PreparedCorpus


@pytest.fixture(scope="module")
def prepared(real_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedCorpus:
    return prepare("csv", real_corpus, tmp_path_factory.mktemp("real") / "prepared")


def test_splits_hold_each_source_and_no_speaker_twice(prepared: PreparedCorpus) -> None:
    found: dict[str, dict[str, set[str]]] = {}
    for split in prepared.splits:
        for cut in prepared.cuts(split):
            segment = cut.supervisions[0]
            found.setdefault(segment.source, {}).setdefault(split, set()).add(segment.speaker)
    counts = Counter(name for split in prepared.splits for name in prepared.speakers(split))
    assert set(counts.values()) == {1}
    assert not prepared.info.synthetic
    for source, by_split in found.items():
        if sum(map(len, by_split.values())) >= 8:  # fewer need not be in three splits
            assert set(by_split) == {"train", "dev", "test"}, source


@pytest.mark.parametrize("split", ["dev", "test"])
def test_trials_keep_the_rules(prepared: PreparedCorpus, split: str) -> None:
    cuts = {cut.id: cut for cut in prepared.cuts(split)}
    trials = prepared.trials(split)
    targets = [trial for trial in trials if trial.target]
    assert len(targets) >= 500
    assert len(trials) - len(targets) >= 5 * len(targets)
    by_speaker: Counter[str] = Counter()
    for trial in trials:
        one, other = cuts[trial.enrol].supervisions[0], cuts[trial.test].supervisions[0]
        assert (one.speaker == other.speaker) == trial.target
        assert cuts[trial.enrol].content != cuts[trial.test].content
        if trial.target:
            assert one.recording != other.recording
            assert not one.source.endswith("-cut")  # pieces of one recording a speaker
            by_speaker[one.speaker] += 1
        else:
            assert one.source == other.source
    assert max(by_speaker.values()) <= 0.1 * len(targets)


def test_cut_pieces_share_their_recording(prepared: PreparedCorpus) -> None:
    pieces: dict[str, set[str]] = {}
    for cut in prepared.cuts("train"):
        segment = cut.supervisions[0]
        if segment.source.endswith("-cut"):
            pieces.setdefault(segment.speaker, set()).add(segment.recording)
    if not pieces:
        pytest.skip("this corpus has no cut recordings")
    assert {len(recordings) for recordings in pieces.values()} == {1}


def test_recordings_are_left_out_only_for_a_reason(prepared: PreparedCorpus, real_corpus: Path) -> None:
    rows = sum(
        len(path.read_text(encoding="utf-8").splitlines()) - 1
        for path in [*real_corpus.glob("manifest.csv"), *real_corpus.glob("*/manifest.csv")]
    )
    kept = sum(split.utterances for split in prepared.info.splits.values()) + sum(prepared.info.clips.values())
    assert kept + sum(prepared.info.rejected.values()) == rows
    assert kept >= 0.95 * rows
    prepared.verify()


def test_audio_reads_as_the_manifest_says(prepared: PreparedCorpus) -> None:
    for split in ("dev", "test"):
        for cut in list(prepared.cuts(split))[::97]:
            assert cut.load_audio().shape == (1, cut.num_samples)
            assert cut.sampling_rate == prepared.info.sample_rate_hz


@pytest.mark.slow
def test_phrases_of_digits(real_corpus: Path, tmp_path: Path) -> None:
    if not (real_corpus / "arabic-digits").is_dir():
        pytest.skip("this corpus has no digits")
    settings = PrepareSettings(join=JoinSettings(words=4, takes=4), dev_speakers=4, test_speakers=8)
    corpus = prepare("csv", real_corpus / "arabic-digits", tmp_path / "digits", settings)
    assert {name: split.utterances for name, split in corpus.info.splits.items()} == {
        name: 40 * split.speakers for name, split in corpus.info.splits.items()
    }
    for split in ("dev", "test"):
        cuts = {cut.id: cut.supervisions[0] for cut in corpus.cuts(split)}
        for enrol, test, target in corpus.trials(split):
            one, other = cuts[enrol], cuts[test]
            assert target == (one.speaker == other.speaker and one.text == other.text)
            assert not set(one.custom["pieces"]) & set(other.custom["pieces"])
    assert len(corpus.info.splits["test"].kinds) == 5
