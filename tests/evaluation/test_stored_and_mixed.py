"""Embeddings made before as a system, and enrolment with another model than the one that is tested."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from parvox.cli.main import main
from parvox.corpora.prepared import PreparedCorpus
from parvox.errors import ParvoxError, TrialError
from parvox.evaluation.evaluate import evaluate
from parvox.evaluation.questions import load_questions
from parvox.evaluation.scorer import Scorer, ScoringSettings
from parvox.evaluation.stored import StoredEmbeddings
from parvox.evaluation.system import System, load_system
from parvox.runtime.embeddings import load_embeddings, save_embeddings


@pytest.fixture(scope="module")
def corpus(six_speakers: Path) -> PreparedCorpus:
    return PreparedCorpus.load(six_speakers)


@pytest.fixture(scope="module")
def stored(centred_model_file: Path, tiny_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every recording of the corpus, as parvox embed writes them."""
    out = tmp_path_factory.mktemp("stored") / "voices.npz"
    assert main(["embed", str(centred_model_file), str(tiny_tree), "--skip_bad", "--out", str(out)]) == 0
    return out


def turned(system: System, **changes: object) -> System:
    """A model of other weights whose embeddings are those of `system` with their numbers in the reverse order."""
    reverse = lambda *given: system.embed(*given)[:, ::-1].copy()  # noqa: E731
    return dataclasses.replace(system, key="t" * 64, fingerprint="t" * 64, embed=reverse, **changes)  # type: ignore[arg-type]


def test_embeddings_score_as_their_model_does(stored: Path, centred_model_file: Path, corpus: PreparedCorpus) -> None:
    both = evaluate([centred_model_file, stored], corpus, tune="dev", replicates=0, workers=0)
    model, made = both.systems
    assert made.scores == pytest.approx(model.scores, abs=1e-5)
    assert made.scoring == model.scoring == "cosine, the model's mean subtracted"
    assert (made.kind, made.precision, made.parameters) == ("embeddings", "", 0)
    assert made.fingerprint == model.fingerprint


def test_an_utterance_without_embedding_is_named(stored: Path, corpus: PreparedCorpus, tmp_path: Path) -> None:
    whole = load_embeddings(stored)
    lost = next(iter(corpus.cuts("test")))
    kept = [row for row, name in enumerate(whole.ids) if not lost.recording.sources[0].source.endswith(name[-14:])]
    fewer = dataclasses.replace(
        whole,
        ids=tuple(whole.ids[row] for row in kept),
        embeddings=whole.embeddings[kept],
        speech_s=whole.speech_s[kept],
    )
    save_embeddings(fewer, tmp_path / "fewer.npz")
    with pytest.raises(TrialError, match=r"no embedding of 1 of 36 utterances, such as .*embed their recordings too"):
        evaluate([tmp_path / "fewer.npz"], corpus, replicates=0)


def test_how_recordings_are_found(stored: Path, corpus: PreparedCorpus, tmp_path: Path) -> None:
    whole, cuts = load_embeddings(stored), list(corpus.cuts("test"))[:3]
    paths = [Path(cut.recording.sources[0].source) for cut in cuts]

    def named(*ids: str) -> StoredEmbeddings:
        rows = np.eye(len(ids), whole.embeddings.shape[1], dtype=np.float32)
        made = dataclasses.replace(whole, ids=ids, embeddings=rows, speech_s=np.ones(len(ids), np.float32), mean=None)
        save_embeddings(made, tmp_path / "named.npz", overwrite=True)
        return StoredEmbeddings(tmp_path / "named.npz")

    def found(store: StoredEmbeddings) -> list[int]:
        return [int(row.argmax()) for row in store.find(cuts)]

    parents = [f"{path.parent.name}/{path.name}" for path in paths]
    assert found(named(*parents)) == [0, 1, 2]
    assert found(named(*(f"../{parent}" for parent in parents[::-1]))) == [2, 1, 0]
    assert found(named(*(cut.id for cut in cuts))) == [0, 1, 2]
    assert found(named(paths[0].name, *parents)) == [1, 2, 3]  # what fits best
    other = [each for each in corpus.cuts("test") if Path(each.recording.sources[0].source).name == paths[0].name][:2]
    with pytest.raises(TrialError, match="could be that of .* and of .*; embed the recordings from a folder above"):
        named(paths[0].name).find(other)
    half = cuts[0].truncate(duration=0.4, preserve_id=True).with_id("half")
    with pytest.raises(TrialError, match="no embedding of 1 of 1 utterances, such as 'half'"):
        named(*parents).find([half])


