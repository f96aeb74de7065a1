"""From recordings of words to error rates by kind of trial."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from parvox.cli.main import main
from parvox.corpora.prepared import PreparedCorpus
from parvox.corpora.trials import Trial
from parvox.errors import CorpusError, TrialError
from parvox.evaluation.evaluate import evaluate
from parvox.evaluation.kinds import measure_kinds
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.questions import load_questions
from parvox.evaluation.trials import TrialIndex
from word_corpus import write_words

KINDS = ["target-wrong", "target-wrong-reordered", "impostor-correct", "impostor-wrong"]


@pytest.fixture(scope="module")
def phrases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phrases of 3 of 4 words and those backwards: 2 train, 2 dev and 6 test speakers, 3 takes each."""
    root = write_words(tmp_path_factory.mktemp("text") / "words", speakers=10)
    out = root.parent / "phrases"
    options = ("--join.words", "3", "--join.phrases", "4", "--dev_speakers", "2", "--test_speakers", "6")
    assert main(["prepare", "csv", str(root), str(out), *options]) == 0
    return out


def test_prepared_and_evaluated_by_command(
    phrases: Path, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", phrases, "--models", model_file, "--replicates", 100, "--workers", 0, "--no_cache"]
    assert main([*map(str, arguments), "--out", str(tmp_path / "report")]) == 0
    out = capsys.readouterr().out
    found = json.loads((tmp_path / "report" / "results.json").read_text())
    (system,) = found["systems"]
    assert [kind["kind"] for kind in system["kinds"]] == KINDS
    prepared = PreparedCorpus.load(phrases).info.splits["test"].kinds
    assert {kind["kind"]: kind["trials"] for kind in system["kinds"]} == {kind: prepared[kind] for kind in KINDS}
    eer = {kind["kind"]: kind["eer"]["value"] for kind in system["kinds"]}
    # The model averages over time: it hears which words were said, not in which order.
    assert eer["target-wrong-reordered"] > 0.35
    assert eer["impostor-wrong"] < 0.1
    header = next(line for line in out.splitlines() if line.startswith("EER against target-correct"))
    assert [name for name in header.split() if "-" in name][1:] == KINDS
    assert "target-wrong-reordered" in (tmp_path / "report" / "report.html").read_text()
    assert "eer_target-wrong-reordered" in (tmp_path / "report" / "results.csv").read_text().splitlines()[0]


def test_thresholds_from_the_dev_split(phrases: Path, model_file: Path) -> None:
    found = evaluate([model_file], PreparedCorpus.load(phrases), tune="dev", replicates=0, workers=0)
    assert found.systems[0].thresholds


def test_each_kind_against_target_correct(phrases: Path) -> None:
    questions = load_questions(PreparedCorpus.load(phrases))
    scores = np.random.default_rng(0).standard_normal(len(questions.trials)).astype(np.float32)
    found = {kind.kind: kind for kind in measure_kinds(scores, questions.trials, questions.speakers)}
    said = {name: cut.supervisions[0] for name, cut in questions.cuts.items()}
    ids, trials = questions.trials.ids, questions.trials
    pairs = [(said[ids[a]], said[ids[b]]) for a, b in zip(trials.enrol, trials.test, strict=True)]
    again = np.array(
        [a.speaker == b.speaker and a.text != b.text and sorted(a.text) == sorted(b.text) for a, b in pairs]
    )
    assert found["target-wrong-reordered"].eer.value == ScoreSet(scores[trials.target], scores[again]).eer()
    assert found["target-wrong-reordered"].trials == again.sum()


def test_reordered_by_hand() -> None:
    index = TrialIndex.from_trials([Trial("a", other, other == "b") for other in ("b", "c", "d")])
    speakers = index.speakers(dict.fromkeys("abcd", "A"), {"a": "1 2", "b": "1 2", "c": "2 1", "d": "1 3"})
    assert speakers.reordered is not None
    assert speakers.reordered.tolist() == [False, True, False]
    plain = TrialIndex.from_trials([Trial("a", "b", True)]).speakers({"a": "A", "b": "A"})
    assert plain.reordered is None


def test_voices_of_the_corpus_are_enrolled_unasked(phrases: Path, model_file: Path, tmp_path: Path) -> None:
    corpus = PreparedCorpus.load(phrases)
    cuts = list(corpus.cuts("test"))
    by_class: dict[tuple[str, str], list[str]] = {}
    for cut in cuts:
        by_class.setdefault((cut.supervisions[0].speaker, cut.supervisions[0].text), []).append(cut.id)
    voices = {f"voice{number}": ids[:2] for number, (_, ids) in enumerate(sorted(by_class.items()))}
    labels = {f"voice{number}": key for number, key in enumerate(sorted(by_class))}
    trials = [(voice, ids[2], labels[voice] == key) for voice in voices for key, ids in sorted(by_class.items())]
    folder = tmp_path / "voices"
    shutil.copytree(phrases, folder)
    (folder / "test.trials").write_text("".join(f"{target:d} {voice} {test}\n" for voice, test, target in trials))
    (folder / "test.enrolments").write_text("".join(f"{voice} {' '.join(ids)}\n" for voice, ids in voices.items()))
    info = json.loads((folder / "corpus.json").read_text())
    info["splits"]["test"]["voices"] = len(voices)
    (folder / "corpus.json").write_text(json.dumps(info))
    found = evaluate([model_file], PreparedCorpus.load(folder), replicates=0, workers=0)
    assert (found.target_trials, found.nontarget_trials) == (24, 24 * 24 - 24)
    assert [kind.kind for kind in found.systems[0].kinds] == KINDS
    (folder / "test.enrolments").unlink()
    with pytest.raises(CorpusError, match="test.enrolments is missing"):
        evaluate([model_file], PreparedCorpus.load(folder), replicates=0, workers=0)


def test_a_list_of_ones_own_is_taken_as_it_says(phrases: Path, model_file: Path) -> None:
    with pytest.raises(TrialError, match="contradict the corpus"):
        evaluate([model_file], PreparedCorpus.load(phrases), trials=phrases / "test.trials", replicates=0, workers=0)
    found = evaluate(
        [model_file],
        PreparedCorpus.load(phrases),
        trials=phrases / "test.trials",
        text_dependent=True,
        replicates=0,
        workers=0,
    )
    assert [kind.kind for kind in found.systems[0].kinds] == KINDS


def test_training_and_export_take_the_dev_trials(
    phrases: Path, write_recipe: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    from parvox.export.material import Material
    from parvox.training.recipe import load_recipe
    from parvox.training.trainer import train

    corpus = PreparedCorpus.load(phrases)
    assert Material(corpus, 16000, 400).speaker_pairs() == 1
    recipe = tmp_path / "tiny.yaml"
    write_recipe(recipe, phrases)
    train(load_recipe(recipe), tmp_path / "run")
    with (tmp_path / "run" / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert 0 <= float(row["dev/eer"]) <= 1
