"""Students that learn from recordings of nobody in particular."""

import csv
import json

import pytest
from onnx_models import DIM, features_model

from parvox.cli.main import main
from parvox.data import DataSettings
from parvox.losses import LOSSES
from parvox.training.fit_head import HeadRecipe, HeadSettings, fit_head
from parvox.training.recipe import load_recipe
from parvox.training.run import load_run
from parvox.training.teacher_settings import OnnxSettings, TeacherOptions
from parvox.training.teachers import load_teacher

EMBEDDING = ["--distillation.embedding.weight", "10"]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, make_wav):
    root = tmp_path_factory.mktemp("calls")
    for number in range(20):
        make_wav(root / f"call{number}.wav", 1.0, kind="voice", seed=number)
    return root


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = features_model(tmp_path_factory.mktemp("teacher") / "m.onnx")
    (path.parent / "m.onnx.yaml").write_text("convention: wespeaker\n")
    return path


@pytest.fixture(scope="module")
def head(teacher, prepared_tiny):
    """The same teacher, with a head for the six speakers of another corpus."""
    recipe = HeadRecipe(
        teacher=str(teacher),
        corpus=str(prepared_tiny),
        seed=1,
        loss=LOSSES["aam_softmax"].settings(),
        head=HeadSettings(passes=1, epochs=2),
        data=DataSettings(batch_size=8),
        options=TeacherOptions(onnx=OnnxSettings()),
    )
    fit_head(recipe, teacher.parent / "head")
    return teacher.parent / "head"


@pytest.fixture
def recipe_file(tiny_recipe):
    """The tiny recipe without its corpus."""
    lines = tiny_recipe.read_text().splitlines()
    tiny_recipe.write_text("\n".join(line for line in lines if not line.startswith("corpus:")))
    return tiny_recipe


def distil(recipe_file, teacher, recordings, out, *options):
    given = ["--distillation.teacher", str(teacher), "--unlabelled", str(recordings), "--out", str(out)]
    return main(["distill", str(recipe_file), *given, *options])


def test_embeddings_are_learned_without_knowing_who_speaks(recipe_file, teacher, recordings, tmp_path, capsys):
    out = tmp_path / "my run"
    assert distil(recipe_file, teacher, recordings, out, *EMBEDDING, "--training.epochs", "5") == 0
    said = capsys.readouterr()
    assert "no dev trials" in said.out
    assert said.err.splitlines()[-1] == f"next: parvox export '{out}' '{out}.onnx'"  # as a shell takes it
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert float(rows[-1]["loss/embedding_cosine"]) < 0.7 * float(rows[0]["loss/embedding_cosine"])
    assert "loss/speaker" not in rows[0]
    run = load_run(out)
    assert (run.classifier, run.speakers, run.summary["classes"]) == (None, [], 0)
    assert not (out / "classifier.safetensors").exists()
    assert run.summary["parameters_added_for_training"] == 16 * DIM
    assert load_teacher(str(out), None, next(run.model.parameters()).device).side.classes == 0
    before = (out / "model.safetensors").read_bytes()
    again = [*EMBEDDING, "--training.epochs", "5", "--overwrite"]
    assert distil(recipe_file, teacher, recordings, out, *again) == 0
    assert (out / "model.safetensors").read_bytes() == before
    assert distil(recipe_file, teacher, recordings, out, *again[:-1], "--resume") == 0


def test_posteriors_over_the_teachers_speakers_are_learned_from_others(recipe_file, head, recordings, tmp_path):
    out = tmp_path / "run"
    assert distil(recipe_file, head, recordings, out, "--distillation.label.weight", "1") == 0
    run = load_run(out)
    assert run.classifier.classes == 6
    assert run.speakers == load_teacher(str(head), None, next(run.model.parameters()).device).speakers
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert float(rows[-1]["loss/label_kl"]) < float(rows[0]["loss/label_kl"])


@pytest.mark.parametrize("method", ["non_target", "dkd"])
def test_a_method_that_needs_labels_is_refused_before_anything_is_decoded(
    recipe_file, head, recordings, tmp_path, capsys, monkeypatch, method
):
    monkeypatch.setattr("parvox.training.unlabelled.prepare", lambda *_, **__: pytest.fail("data was read"))
    assert distil(recipe_file, head, recordings, tmp_path / "run", f"--distillation.{method}.weight", "1") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"distillation.{method}: speech without speaker labels given" in said
    assert not list(tmp_path.glob("run*"))


