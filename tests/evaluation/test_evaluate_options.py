"""The ways to score and to tune, on a tiny corpus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parvox.corpora.prepared import PreparedCorpus
from parvox.corpora.trials import Trial, write_trials
from parvox.errors import TrialError
from parvox.evaluation.embeddings import embed_cuts
from parvox.evaluation.evaluate import evaluate
from parvox.evaluation.kinds import trial_kinds
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.normalisation import cohort_statistics, speaker_means
from parvox.evaluation.plda import fit_plda
from parvox.evaluation.questions import load_questions
from parvox.evaluation.report import render_report
from parvox.evaluation.scorer import Scorer, ScoringSettings
from parvox.evaluation.scoring import normalise, pair_products
from parvox.evaluation.system import load_system
from parvox.evaluation.trials import TrialIndex


@pytest.fixture(scope="module")
def corpus(six_speakers: Path) -> PreparedCorpus:
    return PreparedCorpus.load(six_speakers)


@pytest.fixture
def small_cohort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parvox.evaluation.normalisation.MIN_COHORT", 4)


@pytest.fixture
def enrolled(corpus: PreparedCorpus, tmp_path: Path) -> tuple[Path, Path]:
    """Six voices of three utterances each against the other three utterances of everyone."""
    by_speaker: dict[str, list[str]] = {}
    for cut in corpus.cuts("test"):
        by_speaker.setdefault(cut.supervisions[0].speaker, []).append(cut.id)
    (tmp_path / "voices").write_text("".join(f"voice-{s} {' '.join(ids[:3])}\n" for s, ids in by_speaker.items()))
    trials = [
        Trial(f"voice-{speaker}", utterance, speaker == other)
        for speaker in by_speaker
        for other, ids in by_speaker.items()
        for utterance in ids[3:]
    ]
    write_trials(tmp_path / "voice.trials", trials)
    return tmp_path / "voices", tmp_path / "voice.trials"


@pytest.mark.usefixtures("small_cohort")
@pytest.mark.parametrize(("kind", "top_k"), [("snorm", 300), ("asnorm", 2)])
def test_normalised_scores_agree_with_the_formula(
    kind: str, top_k: int, corpus: PreparedCorpus, model_file: Path
) -> None:
    found = evaluate([model_file], corpus, normalisation=kind, top_k=top_k, replicates=0, workers=0)  # type: ignore[arg-type]
    system = load_system(model_file)
    plain = evaluate([model_file], corpus, replicates=0, workers=0).systems[0].scores
    train = list(corpus.cuts("train"))
    cohort = normalise(
        speaker_means(embed_cuts(system, train, workers=0), {cut.id: cut.supervisions[0].speaker for cut in train})
    )
    test = embed_cuts(system, corpus.cuts("test"), workers=0)
    unit = normalise(test)
    index = TrialIndex.from_trials(corpus.trials("test"))
    statistics = cohort_statistics(unit, cohort, top_k if kind == "asnorm" else None)
    rows = test.rows(index.ids)
    enrol, other = rows[index.enrol], rows[index.test]
    expected = (
        (plain - statistics.mean[enrol]) / statistics.std[enrol]
        + (plain - statistics.mean[other]) / statistics.std[other]
    ) / 2
    assert found.systems[0].scores == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert f"{kind} against 4 training speakers" in found.systems[0].scoring


def test_a_cohort_that_is_too_small_is_named(corpus: PreparedCorpus, model_file: Path) -> None:
    with pytest.raises(TrialError, match="a cohort of 4 speakers given; expected 10 or more"):
        evaluate([model_file], corpus, normalisation="asnorm", workers=0)


@pytest.mark.parametrize("method", ["mean", "scores", "quality"])
def test_voices_of_several_utterances(
    method: str, corpus: PreparedCorpus, model_file: Path, enrolled: tuple[Path, Path]
) -> None:
    voices, trials = enrolled
    found = evaluate(
        [model_file],
        corpus,
        trials=trials,
        enrolments=voices,
        enrolment=method,
        replicates=0,
        workers=0,  # type: ignore[arg-type]
    )
    assert (found.target_trials, found.nontarget_trials, found.speakers) == (18, 90, 6)
    test = embed_cuts(load_system(model_file), corpus.cuts("test"), workers=0)
    unit = normalise(test)
    first = voices.read_text().splitlines()[0].split()
    members = unit[test.rows(first[1:])]
    seconds = np.array([corpus.cuts("test")[utterance].duration for utterance in first[1:]])
    voice = np.average(members, axis=0, weights=seconds if method == "quality" else None)
    if method != "scores":
        voice /= np.linalg.norm(voice)
    line = trials.read_text().splitlines()[0].split()
    assert line[1] == first[0]
    expected = voice @ unit[test.rows([line[2]])[0]]
    assert found.systems[0].scores[0] == pytest.approx(expected, abs=1e-5)
    assert f"by {method}" in found.systems[0].scoring
    hard = found.systems[0].hardest[0]
    assert hard.enrol.startswith("voice-")
    assert hard.enrol_path.count(".wav") == 3
    columns = [breakdown.column for breakdown in found.systems[0].breakdowns]
    assert "gender" in columns


def test_problems_of_enrolments_are_named(
    corpus: PreparedCorpus, model_file: Path, enrolled: tuple[Path, Path], tmp_path: Path
) -> None:
    voices, trials = enrolled
    lines = voices.read_text().splitlines()
    (tmp_path / "fewer").write_text("\n".join(lines[1:]))
    with pytest.raises(TrialError, match="1 of its 6 voices are not in .*fewer, such as 'voice-"):
        load_questions(corpus, trials=trials, enrolments=tmp_path / "fewer")
    (tmp_path / "mixed").write_text("\n".join([f"{lines[0]} {lines[1].split()[1]}", *lines[1:]]))
    with pytest.raises(TrialError, match="is enrolled with speakers"):
        load_questions(corpus, trials=trials, enrolments=tmp_path / "mixed")
    utterance = lines[0].split()[1]
    (tmp_path / "unknown").write_text("\n".join([f"{lines[0]} nobody", *lines[1:]]))
    with pytest.raises(TrialError, match=r"'nobody', which is unknown|nobody"):
        load_questions(corpus, trials=trials, enrolments=tmp_path / "unknown")
    write_trials(tmp_path / "clash.trials", [Trial(utterance, lines[1].split()[1], False)])
    (tmp_path / "clash").write_text(f"{utterance} {utterance}\n")
    with pytest.raises(TrialError, match="is the name of an utterance too"):
        load_questions(corpus, trials=tmp_path / "clash.trials", enrolments=tmp_path / "clash")


def test_plda_scores_as_the_model_does(
    corpus: PreparedCorpus, model_file: Path, enrolled: tuple[Path, Path], prepared_tiny: Path
) -> None:
    system = load_system(model_file)
    train = list(corpus.cuts("train"))
    fitted = fit_plda(embed_cuts(system, train, workers=0).matrix, [cut.supervisions[0].speaker for cut in train])
    test = embed_cuts(system, corpus.cuts("test"), workers=0)
    index = TrialIndex.from_trials(corpus.trials("test"))
    rows = test.rows(index.ids).astype(np.int32)
    found = evaluate([model_file], corpus, backend="plda", replicates=0, workers=0).systems[0]
    expected = fitted.score(test.matrix, test.matrix, rows[index.enrol], rows[index.test])
    assert found.scores == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert found.scoring.startswith("PLDA fitted on 24 training utterances of")
    other = PreparedCorpus.load(prepared_tiny)
    with pytest.raises(TrialError, match="tiny: PLDA with snorm asked for"):
        evaluate([model_file], corpus, backend="plda", normalisation="snorm", workers=0)
    adapted = evaluate([model_file], corpus, backend="plda", plda_from=other, replicates=0, workers=0).systems[0]
    assert "adapted to 24 of" in adapted.scoring
    assert (adapted.scores != found.scores).any()
    voices, trials = enrolled
    by_voice = evaluate(
        [model_file], corpus, trials=trials, enrolments=voices, backend="plda", replicates=0, workers=0
    ).systems[0]
    first = voices.read_text().splitlines()[0].split()
    line = trials.read_text().splitlines()[0].split()
    members = test.matrix[test.rows(first[1:])]
    zero = np.zeros(1, np.int32)
    alone = fitted.score(members, test.matrix[test.rows([line[2]])], zero, zero, [np.arange(3)])
    assert by_voice.scores[0] == pytest.approx(alone[0], rel=1e-3, abs=1e-3)


def test_tuning_on_another_split(corpus: PreparedCorpus, model_file: Path) -> None:
    plain = evaluate([model_file], corpus, replicates=0, workers=0).systems[0]
    tuned = evaluate([model_file], corpus, tune="dev", replicates=0, false_accept_rates=(0.5,), workers=0).systems[0]
    assert (tuned.scores == plain.scores).all()
    dev = corpus.trials("dev")
    known = Scorer(load_system(model_file), corpus, ScoringSettings(), workers=0).score(load_questions(corpus, "dev"))
    sets = ScoreSet.from_labels(known.scores, [trial.target for trial in dev])
    cost = next(each for each in tuned.thresholds if each.name == "cost_0.05")
    assert cost.threshold == pytest.approx(sets.min_dcf_point(0.05).threshold)
    assert cost.rates is not None
    assert cost.rates.misses == np.count_nonzero(
        plain.scores[[trial.target for trial in corpus.trials("test")]] < cost.threshold
    )
    assert cost.chosen_on.startswith("dev.trials of ")
    here = next(each for each in plain.thresholds if each.name == "cost_0.05")
    assert here.chosen_on.startswith("test.trials of ")


def test_calibrated_scores_are_likelihood_ratios(corpus: PreparedCorpus, model_file: Path) -> None:
    ways = {"split": "dev", "workers": 0}
    found = evaluate([model_file], corpus, tune="test", calibrate=True, side=["duration"], replicates=100, **ways)  # type: ignore[arg-type]
    system, raw = found.systems[0], evaluate([model_file], corpus, replicates=0, **ways).systems[0]  # type: ignore[arg-type]
    assert system.calibration is not None
    fitted = system.calibration.calibration
    assert set(fitted.weights) == {"score", "log_shorter_s", "log_longer_s"}
    assert fitted.fitted_on == f"{len(corpus.trials('test'))} test trials of 6 speakers"
    questions = load_questions(corpus, "dev")
    sides = np.log([questions.enrol_duration_s, questions.test_duration_s])
    expected = (
        fitted.offset
        + fitted.weights["score"] * raw.scores
        + fitted.weights["log_shorter_s"] * sides.min(axis=0)
        + fitted.weights["log_longer_s"] * sides.max(axis=0)
    )
    assert system.scores == pytest.approx(expected, abs=1e-4)
    assert system.scoring.endswith("calibrated")
    assert system.calibration.cllr.value >= system.calibration.min_cllr - 1e-9
    assert set(system.calibration.act_dcf) == {0.01, 0.05}


def test_a_system_that_cannot_be_calibrated_leaves_the_rest_as_it_is(
    corpus: PreparedCorpus, model_file: Path, centred_model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two systems scores the wrong way round: its calibration is unknown, all else is there."""
    calls: list[int] = []

    def products(*given: np.ndarray) -> np.ndarray:
        calls.append(len(calls))
        return (1 if calls[-1] < 2 else -1) * pair_products(*given)

    monkeypatch.setattr("parvox.evaluation.scorer.pair_products", products)
    models, ways = [model_file, centred_model_file], {"split": "dev", "tune": "test", "calibrate": True, "workers": 0}
    found = evaluate(models, corpus, replicates=100, names=["good, plain", "bad, turned"], **ways)  # type: ignore[arg-type]
    good, bad = found.systems
    assert good.calibration is not None
    assert bad.calibration is None
    assert "too badly" in bad.uncalibrated
    assert [each.name for each in bad.thresholds] == [each.name for each in good.thresholds]
    assert good.scoring.endswith("calibrated")
    assert not bad.scoring.endswith("calibrated")
    (note,) = (note for note in found.notes if "not calibrated" in note)
    assert note.startswith(
        "“bad, turned” is not calibrated: on the trials to fit it on, higher scores do not speak for"
    )
    assert "“good, plain” minus “bad, turned”: EER" in found.summary()
    assert found.to_dict()["systems"][1]["calibration"] is None
    page = render_report(found)
    assert "equal error rate is that of “" in page
    assert ">bad, turned</th><td>unknown</td>" in page


