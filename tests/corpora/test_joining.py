"""Phrases as sound, and corpora of them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from parvox.corpora.join_settings import JoinSettings
from parvox.corpora.joining import join, trimmed
from parvox.corpora.phrases import REORDERED, phrase_of, reordered
from parvox.corpora.prepare import PrepareSettings, prepare
from parvox.corpora.prepared import PreparedCorpus
from parvox.errors import CorpusError
from word_corpus import PAUSE_S, RATE, WORD_S, word, write_words

SETTINGS = PrepareSettings(join=JoinSettings(words=3, phrases=4), dev_speakers=2, test_speakers=2, seed=5)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_words(tmp_path_factory.mktemp("words") / "words")


@pytest.fixture(scope="module")
def corpus(words: Path) -> PreparedCorpus:
    return prepare("csv", words, words.parent / "phrases", SETTINGS)


def test_quiet_ends_are_cut() -> None:
    samples = word(0, 0, 0)
    cut = trimmed(samples, RATE, 30.0)
    start = int((PAUSE_S - 0.05) * RATE)
    np.testing.assert_array_equal(cut, samples[start : start + int((WORD_S + 0.1) * RATE)])
    np.testing.assert_array_equal(trimmed(samples, RATE, 0), samples)
    silence = np.zeros(100, np.float32)
    np.testing.assert_array_equal(trimmed(silence, RATE, 30.0), silence)
    loud = np.ones(777, np.float32)
    np.testing.assert_array_equal(trimmed(loud, RATE, 30.0), loud)


def test_joined_by_hand() -> None:
    ones, twos = np.ones(5, np.float32), np.full(4, 2, np.float32)
    whole, starts = join([ones, twos], gap=2, fade=1)
    np.testing.assert_array_equal(whole, np.float32([0.5, 1, 1, 1, 0.5, 0, 0, 1, 2, 2, 1]))
    assert starts == [0, 7]
    np.testing.assert_array_equal(join([ones, twos], 0, 0)[0], np.concatenate([ones, twos]))


def test_an_utterance_is_its_words(corpus: PreparedCorpus, words: Path) -> None:
    for cut in list(corpus.cuts("train"))[:5]:
        segment = cut.supervisions[0]
        assert phrase_of(cut) == segment.text == " ".join(item.symbol for item in segment.alignment["word"])
        audio = cut.load_audio()[0]
        assert cut.num_samples == len(audio)
        for piece, item in zip(segment.custom["pieces"], segment.alignment["word"], strict=True):
            assert piece.startswith(f"{segment.speaker}/{item.symbol}_")
            source, _ = soundfile.read(words / f"{piece}.flac", dtype="float32")
            start, stop = round(item.start * RATE), round((item.start + item.duration) * RATE)
            middle = audio[start + 200 : stop - 200]  # between the fades
            best = np.correlate(source, middle, "valid").argmax()
            np.testing.assert_allclose(source[best : best + len(middle)], middle, atol=2 / 32768)
        assert segment.alignment["word"][-1].end == pytest.approx(cut.duration)


def test_trials_of_four_kinds(corpus: PreparedCorpus) -> None:
    for split in ("dev", "test"):
        cuts = {cut.id: cut.supervisions[0] for cut in corpus.cuts(split)}
        trials = corpus.trials(split)
        counts = dict.fromkeys(("target-correct", "target-wrong", REORDERED, "impostor-correct", "impostor-wrong"), 0)
        for enrol, test, target in trials:
            one, other = cuts[enrol], cuts[test]
            assert target == (one.speaker == other.speaker and one.text == other.text)
            assert not set(one.custom["pieces"]) & set(other.custom["pieces"])
            kind = "target" if one.speaker == other.speaker else "impostor"
            counts[f"{kind}-{'correct' if one.text == other.text else 'wrong'}"] += 1
            counts[REORDERED] += kind == "target" and one.text != other.text and set(one.text) == set(other.text)
        assert all(counts.values())
        assert corpus.info.splits[split].kinds == counts
        assert len({frozenset(trial[:2]) for trial in trials}) == len(trials)
    assert corpus.info.splits["test"].phrases == 4
    # 2 speakers × 4 phrases × 3 pairs of takes.
    assert corpus.info.splits["test"].kinds["target-correct"] == 24


def test_the_corpus_says_what_it_is(corpus: PreparedCorpus) -> None:
    assert corpus.info.text_dependent
    assert corpus.info.options["join"]["words"] == 3
    assert corpus.info.licences == ["x1"]
    assert len(corpus.phrases("train")) == 4
    assert sum(reordered(one, other) for one in corpus.phrases("test") for other in corpus.phrases("test")) == 4
    assert corpus.info.splits["train"].utterances == 2 * 4 * 3
    corpus.verify()


def test_equal_input_gives_equal_output_and_it_can_be_moved(
    corpus: PreparedCorpus, words: Path, tmp_path: Path
) -> None:
    again = prepare("csv", words, tmp_path / "again", SETTINGS, jobs=1)
    assert again.info == corpus.info
    for path in sorted(corpus.folder.rglob("*")):
        if path.is_file():
            assert (again.folder / path.relative_to(corpus.folder)).read_bytes() == path.read_bytes()
    moved = again.folder.rename(tmp_path / "moved")
    cut = next(iter(PreparedCorpus.load(moved).cuts("test")))
    assert cut.load_audio().shape == (1, cut.num_samples)


def test_failing_leaves_nothing(words: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="4 words wanted"):
        prepare("csv", words, tmp_path / "out", PrepareSettings(join=JoinSettings(words=4, phrases=10)))
    with pytest.raises(CorpusError, match="none of the .* joined phrases can be used"):
        prepare(
            "csv", words, tmp_path / "out", PrepareSettings(join=JoinSettings(words=3, phrases=4), max_duration_s=1)
        )
    assert not list(tmp_path.iterdir())


def test_texts_without_joining(words: Path, tmp_path: Path) -> None:
    corpus = prepare(
        "csv", words, tmp_path / "out", PrepareSettings(text_dependent=True, dev_speakers=2, test_speakers=2)
    )
    kinds = corpus.info.splits["test"].kinds
    assert set(kinds) == {"target-correct", "target-wrong", "impostor-correct", "impostor-wrong"}
    assert not (tmp_path / "out" / "audio").exists()
    with (words / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    bare = words.parent / "bare"
    bare.mkdir()
    (bare / "words").symlink_to(words, target_is_directory=True)
    (bare / "manifest.csv").write_text(
        "path,speaker\n" + "".join(f"words/{row['path']},{row['speaker']}\n" for row in rows)
    )
    with pytest.raises(CorpusError, match="none of the 72 utterances has a text; add a column text"):
        prepare("csv", bare, tmp_path / "none", PrepareSettings(text_dependent=True))


def test_spaces_of_a_manifest_make_no_phrases(words: Path, tmp_path: Path) -> None:
    with (words / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    root = words.parent / "spaced"
    root.mkdir()
    (root / "words").symlink_to(words, target_is_directory=True)
    lines = [
        f"words/{row['path']},{row['speaker']},say{' ' * (1 + number % 2)}{row['text']}\n"
        for number, row in enumerate(rows)
    ]
    (root / "manifest.csv").write_text("path,speaker,text\n" + "".join(lines))
    corpus = prepare("csv", root, tmp_path / "out", PrepareSettings(text_dependent=True))
    assert corpus.phrases("train") == sorted({f"say {row['text']}" for row in rows})
    assert corpus.info.splits["train"].phrases == len(corpus.phrases("train"))
    assert REORDERED not in corpus.info.splits["test"].kinds