def test_two_models_for_the_two_sides(model_file: Path, corpus: PreparedCorpus, tmp_path: Path) -> None:
    """Scores by hand, one utterance at a time; several enrolment utterances as well."""
    student = load_system(model_file)
    teacher = turned(student, compatible_with=frozenset())
    student = dataclasses.replace(student, compatible_with=frozenset({teacher.fingerprint}))
    cuts = {cut.id: cut for cut in corpus.cuts("test")}

    def unit(system: System, utterance: str) -> np.ndarray:
        samples = soundfile.read(cuts[utterance].recording.sources[0].source, dtype="float32")[0]
        found = system.embed(samples[None], np.array([len(samples)]), [utterance])[0]
        return found / np.linalg.norm(found)

    questions = load_questions(corpus, "test")
    scored = Scorer(student, corpus, ScoringSettings(), enrol_with=teacher, workers=0).score(questions)
    trials = corpus.trials("test")
    expected = [unit(teacher, trial.enrol) @ unit(student, trial.test) for trial in trials[:20]]
    assert scored.scores[:20] == pytest.approx(expected, abs=1e-5)
    assert scored.words == "cosine, enrolled with tiny"
    plain = Scorer(student, corpus, ScoringSettings(), workers=0).score(questions)
    assert np.abs(scored.scores - plain.scores).max() > 0.01

    by_speaker: dict[str, list[str]] = {}
    for cut in cuts.values():
        by_speaker.setdefault(cut.supervisions[0].speaker, []).append(cut.id)
    (tmp_path / "voices").write_text("".join(f"v-{s} {ids[0]} {ids[1]}\n" for s, ids in by_speaker.items()))
    lines = [f"{int(s == o)} v-{s} {ids[2]}\n" for s in by_speaker for o, ids in by_speaker.items()]
    (tmp_path / "list").write_text("".join(lines))
    voices = load_questions(corpus, "test", tmp_path / "list", tmp_path / "voices")
    several = Scorer(student, corpus, ScoringSettings(), enrol_with=teacher, workers=0).score(voices)
    first = next(iter(by_speaker.values()))
    voice = unit(teacher, first[0]) + unit(teacher, first[1])
    assert several.scores[0] == pytest.approx(voice / np.linalg.norm(voice) @ unit(student, first[2]), abs=1e-5)


def test_each_side_meets_the_cohort_as_the_other_would(
    model_file: Path, corpus: PreparedCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parvox.evaluation.normalisation.MIN_COHORT", 4)
    student = load_system(model_file)
    teacher = turned(student)
    student = dataclasses.replace(student, compatible_with=frozenset({teacher.fingerprint}))
    questions, settings = load_questions(corpus, "test"), ScoringSettings(normalisation="snorm")
    mixed = Scorer(student, corpus, settings, enrol_with=teacher, workers=0).score(questions)
    # Turn the tests instead: every inner product, and so every statistic, is the same.
    other = turned(student, compatible_with=frozenset({student.fingerprint}))
    again = Scorer(other, corpus, settings, enrol_with=student, workers=0).score(questions)
    assert mixed.scores == pytest.approx(again.scores, abs=1e-3)


def test_models_whose_embeddings_mean_something_else_are_refused(
    model_file: Path, centred_model_file: Path, run_folder: Path, corpus: PreparedCorpus
) -> None:
    with pytest.raises(TrialError, match="tiny: tiny gives embeddings of 12 numbers, tiny of 48"):
        evaluate([model_file], corpus, enrol_with=run_folder, names=["tiny"], workers=0)
    student = load_system(model_file)
    with pytest.raises(TrialError, match="may not be compared: neither was trained to give the other's"):
        Scorer(student, corpus, ScoringSettings(), enrol_with=turned(student))
    with pytest.raises(TrialError, match="PLDA asked for with another model to enrol"):
        Scorer(student, corpus, ScoringSettings(backend="plda"), enrol_with=turned(student))
    same_weights = evaluate([model_file], corpus, enrol_with=centred_model_file, replicates=0, workers=0)
    assert same_weights.systems[0].scoring.endswith("enrolled with centred")
    with pytest.raises(ParvoxError, match="no such file"):
        evaluate([model_file], corpus, enrol_with=model_file.with_name("none.npz"))


def test_both_sides_lose_the_mean_of_the_model_that_is_tested(
    model_file: Path, centred_model_file: Path, corpus: PreparedCorpus
) -> None:
    """A run folder has no mean of its own; its embeddings lie where the student's do."""
    student = load_system(centred_model_file)
    teacher = dataclasses.replace(load_system(model_file), key="t" * 64)
    questions = load_questions(corpus, "test")
    mixed = Scorer(student, corpus, ScoringSettings(), enrol_with=teacher, workers=0).score(questions)
    alone = Scorer(student, corpus, ScoringSettings(), workers=0).score(questions)
    assert mixed.scores == pytest.approx(alone.scores, abs=1e-5)
