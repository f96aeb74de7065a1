"""Real speech through the whole evaluation, with a model that needs no training."""

from __future__ import annotations

from pathlib import Path

import pytest

from parvox.corpora.prepare import PrepareSettings, prepare
from parvox.evaluation.evaluate import evaluate
from parvox.evaluation.report import write_folder


@pytest.mark.slow
def test_real_speech(real_corpus: Path, model_file: Path, tmp_path: Path) -> None:
    folder = real_corpus / "read-speech" if (real_corpus / "read-speech").is_dir() else real_corpus
    corpus = prepare("csv", folder, tmp_path / "prepared", PrepareSettings())
    found = evaluate(
        [model_file],
        corpus,
        tune="dev",
        calibrate=True,
        side=["duration", "cohort"],
        normalisation="asnorm",
        replicates=200,
        cache=tmp_path / "kept",
    )
    assert not found.synthetic
    assert found.speakers >= 5
    system = found.systems[0]
    assert system.eer.value < 0.45  # even mean spectra tell speakers apart somewhat
    assert system.eer.interval is not None
    assert system.eer.interval.low < system.eer.value < system.eer.interval.high
    assert system.calibration is not None
    assert system.calibration.min_cllr <= system.calibration.cllr.value < 1.5
    assert system.breakdowns[0].column == "duration_s"
    assert all(Path(trial.enrol_path).is_file() for trial in system.hardest)
    write_folder(tmp_path / "report", found)
    again = evaluate([model_file], corpus, replicates=0, cache=tmp_path / "kept")
    assert again.trials_sha256 == found.trials_sha256