@pytest.mark.parametrize(
    ("option", "value"),
    [("training.phrase_weight", "1.0"), ("data.classes", "speaker_phrase"), ("data.speaker_balanced", "true")],
)
def test_settings_that_need_labels_are_refused_before_anything_is_decoded(
    recipe_file, teacher, recordings, tmp_path, capsys, monkeypatch, option, value
):
    monkeypatch.setattr("parvox.training.unlabelled.prepare", lambda *_, **__: pytest.fail("data was read"))
    assert distil(recipe_file, teacher, recordings, tmp_path / "run", *EMBEDDING, f"--{option}", value) == 2
    assert f"; set --{option} " in capsys.readouterr().err
    assert not list(tmp_path.glob("run*"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--distillation.label.weight", "1"], "has no speaker classifier, and this method needs one"),
        ([*EMBEDDING, "--corpus", "PREPARED"], "expected one of the two"),
        ([*EMBEDDING, "--distillation.teacher", "self"], "teacher self given with speech without speaker labels"),
        ([*EMBEDDING, "--model.features.sample_rate_hz", "8000"], "listens at 16000 Hz"),
        ([*EMBEDDING, "--unlabelled", "nowhere"], "no such folder"),
        ([*EMBEDDING, "--training.patience", "2"], "patience: 2 given, but"),
    ],
)
def test_what_cannot_be_learned_is_refused(recipe_file, teacher, recordings, tmp_path, capsys, options, says):
    assert distil(recipe_file, teacher, recordings, tmp_path / "run", *options) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_another_corpus_of_that_name_is_not_replaced(recipe_file, teacher, recordings, tmp_path, capsys, prepared_tiny):
    (tmp_path / "run-corpus").mkdir()
    for path in prepared_tiny.iterdir():
        (tmp_path / "run-corpus" / path.name).write_bytes(path.read_bytes())
    assert distil(recipe_file, teacher, recordings, tmp_path / "run", *EMBEDDING) == 2
    assert "is a corpus of kind csv, which is not replaced" in capsys.readouterr().err
    assert json.loads((tmp_path / "run-corpus" / "corpus.json").read_text())["importer"] == "csv"


def test_recordings_of_an_earlier_run_are_neither_lost_nor_taken_for_others(
    recipe_file, teacher, recordings, tmp_path, capsys, make_wav
):
    out, corpus = tmp_path / "run", tmp_path / "run-corpus" / "corpus.json"
    assert distil(recipe_file, teacher, recordings, out, *EMBEDDING, "--training.epochs", "1") == 0
    before = corpus.read_bytes()
    (out / "summary.json").rename(tmp_path / "summary.json")  # as if it were unfinished
    for number in range(20):
        make_wav(tmp_path / "others" / f"{number}.wav", 1.0, kind="voice", seed=90 + number)
    for name, options in (("run", ["--resume"]), ("gone", [])):
        out.rename(tmp_path / name) if name != "run" else None
        assert distil(recipe_file, teacher, tmp_path / "others", out, *EMBEDDING, *options) == 2
        assert "was prepared from other recordings than" in capsys.readouterr().err
        assert corpus.read_bytes() == before
    assert distil(recipe_file, teacher, tmp_path / "others", out, *EMBEDDING, "--overwrite") == 0
    assert corpus.read_bytes() != before


def test_training_alone_needs_speakers(recipe_file, recordings, tmp_path, capsys):
    assert main(["prepare", "unlabelled", str(recordings), str(tmp_path / "corpus")]) == 0
    assert main(["train", str(recipe_file), "--corpus", str(tmp_path / "corpus"), "--out", str(tmp_path / "run")]) == 2
    assert "names no speakers, and without a teacher there is nothing else to learn" in capsys.readouterr().err


def test_weights_of_an_earlier_run_may_be_taken_up(recipe_file, tiny_recipe, teacher, recordings, tmp_path):
    out = tmp_path / "run"
    assert distil(recipe_file, teacher, recordings, out, *EMBEDDING) == 0
    options = [
        "--init",
        str(out),
        *EMBEDDING,
        "--training.learning_rate",
        "1e-9",
        "--training.final_learning_rate",
        "1e-9",
    ]
    assert distil(recipe_file, teacher, recordings, tmp_path / "next", *options, "--training.epochs", "1") == 0
    first, last = load_run(out), load_run(tmp_path / "next")
    assert last.recipe == load_recipe(tmp_path / "next" / "recipe.yaml")
    name = "head.0.weight"
    weights = (run.model.state_dict()[name] for run in (first, last))
    assert all((one - other).abs().max() < 1e-5 for one, other in [tuple(weights)])
