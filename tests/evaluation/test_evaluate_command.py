from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from parvox.cli.main import main
from parvox.corpora.prepared import PreparedCorpus
from parvox.runtime.embeddings import Embeddings, save_embeddings


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = main(["evaluate", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


def test_prints_and_writes(
    six_speakers: Path,
    model_file: Path,
    run_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PARVOX_CACHE", str(tmp_path / "cache"))
    arguments = (six_speakers, "--models", model_file, run_folder, "--replicates", 100, "--workers", 0)
    code, out, err = run(capsys, *arguments, "--out", tmp_path / "report")
    assert (code, err) == (0, "")
    assert "SYNTHETIC" in out.splitlines()[0]
    assert "6 speakers, 36 utterances" in out.splitlines()[0]
    assert out.splitlines()[-1] == f"report: {tmp_path / 'report' / 'report.html'}"
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "report.html",
        "results.csv",
        "results.json",
    ]
    assert list((tmp_path / "cache" / "embeddings").rglob("*.npz"))
    code, out, _ = run(capsys, *arguments, "--json", "--no_cache")
    printed, written = json.loads(out), json.loads((tmp_path / "report" / "results.json").read_text())
    assert code == 0
    assert printed["systems"] == written["systems"]
    code, _, err = run(capsys, *arguments, "--out", tmp_path / "report")
    assert code == 2
    assert "exists already" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["CORPUS"], "no model given; name one or more with --models"),
        (["NONE", "--models", "MODEL"], "no such folder"),
        (["CORPUS", "--models", "NONE"], "no such file"),
        (["CORPUS", "--models", "CORPUS"], "holds no recipe.yaml"),
        (["CORPUS", "--models", "TEXT"], "not a model file"),
        (["CORPUS", "--models", "MODEL", "--trials", "NONE"], "cannot read trial list"),
        (["CORPUS", "--models", "MODEL", "--trials", "TEXT"], "line 1: 'hello' is no trial"),
        (["CORPUS", "--models", "MODEL", "--split", "dve"], "did you mean 'dev'"),
        (["CORPUS", "--models", "MODEL", "--mean", "all"], "mean"),
        (["CORPUS", "--models", "MODEL", "--p_targets", "2"], "p_target 2.0"),
        (["CORPUS", "--models", "MODEL", "--c_miss", "1e308", "--c_fa", "1e-308"], "expected at most 1e+09 times"),
        (
            ["CORPUS", "--models", "MODEL", "--false_accept_rates", "0.2", "0.2000000001"],
            "would all be called far_20pct",
        ),
        (["CORPUS", "--models", "MODEL", "--normalisation", "asnorm", "--top_k", "1"], "top_k 1 given"),
        (["CORPUS", "--models", "MODEL", "--out", "TEXT/report"], "is a file, not a folder; choose another name"),
        (["CORPUS", "--models", "MODEL", "--device", "cuda:77", "--replicates", "0"], ""),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    words: str,
    six_speakers: Path,
    model_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "text").write_text("hello\n")
    places = {"CORPUS": six_speakers, "NONE": tmp_path / "none", "MODEL": model_file, "TEXT": tmp_path / "text"}
    filled = [str(places.get(argument, argument)).replace("TEXT", str(tmp_path / "text")) for argument in arguments]
    filled += [] if "--out" in filled else ["--out", str(tmp_path / "out")]
    if words:
        monkeypatch.setattr("parvox.evaluation.embeddings.embed_directly", None)  # refused before that
    code, out, err = run(capsys, *filled, "--no_cache", "--workers", 0)
    if not words:  # a device matters to run folders only
        assert code == 0
        return
    assert (code, out) == (2, "")
    assert err.startswith("parvox: error: ")
    assert err.count("\n") == 1
    assert words in err
    assert not (tmp_path / "out").exists()


