"""Embedding in several processes gives what one process gives, and every problem is still one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from parvox.corpora.prepared import PreparedCorpus
from parvox.errors import CorpusError, TrialError
from parvox.evaluation.embeddings import embed_cuts
from parvox.evaluation.evaluate import evaluate
from parvox.evaluation.system import load_system

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "parvox"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TORCHRUN, *map(str, arguments)], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def test_processes_of_our_own_give_the_same(model_file: Path, six_speakers: Path, tmp_path: Path) -> None:
    corpus, system = PreparedCorpus.load(six_speakers), load_system(model_file)
    alone = embed_cuts(system, corpus.cuts("test"), workers=0)
    shared = embed_cuts(system, corpus.cuts("test"), cache=tmp_path, processes=2)
    assert shared.ids == alone.ids
    assert shared.matrix == pytest.approx(alone.matrix, abs=1e-5)
    assert embed_cuts(system, corpus.cuts("test"), cache=tmp_path, workers=0).matrix.tolist() == shared.matrix.tolist()
    voice = next(iter(corpus.cuts("test")))
    gone = voice.with_id("gone")
    gone.recording.sources[0].source = str(tmp_path / "gone.wav")
    with pytest.raises(CorpusError, match="gone"):
        embed_cuts(system, [voice, gone], processes=2)
    with pytest.raises(TrialError, match="processes 0 given; expected 1 to 1024"):
        evaluate([model_file], corpus, processes=0)


def test_torchrun_shares_the_work_and_the_first_process_reports(
    model_file: Path, run_folder: Path, six_speakers: Path, tmp_path: Path
) -> None:
    """A model file and a run folder, tuned and normalised against the training split: every kind of embedding."""
    options = ["--tune", "dev", "--mean", "train", "--replicates", "100", "--device", "cpu"]
    models = ["--models", model_file, run_folder]
    out = tmp_path / "report"
    done = run("evaluate", six_speakers, *models, *options, "--no_cache", "--json", "--out", out)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    alone = evaluate(
        [model_file, run_folder],
        PreparedCorpus.load(six_speakers),
        tune="dev",
        mean="train",
        replicates=100,
        device="cpu",
        workers=0,
    )
    for found, wanted in zip(told["systems"], alone.systems, strict=True):
        assert found["eer"]["value"] == pytest.approx(wanted.eer.value, abs=1e-9)
        assert found["eer_threshold"] == pytest.approx(wanted.eer_threshold, abs=1e-4)
    assert (out / "report.html").is_file()


def test_each_process_keeps_its_share_for_the_next_run(model_file: Path, six_speakers: Path, tmp_path: Path) -> None:
    options = ["--models", model_file, "--replicates", "0", "--cache", tmp_path / "kept", "--device", "cpu"]
    done = run("evaluate", six_speakers, *options)
    assert done.returncode == 0, done.stderr
    files = list((tmp_path / "kept").rglob("*.npz"))
    shares = [np.load(path)["keys"].shape[0] for path in files]
    assert sorted(shares) == [18, 18]
    assert embed_cuts(
        load_system(model_file), PreparedCorpus.load(six_speakers).cuts("test"), cache=tmp_path / "kept"
    ).matrix.shape == (36, 48)
    assert len(list((tmp_path / "kept").rglob("*.npz"))) == 2


def test_a_recording_that_one_process_cannot_read_ends_all_with_one_line(
    model_file: Path, six_speakers: Path, tiny_tree: Path
) -> None:
    cuts = sorted(PreparedCorpus.load(six_speakers).cuts("test"), key=lambda cut: (-cut.num_samples, cut.id))
    path = Path(cuts[1].recording.sources[0].source)  # of the second process's share
    whole = path.read_bytes()
    try:
        soundfile.write(path, np.full(2000, 0.1), 16000)
        done = run(
            "evaluate", six_speakers, "--models", model_file, "--no_cache", "--replicates", "0", "--device", "cpu"
        )
    finally:
        path.write_bytes(whole)
    assert done.returncode != 0
    assert done.stdout == ""
    told = [line for line in done.stderr.splitlines() if line.startswith("parvox: error: ")]
    assert len(told) == 1
    assert "has changed since the corpus was prepared" in told[0]
