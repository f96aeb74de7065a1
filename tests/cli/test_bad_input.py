"""Every command with everything that can be wrong with what it is given.

Each case ends in one line on standard error that begins with ``parvox: error: `` and says what is wrong, exit code 2,
nothing on standard output, and not one file made, changed or lost.
"""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from parvox.cli.main import main

RATE = 16000


@pytest.fixture(scope="session")
def made(
    prepared_tiny: Path, write_recipe: Callable[[Path, Path], None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with a recipe, a finished run, and its model file. Do not write into it."""
    folder = tmp_path_factory.mktemp("made")
    write_recipe(folder / "r.yaml", prepared_tiny)
    assert main(["train", str(folder / "r.yaml"), "--out", str(folder / "run")]) == 0
    assert main(["export", str(folder / "run"), str(folder / "m.onnx")]) == 0
    return folder


@pytest.fixture
def here(
    made: Path,
    tiny_tree: Path,
    prepared_tiny: Path,
    make_wav: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The working directory: r.yaml, run, m.onnx, corpus (prepared), voices (its recordings), a.wav, precious.

    `corpus` and `voices` are copies, so that a case may spoil them.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARVOX_CACHE", str(tmp_path / "cache"))
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    shutil.copytree(prepared_tiny, "corpus")
    shutil.copytree(tiny_tree, "voices")
    for manifest in Path("corpus").glob("*.jsonl.gz"):
        text = gzip.decompress(manifest.read_bytes()).decode()
        manifest.write_bytes(gzip.compress(text.replace(str(tiny_tree), str(tmp_path / "voices")).encode()))
    make_wav(Path("a.wav"), kind="voice")
    Path("precious").write_text("irreplaceable")
    return tmp_path


Spoil = Callable[[], object]


def text(name: str, content: str | bytes = "not what is expected\n" * 50) -> Spoil:
    return lambda: Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())


def flipped(name: str, position: int = -60) -> Spoil:
    def flip() -> None:
        data = bytearray(Path(name).read_bytes())
        data[position] ^= 16
        Path(name).write_bytes(data)

    return flip


def recipe(old: str, new: str) -> Spoil:
    return lambda: Path("r.yaml").write_text(Path("r.yaml").read_text().replace(old, new))


def each_recording(spoil: Callable[[Path], object]) -> Spoil:
    return lambda: [spoil(path) for path in sorted(Path("voices").glob("spk*/*.wav"))]


def nan_weights() -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file("run/model.safetensors")
    next(tensor for tensor in tensors.values() if tensor.is_floating_point()).view(-1)[0] = float("nan")
    save_file(tensors, "run/model.safetensors")


def three_hours() -> None:
    size = 3 * 3600 * RATE
    header = (b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, 1, RATE, RATE, 1, 8, b"data", size)
    with Path("bad.wav").open("wb") as file:
        file.write(struct.pack("<4sI4s4sIHHIIHH4sI", *header))
        file.truncate(44 + size)  # takes no room on the disk


def truncated() -> None:
    soundfile.write("bad.wav", np.random.default_rng(0).normal(0, 0.1, 3 * RATE), RATE, format="FLAC")
    Path("bad.wav").write_bytes(Path("bad.wav").read_bytes()[:20000])


def samples(values: np.ndarray) -> Spoil:
    return lambda: soundfile.write("bad.wav", values, RATE, subtype="FLOAT")


def nothing() -> None:
    """The arguments alone are wrong."""


RECORDINGS: dict[str, tuple[Spoil, str]] = {
    "missing": (nothing, "no such file"),
    "a folder": (lambda: Path("bad.wav").mkdir(), "a folder"),
    "text": (text("bad.wav"), "not a recording"),
    "no bytes": (text("bad.wav", b""), "0 bytes"),
    "no samples": (samples(np.zeros(0)), "no samples"),
    "silence": (samples(np.zeros(RATE)), "digital silence"),
    "NaN": (samples(np.full(RATE, np.nan)), "NaN"),
    "0.05 s": (samples(np.linspace(-0.1, 0.1, RATE // 20)), "0.05 s"),
    "3 hours": (three_hours, "10800.0 s"),
    "truncated": (truncated, "truncated"),
    "a link to itself": (lambda: Path("bad.wav").symlink_to("bad.wav"), "cannot be opened"),
    "a pipe": (lambda: os.mkfifo("bad.wav"), "not a regular file"),
}

MODELS: dict[str, tuple[Spoil, str]] = {
    "missing": (lambda: Path("m.onnx").unlink(), "no such file"),
    "text": (text("m.onnx"), "not a model file"),
    "no bytes": (text("m.onnx", b""), "0 bytes"),
    "one byte flipped": (flipped("m.onnx"), "damaged"),
    "a link to itself": (lambda: (Path("m.onnx").unlink(), Path("m.onnx").symlink_to("m.onnx")), "cannot be opened"),
}

RUNS: dict[str, tuple[Spoil, str]] = {
    "missing": (lambda: shutil.rmtree("run"), "not a folder"),
    "a file": (lambda: (shutil.rmtree("run"), Path("run").write_text("x")), "not a folder"),
    "unfinished": (lambda: Path("run/summary.json").unlink(), "unfinished"),
    "no speakers": (text("run/speakers.json", "{}"), "names no speakers"),
    "fewer than no classes": (text("run/speakers.json", '{"speakers": ["a"], "classes": -1}'), "names no speakers"),
    "a summary nested too deeply": (text("run/summary.json", "[" * 100_000), "damaged"),
    "no weights": (text("run/model.safetensors", b""), "damaged"),
    "one byte flipped": (flipped("run/model.safetensors"), "damaged"),
    "NaN weights": (nan_weights, "is damaged"),
    "unknown field": (text("run/recipe.yaml", "modle: {}\n"), "did you mean 'model'"),
}

CORPORA: dict[str, tuple[Spoil, str]] = {
    "missing": (lambda: shutil.rmtree("corpus"), "no such folder"),
    "a file": (lambda: (shutil.rmtree("corpus"), Path("corpus").write_text("x")), "is a file"),
    "not prepared": (lambda: Path("corpus/corpus.json").unlink(), "has no corpus.json"),
    "damaged": (text("corpus/corpus.json", "{"), "cannot be read"),
    "recordings gone": (lambda: shutil.rmtree("voices"), "was readable when the corpus was prepared"),
    "recordings cut": (
        each_recording(lambda path: soundfile.write(path, np.full(2000, 0.1), RATE)),
        "has changed since the corpus was prepared",
    ),
    "recordings at another rate": (
        each_recording(lambda path: soundfile.write(path, soundfile.read(path)[0], 8000)),
        "it is at 8000 Hz now",
    ),
}

TRAIN = ["train", "r.yaml", "--corpus", "corpus", "--out", "out"]
DISTIL = ["distill", *TRAIN[1:], "--distillation.label.weight", "1", "--distillation.teacher"]
EVALUATE = ["evaluate", "corpus", "--no_cache", "--replicates", "0", "--workers", "0", "--models"]
PREPARE = ["prepare", "csv", "voices"]

# What is wrong, how it is made wrong, the command, and what its line must say.
CASES: dict[str, tuple[Spoil, list[str], str]] = {
    **{
        f"verify, recording: {kind}": (spoil, ["verify", "m.onnx", "a.wav", "bad.wav"], words)
        for kind, (spoil, words) in RECORDINGS.items()
    },
    **{
        f"embed, recording: {kind}": (spoil, ["embed", "m.onnx", "a.wav", "bad.wav"], words)
        for kind, (spoil, words) in RECORDINGS.items()
        if kind != "a folder"
    },
    **{
        f"{command[0]}, model: {kind}": (spoil, command, words)
        for command in (
            ["verify", "m.onnx", "a.wav", "a.wav"],
            ["embed", "m.onnx", "a.wav"],
            ["info", "m.onnx"],
            [*EVALUATE, "m.onnx"],
        )
        for kind, (spoil, words) in MODELS.items()
    },
    **{
        f"{command[0]}, run: {kind}": (spoil, command, words)
        for command in ([*DISTIL, "run"], ["export", "run", "x.onnx"], [*EVALUATE, "run"])
        for kind, (spoil, words) in RUNS.items()
        if not (command[0] == "evaluate" and kind in ("missing", "a file"))
    },  # it takes model files as well
    **{
        f"{command[0]}, corpus: {kind}": (spoil, command, words)
        for command in (TRAIN, [*EVALUATE, "m.onnx"], ["export", "run", "x.onnx", "--corpus", "corpus"])
        for kind, (spoil, words) in CORPORA.items()
        if command[0] != "export" or "recordings" not in kind or kind == "recordings gone"  # it takes seconds
    },
    # recipes
    "recipe missing": (nothing, ["train", "none.yaml"], "cannot read recipe none.yaml"),
    "recipe not text": (text("r.yaml", b"\xff\xfe"), TRAIN, "not a text file"),
    "recipe not YAML": (text("r.yaml", "a: ["), TRAIN, "not valid YAML"),
    "recipe that runs code": (text("r.yaml", "!!python/object:os.system [ls]"), TRAIN, "not valid YAML"),
    "unknown field": (recipe("epochs", "epochz"), TRAIN, "did you mean 'training.epochs'"),
    "mistyped field": (recipe("epochs: 1", "epochs: many"), TRAIN, "training.epochs: expected int; got many"),
    "list without brackets": (
        nothing,
        [*TRAIN, "--data.speed_perturbation", "0.9,1.1"],
        "data.speed_perturbation: expected a list such as [1,2]; got 0.9,1.1",
    ),
    "unknown model": (recipe("xvector", "xvectr"), TRAIN, "did you mean 'xvector'"),
    "a seed too large": (nothing, [*TRAIN, "--seed", "9" * 30], "seed: 999"),
    "a model too large": (nothing, [*TRAIN, "--model.channels", f"[{'9' * 7},{'9' * 7},16,16,24]"], "out of memory"),
    "a date that is none": (text("r.yaml", "corpus: 2024-13-45"), ["info", "r.yaml"], "not valid YAML: month"),
    "a tag that does not fit": (text("r.yaml", "seed: !!int x"), TRAIN, "not valid YAML"),
    "a dotted key": (text("r.yaml", "model.name: xvector"), TRAIN, "'model.name' given; expected model: with its"),
    "a dotted key in a section": (recipe("training:", "training:\n  a.b: 1"), TRAIN, "'training.a.b' given"),
    "more processes than processors": (nothing, [*TRAIN, "--training.devices", "10000000"], "training.devices: 1000"),
    "training diverges": (
        nothing,
        [*TRAIN, "--training.learning_rate", "10", "--training.weight_decay", "1e30"],
        "no longer finite",
    ),
    "a recipe nested too deeply": (text("r.yaml", "model: " + "[" * 5000), TRAIN, "nested too deeply"),
    "a field given twice": (recipe("epochs: 1", "epochs: 1\n  epochs: 2"), TRAIN, "epochs stands there twice"),
    "a misspelt empty section": (recipe("training:", "trainign: {}\ntraining:"), TRAIN, "did you mean 'training'"),
    "an empty teacher": (nothing, [*DISTIL, ""], "distillation.teacher: nothing given"),
    "info of a bad recipe": (recipe("epochs", "epochz"), ["info", "r.yaml"], "did you mean 'training.epochs'"),
    # models that do not go together; said before any corpus is looked for
    **{
        f"a model that does not fit together: {kind}": (
            nothing,
            ["train", "--corpus", "none", "--out", "out", *options],
            words,
        )
        for kind, options, words in (
            ("unknown", ["--model.name", "ecapa"], "unknown model 'ecapa': did you mean 'ecapa_tdnn'"),
            ("a size", ["--model.name", "resnet293"], "a size of resnet34; parvox models resnet293 shows"),
            (
                "heads that do not divide the channels",
                ["--model.name", "xvector", "--model.pooling.name", "mqmha", "--model.pooling.heads", "7"],
                "mqmha: 7 heads with frames of 1500 channels",
            ),
            (
                "sub-bands that do not divide the bins",
                ["--model.name", "bc_cmt", "--model.features.bins", "64"],
                "64 feature bins given",
            ),
            ("an embedding beyond measure", ["--model.embedding_dim", "9" * 20], "expected 1 to 10000000"),
            ("a kernel beyond measure", ["--model.name", "ecapa_tdnn", "--model.kernel", "1" + "0" * 20 + "1"], "odd"),
            (
                "layers beyond measure",
                ["--model.name", "bc_cmt", "--model.blocks", "[1,1,1,1000000]"],
                "from 1 to 1000",
            ),
            ("no samples in a shift", ["--model.features.frame_shift_ms", "0.01"], "at least a sample and two"),
            ("no number", ["--model.features.preemphasis", ".nan"], "preemphasis nan given"),
            ("a scale without end", ["--loss.scale", ".inf"], "scale inf given; expected more than 0, at most"),
            ("a weight without end", ["--training.weight_decay", ".inf"], "weight_decay: inf given"),
            ("a phrase weight without end", ["--training.phrase_weight", ".inf"], "phrase_weight: inf given"),
            ("deafening", ["--augmentation.gain_db", "[0,100000]"], "from -200.0 to 200.0"),
            ("a crop of less than a frame", ["--model.name", "xvector", "--data.crop_s", "0.1"], "needs 0.165 s"),
            (
                "a token on an encoder without tokens",
                ["--model.name", "xvector", "--model.pooling.name", "class_token"],
                "class_token: given an encoder that takes no tokens",
            ),
        )
    },
    "as many confused speakers as speakers": (
        nothing,
        [*TRAIN, "--loss.top_k", "6"],
        "top_k 6 with 6 training speakers",
    ),
    # trial lists and splits
    "unknown utterance, prepare": (
        text("t", "1 spk00/utt0 nobody/utt9"),
        [*PREPARE, "out", "--trials", "t"],
        "names 'nobody/utt9'",
    ),
    "unknown utterance, evaluate": (
        text("t", "1 spk00/utt0 nobody/utt9\n0 a b"),
        [*EVALUATE, "m.onnx", "--trials", "t"],
        "utterances are unknown",
    ),
    "unknown utterance, train": (
        text("corpus/dev.trials", "1 spk00/utt0 nobody/utt9\n0 a b"),
        TRAIN,
        "utterances are unknown",
    ),
    "no trials": (text("t", ""), [*EVALUATE, "m.onnx", "--trials", "t"], "holds no trials"),
    "trials not text": (text("t", b"\xff"), [*EVALUATE, "m.onnx", "--trials", "t"], "not a text file"),
    "one speaker": (
        lambda: shutil.copytree("voices/spk00", "one/spk00"),
        ["prepare", "folder", "one", "out"],
        "1 speaker cannot be split",
    ),
    "nothing usable": (
        lambda: (Path("bad/alice").mkdir(parents=True), Path("bad/alice/a.wav").write_text("x")),
        ["prepare", "folder", "bad", "out"],
        "none of the 1 recordings",
    ),
    "only a pipe": (
        lambda: (Path("bad/alice").mkdir(parents=True), os.mkfifo("bad/alice/a.wav")),
        ["prepare", "folder", "bad", "out"],
        "not a regular file",
    ),
    "a folder linked to itself": (
        lambda: Path("loop").symlink_to("loop"),
        ["prepare", "folder", "loop", "out"],
        "no such folder",
    ),
    # outputs
    **{
        f"{command[0]}, output: {kind}": (nothing, [*command, out], words)
        for kind, out, words in (
            ("exists", "precious", "precious"),
            ("below a file", "precious/x", "precious"),
            ("impossible", "/proc/none/x", "cannot write /proc/none/x"),
            ("too long a name", "x" * 300, "File name too long"),
            ("nothing", "", "a path"),
        )
        for command in (
            [*PREPARE],
            ["export", "run"],
            ["embed", "m.onnx", "a.wav", "--out"],
            [*EVALUATE, "m.onnx", "--out"],
            [*TRAIN[:-1]],
            ["distill", *DISTIL[1:], "run", "--out"],
            ["demo", "--offline", "--corpus", "voices", "--out"],
        )
        if not (kind == "nothing" and command[0] in ("train", "distill"))
    },  # then it is runs/RECIPE
    "a folder that is no run": (
        lambda: (Path("kept").mkdir(), Path("kept/x").touch()),
        [*TRAIN[:-1], "kept", "--overwrite"],
        "is no run folder",
    ),
    "a folder that is no corpus": (
        lambda: (Path("kept").mkdir(), Path("kept/x").touch()),
        [*PREPARE, "kept", "--overwrite"],
        "holds no corpus.json",
    ),
    "new folders above the output": (
        nothing,
        ["embed", "m.onnx", "missing.wav", "--out", "new/folder/e.npz"],
        "no such file",
    ),
    "a link that leads nowhere": (
        lambda: Path("x").symlink_to("nowhere"),
        ["embed", "m.onnx", "a.wav", "--out", "x"],
        "--overwrite",
    ),
    "a pipe as output": (
        lambda: os.mkfifo("x"),
        ["embed", "m.onnx", "a.wav", "--out", "x", "--overwrite"],
        "device or a pipe",
    ),
    "a folder that is no report": (
        lambda: (Path("kept").mkdir(), Path("kept/x").touch()),
        [*EVALUATE, "m.onnx", "--out", "kept", "--overwrite"],
        "holds no results.json",
    ),
    "a folder that is no demo": (
        lambda: (Path("kept").mkdir(), Path("kept/x").touch()),
        ["demo", "--offline", "--corpus", "voices", "--out", "kept", "--overwrite"],
        "holds no demo",
    ),
    "the teacher as output": (nothing, [*DISTIL, "run", "--out", "./run/", "--overwrite"], "holds the teacher"),
    "the corpus as output": (nothing, [*TRAIN[:-1], "corpus", "--overwrite"], "holds the corpus"),
    "another recipe's run": (nothing, [*TRAIN[:-1], "run", "--resume", "--seed", "9"], "begun with another recipe"),
    "other fields than the run's": (
        nothing,
        [*TRAIN[:-1], "run", "--resume", "--training.epochs", "9", "--loss.name", "softmax"],
        "there, 'corpus' given, and 9 more), so it cannot be resumed",
    ),
    "to go on and to replace": (
        nothing,
        [*TRAIN[:-1], "run", "--resume", "--overwrite"],
        "--resume and --overwrite given; expected one of the two",
    ),
    "no run to resume": (
        lambda: (Path("kept").mkdir(), Path("kept/x").touch()),
        [*TRAIN[:-1], "kept", "--resume"],
        "is no run folder",
    ),
    "an empty summary": (
        text("run/summary.json", "{}"),
        ["train", "r.yaml", "--out", "run", "--resume"],
        "lacks best_dev_eer",
    ),
    "another file for a checkpoint": (
        lambda: (Path("run/summary.json").unlink(), shutil.copy("run/model.safetensors", "run/checkpoint.safetensors")),
        ["train", "r.yaml", "--out", "run", "--resume"],
        "is no checkpoint of this run",
    ),
    # arguments
    "an empty recording": (nothing, ["verify", "m.onnx", "a.wav", ""], "second: '' given; expected a path"),
    "an empty model": (nothing, ["verify", "", "a.wav", "a.wav"], "model: '' given; expected a path"),
    "an empty list item": (nothing, ["embed", "m.onnx", ""], "recordings: '' given; expected a path"),
    "an empty operating point": (
        nothing,
        ["verify", "m.onnx", "a.wav", "a.wav", "--operating_point", ""],
        "unknown operating point ''",
    ),
    "an empty number": (
        nothing,
        ["verify", "m.onnx", "a.wav", "a.wav", "--threshold", ""],
        "threshold: expected float; got",
    ),
    "too many threads": (nothing, ["verify", "m.onnx", "a.wav", "a.wav", "--threads", "99999999"], "threads: 99999999"),
    "a name that is not text": (
        nothing,
        ["verify", "m.onnx", "a.wav", os.fsdecode(b"\xff.wav")],
        "'\\udcff.wav': no such file",
    ),
    "a run folder whose name is not text": (nothing, [*TRAIN[:-1], os.fsdecode(b"\xff")], "is not UTF-8"),
    "a negative seed": (nothing, [*EVALUATE, "m.onnx", "--seed", "-1"], "seed -1 given"),
    "fewer than no workers": (nothing, [*EVALUATE, "m.onnx", "--workers", "-1"], "workers -1 given"),
    "two models alike": (nothing, [*EVALUATE, "m.onnx", "m.onnx"], "given twice"),
    "no model": (nothing, ["evaluate", "corpus"], "no model given"),
}


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every path below `folder`; what regular files hold."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in sorted(folder.rglob("*"))
    }


def fails(capfd: pytest.CaptureFixture[str], folder: Path, argv: list[str], printed: bool = False) -> str:
    """The one line of a command that must fail and leave `folder` as it was; `printed`: it has results to tell."""
    before = contents(folder)
    capfd.readouterr()
    code = main(argv)
    out, err = capfd.readouterr()
    progress = err[: err.rfind("parvox: error")]
    if argv[0] == "train":  # it says what it is about to do
        assert all(line.startswith("      ") for line in progress.splitlines())
    elif argv[0] != "demo":
        assert progress == ""
    assert err.removeprefix(progress).startswith("parvox: error: ")
    assert err.removeprefix(progress).count("\n") == 1
    assert (code, bool(out)) == (2, printed)
    assert contents(folder).keys() == before.keys()
    assert contents(folder) == before
    return err


@pytest.mark.parametrize("case", CASES)
def test_one_line_code_2_and_nothing_touched(
    case: str, here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, argv, words = CASES[case]
    spoil()
    assert words in fails(capfd, here, argv)


@pytest.mark.parametrize(
    "argv",
    [
        [*PREPARE, "out"],
        [*TRAIN],
        ["export", "run", "x.onnx"],
        ["embed", "m.onnx", "a.wav"],
        [*EVALUATE, "m.onnx", "--out", "out"],
    ],
    ids=lambda argv: argv[0],
)
def test_a_full_disk(
    argv: list[str], here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    if argv[0] in ("prepare", "evaluate"):  # folders of many files are not flushed one by one
        monkeypatch.setattr(Path, "chmod", lambda path, mode: full(path))
    assert "No space left" in fails(capfd, here, argv, printed=argv[0] == "evaluate")  # whose figures are not lost


@pytest.mark.parametrize("argv", [[*PREPARE, "out"], TRAIN, ["export", "run", "x.onnx"]], ids=lambda argv: argv[0])
def test_an_interruption_leaves_nothing(
    argv: list[str], here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    monkeypatch.setattr(Path, "chmod", interrupt)
    before = contents(here)
    assert main(argv) == 130
    assert capfd.readouterr().err == "parvox: interrupted\n"
    assert contents(here) == before