def spoilt(kind: str, corpus: PreparedCorpus) -> list[str]:
    """Lines of the test trials, made bad."""
    trials = corpus.trials("test")
    speaker = {cut.id: cut.supervisions[0].speaker for cut in corpus.cuts("test")}
    first = {speaker[trials[0].enrol]}
    kept = {
        "only targets": [trial for trial in trials if trial.target],
        "only impostors": [trial for trial in trials if not trial.target],
        "one speaker": [trial for trial in trials if {speaker[trial.enrol], speaker[trial.test]} == first],
    }.get(kind, trials)
    lines = [f"{int(trial.target)} {trial.enrol} {trial.test}" for trial in kept]
    turned = f"{int(not trials[0].target)} {trials[0].enrol} {trials[0].test}"
    more = {
        "an unknown utterance": ["0 nobody somebody"],
        "a line twice": lines[:1],
        "both labels of a pair": [turned],
    }
    return [turned, *lines[1:]] if kind == "the wrong label" else lines + more.get(kind, [])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("only targets", "is a non-target trial; error rates need both kinds"),
        ("only impostors", "is a target trial; error rates need both kinds"),
        ("one speaker", "is a non-target trial"),
        ("an unknown utterance", "2 of its 38 utterances are unknown, such as 'nobody'"),
        ("a line twice", "1 trials stand there twice"),
        ("both labels of a pair", "which also stands there with the other label"),
        ("the wrong label", "1 trials contradict the corpus"),
    ],
)
def test_bad_trials_are_one_line(
    kind: str, words: str, six_speakers: Path, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list").write_text("\n".join(spoilt(kind, PreparedCorpus.load(six_speakers))))
    code, out, err = run(capsys, six_speakers, "--models", model_file, "--trials", tmp_path / "list", "--no_cache")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_embeddings_that_are_none_are_one_line(
    value: float, six_speakers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = tuple(cut.id for cut in PreparedCorpus.load(six_speakers).cuts("test"))
    rows = np.ones((len(ids), 4), np.float32)
    rows[3] = value
    save_embeddings(Embeddings(ids, rows, np.ones(len(ids), np.float32), "f" * 64, "made"), tmp_path / "made.npz")
    for backend in ("cosine", "plda"):
        code, out, err = run(
            capsys,
            six_speakers,
            "--models",
            tmp_path / "made.npz",
            "--no_cache",
            "--replicates",
            0,
            "--backend",
            backend,
        )
        assert (code, out, err.count("\n")) == (2, "", 1)
        if value or backend == "cosine":
            assert ("made: 1 embeddings are zero" if not value else f"the embedding of {ids[3]!r} is not finite") in err


def test_what_is_no_part_of_a_report_is_not_replaced(
    six_speakers: Path, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (six_speakers, "--models", model_file, "--replicates", 0, "--workers", 0, "--no_cache")
    assert run(capsys, *arguments, "--out", tmp_path / "out")[0] == 0
    assert run(capsys, *arguments, "--out", tmp_path / "out", "--overwrite")[0] == 0
    (tmp_path / "out" / "my_notes.txt").write_text("mine")
    code, out, err = run(capsys, *arguments, "--out", tmp_path / "out", "--overwrite")
    assert (code, out) == (2, "")
    assert "holds 'my_notes.txt', which is no part of a report and would be lost" in err
    assert (tmp_path / "out" / "my_notes.txt").read_text() == "mine"


def test_names_need_not_be_text(
    six_speakers: Path, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / os.fsdecode(b"m\xff.onnx")
    try:
        odd.write_bytes(model_file.read_bytes())
    except OSError:
        pytest.skip("this file system takes no such names")
    arguments = (six_speakers, "--models", odd, "--replicates", 0, "--workers", 0, "--no_cache")
    code, _, err = run(capsys, *arguments, "--out", tmp_path / "out", "--title", os.fsdecode(b"a\xffb"))
    assert (code, err) == (0, "")
    assert "m\\udcff" in (tmp_path / "out" / "report.html").read_text()
    assert json.loads((tmp_path / "out" / "results.json").read_text())["systems"][0]["name"] == "m\udcff"


def test_pairs_that_tell_nothing_are_said(
    six_speakers: Path, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = PreparedCorpus.load(six_speakers).trials("test")
    lines = [f"{int(trial.target)} {trial.enrol} {trial.test}\n" for trial in trials]
    some = trials[0]
    (tmp_path / "list").write_text(
        "\ufeff" + "".join(lines) + f"1 {some.enrol} {some.enrol}\n{int(some.target)} {some.test} {some.enrol}\n"
    )
    code, out, _ = run(
        capsys, six_speakers, "--models", model_file, "--trials", tmp_path / "list", "--no_cache", "--replicates", 0
    )
    assert code == 0
    assert f"1 trials compare an utterance with itself, such as '1 {some.enrol} {some.enrol}'" in out
    assert "1 trials repeat another one the other way round" in out


def test_the_whole_corpus_is_every_pair_of_it(
    six_speakers: Path, model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ("--split", "all", "--replicates", 0, "--workers", 0, "--no_cache", "--json")
    code, out, _ = run(capsys, six_speakers, "--models", model_file, *how)
    assert code == 0
    told = json.loads(out)
    assert told["trials"]["speakers"] == 12
    assert any("4 of the 12 speakers are of the training split" in note for note in told["notes"])
