"""parvox verify, embed and info as a user meets them: answers, exit codes, and one line for whatever is wrong."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from bad_recordings import BAD, RATE, voice

from parvox.cli.main import main
from parvox.runtime.embedder import SpeakerEmbedder
from parvox.runtime.embeddings import load_embeddings
from parvox.runtime.model_file import ModelContract


@pytest.fixture
def here(tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and three recordings, the working directory."""
    (tmp_path / "m.onnx").write_bytes(model_path.read_bytes())
    soundfile.write(tmp_path / "a.wav", voice(hz=110), RATE)
    soundfile.write(tmp_path / "b.flac", voice(hz=118), RATE)
    soundfile.write(tmp_path / "c.ogg", voice(hz=320), RATE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fails(capfd: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must fail; returns its one line. Standard output stays empty, nothing is left behind."""
    before = sorted(Path().rglob("*"))
    assert main(list(argv)) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("parvox: error: ")
    assert err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
    return err


def test_verify_accepts_and_rejects(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "m.onnx", "a.wav", "b.flac", "--threshold", "0.8"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split() == ["decision", "accept"]
    score = float(lines[2].split()[1])
    assert score > 0.8
    assert lines[1].split(maxsplit=1) == ["reason", f"the score {score:.4f} is at or above the threshold 0.8000"]
    assert lines[3].split()[:2] == ["threshold", "0.8000"]
    assert [line.split()[-6] for line in lines[4:6]] == ["a.wav", "b.flac"]
    assert all(line.endswith(" s of 2.0 s") for line in lines[4:6])
    assert [float(line.split()[-5]) for line in lines[4:6]] == pytest.approx([1.5, 1.5], abs=0.2)
    assert main(["verify", "m.onnx", "a.wav", "c.ogg", "--threshold", "0.8"]) == 1
    assert capfd.readouterr().out.splitlines()[0].split() == ["decision", "reject"]


def test_verify_in_json(here: Path, capfd: pytest.CaptureFixture[str], contract: ModelContract) -> None:
    soundfile.write("d.wav", voice(hz=112), RATE)
    code = main(
        ["verify", "m.onnx", "a.wav", "c.ogg", "--enrol", "b.flac", "d.wav", "--operating_point", "strict", "--json"]
    )
    told = json.loads(capfd.readouterr().out)
    assert code == 1
    assert told["decision"] == "reject"
    assert told["score"] < told["threshold"] == 0.97
    assert told["operating_point"] == "strict"
    assert told["fingerprint"] == contract.fingerprint
    assert [heard["name"] for heard in told["recordings"]] == ["a.wav", "b.flac", "d.wav", "c.ogg"]
    assert all(1.3 < heard["speech_s"] < 1.7 for heard in told["recordings"])


def test_verify_counts_each_recording_once(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = fails(capfd, "verify", "m.onnx", "a.wav", "c.ogg", "--enrol", "b.flac", "a.wav")
    assert "a.wav and a.wav given to enrol hold the same samples" in message


def test_verify_without_speech_gives_no_decision(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    soundfile.write("hiss.wav", np.random.default_rng(0).normal(0, 0.1, RATE), RATE)
    assert main(["verify", "m.onnx", "a.wav", "hiss.wav"]) == 2
    out, err = capfd.readouterr()
    assert out.splitlines()[0].split() == ["decision", "refuse"]
    assert "speech in hiss.wav" in out
    assert err == ""
    assert main(["verify", "m.onnx", "hiss.wav", "a.wav", "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["score"] is None


def test_long_recordings_can_be_cut(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    BAD["3 hours"][1](here / "long.wav")
    assert main(["verify", "m.onnx", "a.wav", "long.wav", "--cut", "--max_duration_s", "2", "--json"]) in (0, 1)
    told = json.loads(capfd.readouterr().out)
    assert told["recordings"][1]["duration_s"] == 2.0


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("command", ["verify first", "verify second", "verify enrol", "embed"])
def test_bad_recordings(command: str, kind: str, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name, make, words = BAD[kind]
    make(here / name)
    argv = {
        "verify first": ["verify", "m.onnx", name, "b.flac"],
        "verify second": ["verify", "m.onnx", "a.wav", name],
        "verify enrol": ["verify", "m.onnx", "a.wav", "b.flac", "--enrol", name],
        "embed": ["embed", "m.onnx", "a.wav", name, "--out", "e.npz"],
    }[command]
    message = fails(capfd, *argv)
    assert name in message
    assert words in message


def damaged(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 16]) + data[position + 1 :]


@pytest.mark.parametrize("command", ["verify", "embed", "info"])
@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "recording", "cut", "flip early", "flip late"])
def test_bad_models(command: str, kind: str, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = (here / "m.onnx").read_bytes()
    bad = here / "bad.onnx"
    made = {
        "text": b"not a model\n" * 50,
        "empty": b"",
        "recording": (here / "a.wav").read_bytes(),
        "cut": data[: len(data) // 2],
        "flip early": damaged(data, 1000),
        "flip late": damaged(data, len(data) - 30),
    }
    if kind == "folder":
        bad.mkdir()
    elif kind in made:
        bad.write_bytes(made[kind])
    argv = {"verify": ["a.wav", "b.flac"], "embed": ["a.wav", "--out", "e.npz"], "info": []}[command]
    message = fails(capfd, command, "bad.onnx", *argv)
    assert "bad.onnx" in message
    assert ("damaged" in message) == (kind in ("flip early", "flip late"))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["verify", "m.onnx", "a.wav"], "second"),
        (["verify", "m.onnx", "a.wav", "b.flac", "c.ogg"], "unexpected argument 'c.ogg'"),
        (["verify", "m.onnx", "a.wav", "b.flac", "--treshold", "0.5"], "did you mean 'threshold'"),
        (["verify", "m.onnx", "a.wav", "b.flac", "--threshold", "high"], "threshold"),
        (["verify", "m.onnx", "a.wav", "b.flac", "--threshold", "2"], "-1 to 1"),
        (["verify", "m.onnx", "a.wav", "b.flac", "--operating_point", "er"], "did you mean 'eer'"),
        (["verify", "m.onnx", "a.wav", "b.flac", "--threads", "0"], "threads"),
        (["verify", "m.onnx", "a.wav", "b.flac", "--max_duration_s", "0"], "max_duration_s"),
        (["verify", "m.onnx", "a.wav", "b.flac", "--max_duration_s", "nan"], "max_duration_s"),
        (["embed", "m.onnx"], "recordings"),
        (["embed", "m.onnx", "a.wav", "--out", ".", "--overwrite"], "folder"),
        (["embed", "m.onnx", "a.wav", "--out", "b.flac/e.npz"], "cannot write"),
        (["embed", "m.onnx", "a.wav", "--out", "/proc/none/e.npz"], "cannot write"),
        (["info"], "path"),
        (["info", "."], "recipe.yaml"),
    ],
)
def test_bad_usage(argv: list[str], words: str, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert words in fails(capfd, *argv)


def test_embed_writes_what_the_model_gives(
    here: Path, capfd: pytest.CaptureFixture[str], embedder: SpeakerEmbedder
) -> None:
    (here / "more" / "deep").mkdir(parents=True)
    (here / "more" / ".hidden.wav").touch()
    (here / "more" / "notes.txt").write_text("not a recording")
    soundfile.write(here / "more" / "deep" / "D.WAV", voice(hz=200), RATE)
    soundfile.write(here / "more" / "e.mp3", voice(hz=250), RATE)
    assert main(["embed", "m.onnx", "a.wav", "more", "a.wav", "--out", "new/e.npz", "--json"]) == 0
    out, err = capfd.readouterr()
    told = json.loads(out)
    assert err == ""
    assert (told["recordings"], told["embedding_dim"], told["left_out"]) == (3, 48, [])
    made = load_embeddings("new/e.npz", told["fingerprint"])
    assert made.ids == ("a.wav", "more/deep/D.WAV", "more/e.mp3")
    np.testing.assert_allclose(made.embeddings[0], embedder.embed(soundfile.read("a.wav", dtype="float32")[0]))
    assert made.speech_s == pytest.approx(1.5, abs=0.2)
    assert "array" not in out


def test_embed_overwrites_only_when_told(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("e.npz").write_text("precious")
    assert "--overwrite" in fails(capfd, "embed", "m.onnx", "a.wav", "--out", "e.npz")
    fails(capfd, "embed", "m.onnx", "a.wav", "missing.wav", "--out", "e.npz", "--overwrite")
    assert Path("e.npz").read_text() == "precious"
    assert main(["embed", "m.onnx", "a.wav", "--out", "e.npz", "--overwrite"]) == 0
    assert load_embeddings("e.npz").ids == ("a.wav",)


def test_embed_leaves_out_and_lists_when_told(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = []
    for name, make, _ in BAD.values():
        if name != "folder.wav":
            make(here / name)
            names.append(name)
    assert main(["embed", "m.onnx", *names, "a.wav", "--skip_bad", "--out", "e.npz", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["recordings"] == 1
    assert [each["path"] for each in told["left_out"]] == names
    assert main(["embed", "m.onnx", *names, "a.wav", "--skip_bad", "--out", "f.npz"]) == 0
    assert capfd.readouterr().out.count("left out") == len(names)
    assert "no recording" in fails(capfd, "embed", "m.onnx", *names, "--skip_bad", "--out", "g.npz")


def test_embed_on_a_full_disk(here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    assert "No space left" in fails(capfd, "embed", "m.onnx", "a.wav", "--out", "e.npz")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_embed_into_a_folder_that_is_not_writable(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    locked = here / "locked"
    locked.mkdir(mode=0o500)
    assert "cannot write" in fails(capfd, "embed", "m.onnx", "a.wav", "--out", "locked/e.npz")


def test_names_that_are_not_text(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    odd = Path("odd") / os.fsdecode(b"\xff \n.wav")
    odd.parent.mkdir()
    Path("a.wav").rename(odd)
    assert main(["embed", "m.onnx", "odd", "--out", "e.npz"]) == 0
    assert load_embeddings("e.npz").ids == (str(odd),)
    odd.write_text("not audio")
    capfd.readouterr()
    assert r"\udcff \n.wav" in fails(capfd, "embed", "m.onnx", "odd", "--out", "f.npz")


def test_info_of_a_model(here: Path, capfd: pytest.CaptureFixture[str], contract: ModelContract) -> None:
    assert main(["info", "m.onnx"]) == 0
    text = capfd.readouterr().out
    for words in (
        "tiny (fp32)",
        "16000 Hz",
        "157,600",
        "15.8 M for 1 s",
        "CC0-1.0",
        contract.fingerprint,
        "real voices",
    ):
        assert words in text
    assert "any length of speech, 120 target and 3,400 non-target trials: made-up trials of a test" in text
    assert re.search(r"eer \(default\) +0\.9000: 2\.00% false accepts, 3\.00% false rejects", text)
    assert main(["info", "m.onnx", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["kind"] == "model"
    assert told["bytes"] == Path("m.onnx").stat().st_size
    assert ModelContract.from_json(json.dumps(told)) == contract


def test_info_of_a_run_folder(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = here / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("seed: 7\nmodel:\n  name: xvector\n")
    assert "unfinished" in fails(capfd, "info", "run")
    (run / "summary.json").write_text('{"parameters": 123, "best_dev_eer": 0.0625}')
    assert main(["info", "run"]) == 0
    text = capfd.readouterr().out
    assert "best_dev_eer  0.0625" in text
    assert text.endswith("seed: 7\nmodel:\n  name: xvector\n")
    assert main(["info", "run", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["summary"]["parameters"] == 123
    for broken in ("{", "[]"):
        (run / "summary.json").write_text(broken)
        fails(capfd, "info", "run")


def test_info_of_a_recipe(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    Path("r.yaml").write_text("model:\n  name: xvector\n")
    assert main(["info", "r.yaml", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["recipe"]["model"]["name"] == "xvector"
    assert told["parameters"] == sum(layer["parameters"] for layer in told["layers"]) > 1e6
    assert told["macs"] + told["feature_macs"] == sum(layer["macs"] for layer in told["layers"]) > 1e8
    assert main(["info", "r.yaml"]) == 0
    rows = {line.split()[0]: line.split() for line in capfd.readouterr().out.splitlines() if line}
    assert rows["head"][-2:] == rows["head.0"][-2:] == ["1,536,512", "1,536,000"]
    assert rows["pooling"][1:5] == ["StatisticsPooling", "1", "×", "3000"]
    total = sum(int(rows[part][-2].replace(",", "")) for part in ("frontend", "encoder", "pooling", "head"))
    assert total == told["parameters"]
    assert main(["info", "--model.embedding_dim", "64", "r.yaml", "--json"]) == 0
    smaller = json.loads(capfd.readouterr().out)
    assert told["parameters"] - smaller["parameters"] == (512 - 64) * 3001
    Path("bad.yaml").write_text("model:\n  name: xvektor\n")
    assert "did you mean 'xvector'" in fails(capfd, "info", "bad.yaml")
    assert "did you mean 'model.embedding_dim'" in fails(capfd, "info", "r.yaml", "--model.embeding_dim", "64")
    fails(capfd, "info", "missing.yaml")


def test_options_that_the_command_has_not(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "'--model.channels': Known: json, path" in fails(capfd, "info", "m.onnx", "--model.channels", "8")


def test_info_of_a_prepared_corpus(capfd: pytest.CaptureFixture[str], prepared_tiny: Path) -> None:
    assert main(["info", str(prepared_tiny)]) == 0
    text = capfd.readouterr().out
    written = json.loads((prepared_tiny / "corpus.json").read_text())
    assert re.search(r"train +6 speakers +36 utterances", text)
    assert re.search(r"dev +3 speakers +18 utterances .* trials: [\d,]+ target, [\d,]+ non-target", text)
    assert written["fingerprint"] in text
    assert main(["info", str(prepared_tiny), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told.pop("kind") == "corpus"
    assert told.pop("path") == str(prepared_tiny)
    assert told == written


def test_info_of_a_damaged_corpus(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("prepared").mkdir()
    Path("prepared/corpus.json").write_text("{")
    assert "cannot be read" in fails(capfd, "info", "prepared")


HEAVY = ("torch", "lhotse", "scipy", "sklearn", "matplotlib", "onnx", "lightning_fabric", "pandas", "parvox.models")


@pytest.mark.parametrize(
    "argv",
    [
        ["verify", "m.onnx", "a.wav", "b.flac", "--threshold", "0"],
        ["verify", "--help"],
        ["embed", "m.onnx", "a.wav", "--out", "e.npz"],
        ["info", "m.onnx"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported_and_the_start_is_quick(argv: list[str], here: Path) -> None:
    code = (
        "import os, sys\n"
        "from parvox.cli.main import main\n"
        f"assert main({argv!r}) == 0\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])\n"
        "times = os.times()\n"
        "print('seconds:', times.user + times.system)\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    told = dict(line.split(": ", 1) for line in done.stdout.splitlines()[-2:])
    assert told["heavy"] == "[]"
    assert float(told["seconds"]) < 3.0  # of the processor: 0.5 to 1.2 on those seen; what is heavy takes more


def test_the_documented_example_runs(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "verify.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    Path("m.onnx").rename("student.onnx")
    exec(compile(example, "docs/verify.md", "exec"), {})
    assert capfd.readouterr().out.split()[0] in ("accept", "reject")
