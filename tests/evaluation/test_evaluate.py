"""Models to error rates: the whole way on a tiny corpus, against the same things computed plainly."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.special import ndtri

from parvox.corpora.prepared import PreparedCorpus
from parvox.corpora.trials import Trial, write_trials
from parvox.errors import ParvoxError, TrialError
from parvox.evaluation.bootstrap import bootstrap
from parvox.evaluation.estimate import Estimate
from parvox.evaluation.evaluate import evaluate
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.resampling import Interval, interval, speaker_weights
from parvox.evaluation.result_files import finite, write_csv, write_json
from parvox.evaluation.results import Evaluation
from parvox.evaluation.score_evaluation import MeasureSettings, band_rates, evaluate_scores
from parvox.evaluation.trials import Speakers, TrialIndex
from parvox.runtime.embedder import SpeakerEmbedder
from parvox.tables import aligned


@pytest.fixture(scope="module")
def corpus(six_speakers: Path) -> PreparedCorpus:
    return PreparedCorpus.load(six_speakers)


@pytest.fixture(scope="module")
def both(corpus: PreparedCorpus, model_file: Path, run_folder: Path) -> Evaluation:
    return evaluate([model_file, run_folder], corpus, replicates=200, seed=3, workers=0, names=["file", "run"])


def made(noise: float, seed: int, speakers: int = 12) -> tuple[np.ndarray, TrialIndex, Speakers]:
    """Scores of all pairs of made-up embeddings; noise makes them worse."""
    ids = [f"s{s:02d}-{u}" for s in range(speakers) for u in range(5)]
    rows, columns = np.triu_indices(len(ids), 1)
    trials = TrialIndex.from_trials(
        [Trial(ids[a], ids[b], ids[a][:3] == ids[b][:3]) for a, b in zip(rows, columns, strict=True)]
    )
    voices = np.repeat(np.random.default_rng(0).standard_normal((speakers, 8)), 5, axis=0)
    embeddings = voices + noise * np.random.default_rng(seed).standard_normal(voices.shape)
    scores = (embeddings @ embeddings.T)[rows, columns].astype(np.float32)
    return scores, trials, trials.speakers({name: name[:3] for name in ids})


def test_the_whole_way_agrees_with_doing_it_by_hand(both: Evaluation, corpus: PreparedCorpus, model_file: Path) -> None:
    embedder = SpeakerEmbedder.load(model_file)
    cuts = {cut.id: cut for cut in corpus.cuts("test")}

    def unit(utterance: str) -> np.ndarray:
        embedding = embedder.embed(soundfile.read(cuts[utterance].recording.sources[0].source, dtype="float32")[0])
        return embedding / np.linalg.norm(embedding)

    units = {utterance: unit(utterance) for utterance in cuts}
    trials = corpus.trials("test")
    scores = np.array([units[trial.enrol] @ units[trial.test] for trial in trials])
    target = np.array([trial.target for trial in trials])
    file = both.systems[0]
    assert file.scores == pytest.approx(scores, abs=1e-5)
    by_hand = ScoreSet.from_labels(file.scores, target)
    assert file.eer.value == by_hand.eer()
    assert file.min_dcf[0.05].value == by_hand.min_dcf(0.05)
    assert (both.target_trials, both.nontarget_trials) == (target.sum(), (~target).sum())
    assert (both.speakers, both.utterances) == (6, len({u for trial in trials for u in trial[:2]}))


def test_intervals_are_those_of_the_bootstrap(both: Evaluation, corpus: PreparedCorpus) -> None:
    trials = corpus.trials("test")
    speaker = {cut.id: cut.supervisions[0].speaker for cut in corpus.cuts("test")}
    order = {name: row for row, name in enumerate(sorted(set(speaker.values())))}
    enrol, test = ([order[speaker[trial[side]]] for trial in trials] for side in (0, 1))
    target = [trial.target for trial in trials]
    replicates = bootstrap(both.systems[1].scores, target, enrol, test, speaker_weights(6, 200, 3))
    assert both.systems[1].eer.interval == interval(replicates.eer)
    assert both.systems[1].min_dcf[0.01].interval == interval(replicates.min_dcf[0.01])


def test_results_say_where_they_come_from(both: Evaluation, corpus: PreparedCorpus, six_speakers: Path) -> None:
    found = json.loads(json.dumps(finite(both.to_dict()), allow_nan=False))
    assert found["corpus_fingerprint"] == corpus.info.fingerprint
    assert found["synthetic"] is True
    assert found["trials"]["sha256"] == TrialIndex.read(six_speakers / "test.trials").sha256
    assert found["settings"]["replicates"] == 200
    assert [system["kind"] for system in found["systems"]] == ["model file", "run folder"]
    assert found["systems"][0]["scoring"] == "cosine"
    assert set(found["environment"]) == {"parvox_version", "commit", "hardware", "python", "date"}


def test_means(corpus: PreparedCorpus, model_file: Path, centred_model_file: Path, tmp_path: Path) -> None:
    def scores(path: Path, mean: str) -> np.ndarray:
        result = evaluate([path], corpus, mean=mean, replicates=0, workers=0)  # type: ignore[arg-type]
        return result.systems[0].scores

    plain = scores(model_file, "none")
    assert (scores(model_file, "model") == plain).all()  # it carries none
    assert (scores(centred_model_file, "none") == plain).all()
    assert np.abs(scores(centred_model_file, "model") - plain).max() > 0.01
    embedder = SpeakerEmbedder.load(model_file)
    train = np.stack(
        [
            embedder.embed(soundfile.read(cut.recording.sources[0].source, dtype="float32")[0])
            for cut in corpus.cuts("train")
        ]
    ).mean(axis=0)
    trial = corpus.trials("test")[0]
    cuts = {cut.id: cut for cut in corpus.cuts("test")}
    pair = [
        embedder.embed(soundfile.read(cuts[utterance].recording.sources[0].source, dtype="float32")[0]) - train
        for utterance in trial[:2]
    ]
    expected = pair[0] @ pair[1] / np.linalg.norm(pair[0]) / np.linalg.norm(pair[1])
    assert scores(model_file, "train")[0] == pytest.approx(expected, abs=1e-4)
    first, *others = [(cut.id, cut.supervisions[0].speaker) for cut in corpus.cuts("train")]
    write_trials(tmp_path / "train", [Trial(first[0], name, speaker == first[1]) for name, speaker in others])
    with pytest.raises(TrialError, match="they would know the very speakers"):
        evaluate([model_file], corpus, split="train", trials=tmp_path / "train", mean="train", workers=0)


def test_another_trial_list(corpus: PreparedCorpus, model_file: Path, both: Evaluation, tmp_path: Path) -> None:
    trials = corpus.trials("test")
    write_trials(tmp_path / "few", trials[:40])
    result = evaluate([model_file], corpus, trials=tmp_path / "few", replicates=0, workers=0)
    assert result.systems[0].scores == pytest.approx(both.systems[0].scores[:40], abs=1e-6)
    write_trials(tmp_path / "twice", [*trials, trials[0]])
    with pytest.raises(TrialError, match="stand there twice"):
        evaluate([model_file], corpus, trials=tmp_path / "twice", replicates=0, workers=0)
    kept = evaluate([model_file], corpus, trials=tmp_path / "twice", keep_duplicates=True, replicates=0, workers=0)
    assert kept.target_trials + kept.nontarget_trials == len(trials) + 1


def test_a_better_system_is_told_from_a_worse_one() -> None:
    good, trials, speakers = made(0.3, 1, 20)
    bad = made(1.2, 2, 20)[0]
    twin = made(0.3, 3, 20)[0]
    result = evaluate_scores(
        {"good": good, "bad": bad, "twin": twin}, trials, speakers, MeasureSettings(replicates=400)
    )
    eer = {(d.system, d.other): d for d in result.differences if d.measure == "EER"}
    assert set(eer) == {("good", "bad"), ("good", "twin"), ("bad", "twin")}
    clear = eer["good", "bad"]
    assert clear.significant
    assert clear.p_value is not None
    assert clear.p_value < 0.01
    assert clear.difference.value == pytest.approx(result.systems[0].eer.value - result.systems[1].eer.value)
    assert clear.difference.interval is not None
    assert clear.difference.interval.high < 0
    assert not eer["good", "twin"].significant
    # Pairing narrows the interval: both systems meet the same hard speakers.
    first, second = result.systems[0].eer.interval, result.systems[2].eer.interval
    spread = eer["good", "twin"].difference.interval
    assert first is not None
    assert second is not None
    assert spread is not None
    assert spread.high - spread.low < first.high - first.low + second.high - second.low


def test_too_few_speakers_leave_the_interval_unknown() -> None:
    scores, trials, speakers = made(0.8, 1, 4)
    result = evaluate_scores({"a": scores, "b": -scores}, trials, speakers)
    assert result.systems[0].eer.interval is None
    assert result.systems[0].band is None
    assert result.differences[0].p_value is None
    assert not result.differences[0].significant
    assert "4 speakers are too few" in result.notes[0]
    assert "[unknown]" in result.summary()


def test_scores_that_are_nearly_all_the_same_have_a_histogram() -> None:
    _, trials, speakers = made(0.8, 1)
    scores = np.full(len(trials), 0.9999999, np.float32)
    scores[::7] = np.nextafter(scores[0], np.float32(2))  # the next number that there is
    histogram = evaluate_scores({"collapsed": scores}, trials, speakers).systems[0].histogram
    assert histogram.target.sum() == pytest.approx(1)
    assert (np.diff(histogram.edges) > 0).all()


def test_no_error_is_not_called_certainty() -> None:
    scores, trials, speakers = made(0.0, 1)
    result = evaluate_scores({"perfect": np.where(trials.target, 1, scores - 100)}, trials, speakers)
    assert result.systems[0].eer.value == 0
    assert "“perfect”: no error in 1,770 trials" in result.notes[-1]
    assert "22.1 %" in result.notes[-1]  # 1 - 0.05 ** (1 / 12)


def test_bands_hold_the_curve() -> None:
    scores, trials, speakers = made(0.8, 1)
    system = evaluate_scores({"a": scores}, trials, speakers, MeasureSettings(replicates=300)).systems[0]
    assert system.band is not None
    at = np.searchsorted(-system.det.false_accept_rates, -system.band.false_accept_rates)
    inside = (system.band.low - 0.05 <= system.det.miss_rates[at]) & (
        system.det.miss_rates[at] <= system.band.high + 0.05
    )
    assert inside.mean() > 0.9
    assert (system.band.low <= system.band.high).all()
    rates = band_rates(1000)
    assert rates[0] == pytest.approx(0.0005)
    assert rates[-1] == pytest.approx(0.5)
    assert np.diff(ndtri(rates)) == pytest.approx(np.diff(ndtri(rates))[0])


def test_histograms_hold_every_score() -> None:
    scores, trials, speakers = made(0.8, 1)
    found = evaluate_scores({"a": scores}, trials, speakers, MeasureSettings(replicates=0)).systems[0].histogram
    assert (found.edges[0], found.edges[-1]) == (scores.min(), scores.max())
    assert found.target.sum() == pytest.approx(1)
    assert found.nontarget.sum() == pytest.approx(1)


def test_files_say_the_same(both: Evaluation, tmp_path: Path) -> None:
    write_json(tmp_path / "r.json", both)
    write_csv(tmp_path / "r.csv", both)
    found = json.loads((tmp_path / "r.json").read_text())
    with (tmp_path / "r.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["system"] for row in rows] == ["file", "run"]
    assert float(rows[1]["eer"]) == found["systems"][1]["eer"]["value"] == both.systems[1].eer.value
    assert float(rows[0]["min_dcf_0.01_high"]) == found["systems"][0]["min_dcf"]["0.01"]["high"]
    with pytest.raises(ParvoxError, match="exists already"):
        write_json(tmp_path / "r.json", both)


def test_words() -> None:
    estimate = Estimate(0.0231, Interval(0.018, 0.0295))
    assert estimate.percent() == "2.31 % [1.80, 2.95]"
    assert estimate.plain() == "0.023 [0.018, 0.029]"
    assert Estimate(0.5, None).percent() == "50.00 % [unknown]"
    assert aligned([["a", "bb"], ["ccc", "d"]]) == ["a    bb", "ccc  d"]
    assert finite({"a": [float("nan"), 1.0, float("inf")]}) == {"a": [None, 1.0, None]}


def test_problems_are_named(corpus: PreparedCorpus, model_file: Path, centred_model_file: Path, tmp_path: Path) -> None:
    trials = corpus.trials("test")
    write_trials(tmp_path / "targets", [trial for trial in trials if trial.target])
    with pytest.raises(TrialError, match="none of its 54 trials is a non-target trial"):
        evaluate([model_file], corpus, trials=tmp_path / "targets")
    write_trials(tmp_path / "impostors", [trial for trial in trials if not trial.target])
    with pytest.raises(TrialError, match="is a target trial"):
        evaluate([model_file], corpus, trials=tmp_path / "impostors")
    write_trials(tmp_path / "unknown", [*trials, Trial("nobody", trials[0].test, False)])
    with pytest.raises(TrialError, match="unknown, such as 'nobody'"):
        evaluate([model_file], corpus, trials=tmp_path / "unknown")
    with pytest.raises(ParvoxError, match="has no split 'tset'"):
        evaluate([model_file], corpus, split="tset")
    with pytest.raises(TrialError, match="5 bootstrap replicates"):
        evaluate([model_file], corpus, replicates=5)
    with pytest.raises(TrialError, match=r"confidence level 95\.0"):
        evaluate([model_file], corpus, level=95.0)
    with pytest.raises(TrialError, match="all different"):
        evaluate([model_file, centred_model_file], corpus, names=["a", "a"])
    with pytest.raises(ParvoxError, match="is given twice"):
        evaluate([model_file, model_file.parent / ".." / model_file.parent.name / "tiny.onnx"], corpus)
    scores, index, speakers = made(0.8, 1)
    with pytest.raises(TrialError, match="mine: 5 scores for 1770 trials"):
        evaluate_scores({"mine": scores[:5]}, index, speakers)
    scores[3] = np.inf
    with pytest.raises(TrialError, match="1 of 1770 scores of mine are NaN or infinite"):
        evaluate_scores({"mine": scores}, index, speakers)