def test_text_dependent_trials_by_kind(corpus: PreparedCorpus, model_file: Path, tmp_path: Path) -> None:
    # Utterances 0 to 5 of each speaker say "0", "1" or "2", each twice.
    text = {cut.id: str(int(cut.id.removesuffix(".wav")[-1]) % 3) for cut in corpus.cuts("test")}
    speaker = {cut.id: cut.supervisions[0].speaker for cut in corpus.cuts("test")}
    ids = sorted(text)

    class Speaking:
        info, folder = corpus.info, corpus.folder

        def cuts(self, split: str, *, lazy: bool = False) -> list:
            for cut in (found := list(corpus.cuts(split))):
                cut.supervisions[0].text = text[cut.id]
            return found

    trials = [Trial(a, b, speaker[a] == speaker[b] and text[a] == text[b]) for a in ids for b in ids if a < b]
    write_trials(tmp_path / "kinds", trials)
    found = evaluate(
        [model_file],
        Speaking(),
        trials=tmp_path / "kinds",
        text_dependent=True,
        replicates=100,
        workers=0,  # type: ignore[arg-type]
    )
    kinds = {kind.kind: kind for kind in found.systems[0].kinds}
    assert set(kinds) == {"target-wrong", "impostor-correct", "impostor-wrong"}
    counted = {
        "target-wrong": sum(speaker[a] == speaker[b] and text[a] != text[b] for a, b, _ in trials),
        "impostor-correct": sum(speaker[a] != speaker[b] and text[a] == text[b] for a, b, _ in trials),
        "impostor-wrong": sum(speaker[a] != speaker[b] and text[a] != text[b] for a, b, _ in trials),
    }
    assert {name: kind.trials for name, kind in kinds.items()} == counted
    scores = found.systems[0].scores
    target = np.array([trial.target for trial in trials])
    wrong = np.array([speaker[a] == speaker[b] and text[a] != text[b] for a, b, _ in trials])
    assert kinds["target-wrong"].eer.value == ScoreSet(scores[target], scores[wrong]).eer()
    assert kinds["target-wrong"].eer.interval is not None
    # All pairs are the same trials, whatever their order, and need no list.
    pairs = load_questions(Speaking(), all_pairs=True, text_dependent=True)  # type: ignore[arg-type]
    assert (len(pairs.trials), pairs.trials.targets) == (len(trials), int(target.sum()))
    assert np.bincount(trial_kinds(pairs.trials, pairs.speakers))[1:].tolist() == list(counted.values())
    # Without being told, the same list contradicts the corpus.
    with pytest.raises(TrialError, match="contradict the corpus"):
        evaluate([model_file], corpus, trials=tmp_path / "kinds", workers=0)


