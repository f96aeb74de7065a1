"""parvox calibrate: thresholds from a user's own recordings, put into a copy of the model file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from parvox.cli.main import main
from parvox.corpora.prepared import PreparedCorpus
from parvox.evaluation.evaluate import evaluate
from parvox.runtime.model_file import read_contract, read_model_file, with_contract
from parvox.runtime.speech import find_speech
from parvox.runtime.verify import verify_files

QUICK = ["--no_cache", "--workers", "0", "--replicates", "100"]


@pytest.fixture(scope="module")
def calibrated(six_speakers: Path, model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("calibrated") / "mine.onnx"
    wanted = ["--false_accept_rates", "0.3", "0.01", "--band_edges_s", "0.9", "5", "--p_targets", "0.3"]
    assert main(["calibrate", str(model_file), str(six_speakers), str(out), "--split", "test", *wanted, *QUICK]) == 0
    return out


def test_the_thresholds_are_those_of_the_trials(calibrated: Path, six_speakers: Path, model_file: Path) -> None:
    corpus, contract = PreparedCorpus.load(six_speakers), read_contract(calibrated)
    found = evaluate([model_file], corpus, replicates=0, workers=0).systems[0]
    target = np.array([trial.target for trial in corpus.trials("test")])
    scores = found.scores.astype(np.float64)
    assert set(contract.thresholds) == {"eer", "far_30pct", "cost_0.3"}
    assert contract.default_threshold == "eer"
    assert "15 pairs of speakers can speak of no rate below" in contract.unsupported["far_1pct"]
    for point in contract.thresholds.values():
        assert point.false_accept_rate == (scores[~target] >= point.threshold).mean()
        assert point.false_reject_rate == (scores[target] < point.threshold).mean()
        assert point.interval is not None
        assert "test.trials of" in point.source
        assert "SYNTHETIC voices, 6 speakers" in point.source
    assert contract.thresholds["eer"].threshold == pytest.approx(found.eer_threshold, abs=1e-6)


def test_bands_go_by_net_speech(calibrated: Path, six_speakers: Path) -> None:
    corpus, contract = PreparedCorpus.load(six_speakers), read_contract(calibrated)
    seconds = {cut.id: find_speech(cut.load_audio()[0], 16000).seconds for cut in corpus.cuts("test")}
    shorter = np.array([min(seconds[trial.enrol], seconds[trial.test]) for trial in corpus.trials("test")])
    target = np.array([trial.target for trial in corpus.trials("test")])
    for band, rows in zip(contract.bands, (shorter < 0.9, (shorter >= 0.9) & (shorter < 5), shorter >= 5), strict=True):
        assert (band.target_trials, band.nontarget_trials) == (target[rows].sum(), (~target)[rows].sum())
    assert contract.bands[0].target_trials > 0 < contract.bands[1].target_trials
    assert not contract.bands[2].thresholds


def test_verify_decides_with_them(calibrated: Path, six_speakers: Path) -> None:
    corpus, contract = PreparedCorpus.load(six_speakers), read_contract(calibrated)
    paths = {cut.id: cut.recording.sources[0].source for cut in corpus.cuts("test")}
    trial = corpus.trials("test")[0]
    decision = verify_files(calibrated, [paths[trial.enrol]], paths[trial.test])
    shorter = min(heard.speech_s for heard in decision.recordings)
    band = next(each for each in contract.bands if each.holds(shorter))
    wanted = band.thresholds.get("eer", contract.thresholds["eer"])
    assert decision.threshold == wanted.threshold
    assert contract.calibration is not None
    assert decision.score is not None
    assert (
        decision.llr
        == contract.calibration.evidence(decision.score, *(heard.speech_s for heard in decision.recordings)).llr
    )


def test_the_model_stays_as_it_is(calibrated: Path, model_file: Path) -> None:
    before, after = read_contract(model_file), read_contract(calibrated)
    assert after.fingerprint == before.fingerprint
    assert after.golden == before.golden
    models = [onnx.load(path) for path in (model_file, calibrated)]
    assert models[0].graph == models[1].graph
    notes = [{p.key: p.value for p in model.metadata_props if not p.key.startswith("parvox")} for model in models]
    assert notes[0] == notes[1] == {"producer_note": "made by a test"}
    onnx.checker.check_model(models[1], full_check=True)
    data, contract = read_model_file(calibrated)
    assert with_contract(data, contract) == data


def test_every_utterance_of_ones_own(
    six_speakers: Path, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(model_file), str(six_speakers), str(tmp_path / "m.onnx"), "--split", "all", "--no_bands"]
    assert main(["calibrate", *arguments, *QUICK, "--default", "cost_0.05", "--json"]) == 0
    told, contract = json.loads(capsys.readouterr().out), read_contract(tmp_path / "m.onnx")
    assert contract.default_threshold == "cost_0.05"
    assert contract.bands == ()
    point = contract.thresholds["eer"]
    assert (point.target_trials, point.nontarget_trials) == (12 * 15, 72 * 71 // 2 - 12 * 15)
    assert told["thresholds"]["eer"]["threshold"] == point.threshold
    assert "say nothing about real speech" in told["notes"][0]
    assert "4 of the 12 speakers are of the training split" in told["notes"][1]
    assert "all pairs of all of" in point.source


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["CORPUS", "OUT", "--split", "tset"], "has no split 'tset'"),
        (["NONE", "OUT"], "no such folder"),
        (["CORPUS", "MODEL"], "exists already"),
        (["CORPUS", "OUT", "--band_edges_s", "3", "2"], "expected rising numbers"),
        (["CORPUS", "OUT", "--split", "test", "--default", "far_1pct"], "default 'far_1pct' given: Unknown: 450"),
        (["CORPUS", "OUT", "--split", "test", "--default", "eeer"], "did you mean 'eer'"),
        (["CORPUS", "OUT", "--split", "test", "--false_accept_rates", "1.5"], "false-accept rate 1.5 given"),
        (["CORPUS", "OUT", "--split", "test", "--replicates", "7"], "7 bootstrap replicates"),
        (["CORPUS", "OUT", "--split", "all", "--trials", "NONE"], "cannot read trial list"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    words: str,
    six_speakers: Path,
    model_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"CORPUS": six_speakers, "NONE": tmp_path / "none", "MODEL": model_file, "OUT": tmp_path / "out.onnx"}
    filled = [str(places.get(argument, argument)) for argument in arguments]
    code = main(["calibrate", str(model_file), *filled, "--no_cache", "--workers", "0"])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("parvox: error: ")
    assert err.count("\n") == 1
    assert words in err
    assert not (tmp_path / "out.onnx").exists()