def test_kinds_by_hand() -> None:
    index = TrialIndex.from_trials([Trial("a", b, b == "a2") for b in ("a2", "a3", "b2", "b3")])
    speakers = index.speakers(
        {"a": "A", "a2": "A", "a3": "A", "b2": "B", "b3": "B"},
        {"a": "2", "a2": "2", "a3": "3", "b2": "2", "b3": "3"},
    )
    assert trial_kinds(index, speakers).tolist() == [0, 1, 2, 3]
    with pytest.raises(TrialError, match="its texts differ"):
        TrialIndex.from_trials([Trial("a", "a3", True)]).speakers({"a": "A", "a3": "A"}, {"a": "2", "a3": "3"})


def test_chosen_columns(corpus: PreparedCorpus, model_file: Path) -> None:
    found = evaluate([model_file], corpus, by=["session"], replicates=100, workers=0)
    (breakdown,) = found.systems[0].breakdowns
    assert [group.name for group in breakdown.groups] == ["day0", "day0 / day1", "day1"]
    total = sum(group.rates.target_trials for group in breakdown.groups)
    assert total == found.target_trials
    none = evaluate([model_file], corpus, by=[], replicates=0, workers=0)
    assert not none.systems[0].breakdowns


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"calibrate": True}, "name a split of its own, such as tune dev"),
        ({"tune": "test"}, "choose two splits"),
        ({"side": ["duration"]}, "only a calibration uses it"),
        ({"tune": "dev", "calibrate": True, "side": ["cohort"]}, "without score normalisation"),
        ({"tune": "dev", "calibrate": True, "side": ["cohort"], "backend": "plda"}, "which has no cohort"),
        ({"by": ["shoe_size"]}, "unknown column 'shoe_size'"),
        ({"false_accept_rates": (2.0,)}, r"false-accept rate 2\.0"),
    ],
)
def test_options_that_do_not_go_together(options: dict, words: str, corpus: PreparedCorpus, model_file: Path) -> None:
    with pytest.raises(TrialError, match=words):
        evaluate([model_file], corpus, replicates=0, workers=0, **options)


def test_trials_within_one_session_are_pointed_out(corpus: PreparedCorpus, model_file: Path, tmp_path: Path) -> None:
    plain = evaluate([model_file], corpus, replicates=0, workers=0)
    assert not [note for note in plain.notes if "session" in note]  # this corpus draws targets between sessions
    who = {cut.id: (cut.supervisions[0].speaker, cut.supervisions[0].custom["session"]) for cut in corpus.cuts("test")}
    same = [Trial(a, b, True) for a in who for b in who if a < b and who[a] == who[b]]
    write_trials(tmp_path / "within", [*same, *(trial for trial in corpus.trials("test") if not trial.target)])
    within = evaluate([model_file], corpus, trials=tmp_path / "within", replicates=0, workers=0)
    assert within.notes[0].startswith("All trials of the same speaker are within one session")
    write_trials(tmp_path / "mixed", [*same, *corpus.trials("test")])
    mixed = evaluate([model_file], corpus, trials=tmp_path / "mixed", replicates=0, workers=0)
    assert not mixed.notes
