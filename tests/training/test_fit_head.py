"""Heads for teachers that have none."""

import json
import shutil

import numpy as np
import pytest
import torch
from onnx_models import DIM, features_model

from parvox.cli.main import main
from parvox.corpora.prepared import PreparedCorpus
from parvox.data import DataSettings, iterate_utterances
from parvox.errors import ModelFileError, OutputError, RecipeError, TrainingError
from parvox.evaluation.measures import eer
from parvox.losses import LOSSES
from parvox.training.fit_head import HeadRecipe, HeadSettings, _fit, fit_head
from parvox.training.recipe import load_recipe
from parvox.training.teacher_settings import OnnxSettings, TeacherOptions
from parvox.training.teachers import Inputs, load_teacher
from parvox.training.trainer import train

CPU = torch.device("cpu")


def recipe(teacher="", corpus="", loss="aam_softmax", **parts):
    parts = {"head": HeadSettings(passes=2, epochs=20, batch_size=16), "data": DataSettings(batch_size=8), **parts}
    return HeadRecipe(teacher=str(teacher), corpus=str(corpus), seed=1, loss=LOSSES[loss].settings(), **parts)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, prepared_tiny):
    """A folder with a head, its teacher and its summary."""
    root = tmp_path_factory.mktemp("head")
    teacher = features_model(root / "m.onnx")
    options = TeacherOptions(onnx=OnnxSettings(convention="wespeaker"))
    summary = fit_head(recipe(teacher, prepared_tiny, options=options), root / "head")
    return root / "head", teacher, summary


def loaded(folder):
    return load_teacher(str(folder), None, CPU)


def test_a_teacher_with_a_head_gives_the_logits_of_its_own_embeddings(fitted):
    folder, path, _ = fitted
    teacher = loaded(folder)
    bare = load_teacher(str(path), None, CPU, TeacherOptions(onnx=OnnxSettings(convention="wespeaker")))
    waveforms = 0.1 * torch.randn(3, 16000, generator=torch.Generator().manual_seed(0))
    view = teacher.view(Inputs(waveforms, torch.zeros(3, 98, 80)))
    torch.testing.assert_close(view.embedding, bare.embed(waveforms))
    unit = torch.nn.functional.normalize
    expected = 32 * unit(view.embedding) @ unit(teacher.classifier.weight).T
    torch.testing.assert_close(view.free_logits, expected, rtol=1e-4, atol=1e-4)
    assert (teacher.side.name, teacher.side.classes, teacher.side.embedding_dim) == (str(folder), 6, DIM)
    assert not any(parameter.requires_grad for parameter in teacher.classifier.parameters())
    assert teacher.classifier.margin == pytest.approx(0.2)


def test_the_summary_tells_how_good_teacher_and_head_are(fitted, prepared_tiny):
    folder, _, summary = fitted
    corpus, teacher = PreparedCorpus.load(prepared_tiny), loaded(folder)
    embedding = {}
    for batch in iterate_utterances(corpus.cuts("dev")):
        for waveform, length, name in zip(batch.waveforms, batch.lengths, batch.ids, strict=True):
            embedding[name] = torch.nn.functional.normalize(teacher.embed(waveform[None, :length])[0], dim=0).numpy()
    scores = {True: [], False: []}
    for enrol, test, target in corpus.trials("dev"):
        scores[target].append(embedding[enrol] @ embedding[test])
    assert summary["teacher_dev_eer"] == pytest.approx(eer(np.array(scores[True]), np.array(scores[False])))
    assert summary["classes"] == 6
    assert summary["embeddings"] == 2 * 32  # 36 utterances, 4 full batches a pass
    assert summary["training_accuracy"] > 0.6
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert teacher.speakers == corpus.speakers("train")


def test_label_level_methods_learn_from_a_head(fitted, tiny_recipe, tmp_path):
    options = ["--distillation.teacher", str(fitted[0]), "--distillation.label.weight", "1", "--training.epochs", "1"]
    run = train(load_recipe(tiny_recipe, options), tmp_path / "run")
    assert run.summary["steps"] == 4


@pytest.mark.parametrize("loss", sorted(entry.name for entry in LOSSES))
def test_clusters_are_told_apart_by_every_loss(loss):
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(5, 16, generator=generator)
    labels = torch.arange(200) % 5
    embeddings = centres[labels] + 0.3 * torch.randn(200, 16, generator=generator)
    classifier = LOSSES[loss].settings().build(16, 5)
    assert _fit(classifier, embeddings, labels, recipe(loss=loss)) == 1.0
    others = torch.randn(500, 16, generator=generator)  # no speaker at all: nothing to learn from
    chance = LOSSES[loss].settings().build(16, 5)
    assert _fit(chance, others, torch.arange(500) % 5, recipe(loss=loss)) < 0.6


def test_sub_centres_and_speeds(fitted, prepared_tiny, tmp_path):
    options = TeacherOptions(onnx=OnnxSettings(convention="wespeaker"))
    data = DataSettings(batch_size=8, speed_perturbation=(0.9,))
    made = recipe(fitted[1], prepared_tiny, options=options, data=data)
    loss = LOSSES["am_softmax"].settings(sub_centres=2, top_k=2)
    summary = fit_head(HeadRecipe(**{**vars(made), "loss": loss}), tmp_path / "head")
    assert summary["classes"] == 12
    assert loaded(tmp_path / "head").classifier.weight.shape == (24, DIM)


def test_another_teacher_under_the_same_name_is_refused(fitted, tmp_path):
    folder, path, _ = fitted
    told = (folder / "head.yaml").read_text()
    copy = tmp_path / "head"
    copy.mkdir()
    for name in ("classifier.safetensors", "speakers.json", "summary.json"):
        (copy / name).write_bytes((folder / name).read_bytes())
    other = features_model(tmp_path / "m.onnx", {"note": "another"})
    (copy / "head.yaml").write_text(told.replace(str(path), str(other)))
    with pytest.raises(ModelFileError, match="has changed since the head was fitted"):
        loaded(copy)
    other.unlink()
    with pytest.raises(ModelFileError, match="a head for a teacher that cannot be read: .*m.onnx"):
        loaded(copy)
    for damaged in ("teacher: [", told[: told.index("options:")] + "options: []\n"):
        (copy / "head.yaml").write_text(damaged)
        with pytest.raises(ModelFileError, match=r"head.yaml is damaged"):
            loaded(copy)
    (copy / "head.yaml").write_text(told.replace(str(path), str(copy)))
    with pytest.raises(ModelFileError, match=r"head.yaml is damaged \(its teacher is, in the end, itself\)"):
        loaded(copy)
    (copy / "head.yaml").write_text(told)
    (copy / "speakers.json").write_text('{"speakers": ["spk00"], "classes": -1}')
    with pytest.raises(ModelFileError, match="names no speakers"):
        loaded(copy)


@pytest.mark.parametrize("given", ["./m.onnx", "folder//m.onnx", "m.onnx"])
def test_the_teacher_is_found_from_elsewhere(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipe(given, "c").to_dict()["teacher"] == str(tmp_path / given)
    assert recipe(f"hf:{given}", "c").to_dict()["teacher"] == f"hf:{tmp_path / given}"
    assert recipe("hf:f", "c").to_dict()["teacher"] == f"hf:{tmp_path / 'f'}"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--device", "banana"], "device: 'banana' given; this machine has cpu"),
        (["--device", "meta"], "device: 'meta' given; this machine has cpu"),
        (["--device", "cuda:99"], "device: 'cuda:99' given; this machine has cpu"),
        (["--seed", "9" * 30], "seed: 999"),
        (["--head.learning_rate", ".inf"], "head.learning_rate: inf given"),
        (["--loss.scale", ".inf"], "scale inf given; expected more than 0, at most 10000"),
    ],
)
def test_what_makes_no_head_is_one_line(fitted, prepared_tiny, tmp_path, capfd, options, says):
    words = ["fit-head", str(fitted[1]), "--onnx.convention", "wespeaker", "--corpus", str(prepared_tiny)]
    assert main([*words, "--out", str(tmp_path / "new"), "--data.batch_size", "8", *options]) == 2
    err = capfd.readouterr().err
    assert err.startswith("parvox: error: ")
    assert (says in err, err.count("\n")) == (True, 1)
    assert not any(tmp_path.iterdir())


def test_a_crop_too_short_for_the_teacher_is_refused(tiny_recipe, prepared_tiny, tmp_path):
    train(load_recipe(tiny_recipe, ["--training.epochs", "1"]), tmp_path / "teacher")
    with pytest.raises(TrainingError, match=r"data.crop_s: 0.12 s given; the teacher .* needs 0.165 s or more"):
        fit_head(recipe(tmp_path / "teacher", prepared_tiny, data=DataSettings(crop_s=0.12)), tmp_path / "new")
    student = ["--model.name", "depthwise_tdnn", "--model.channels", "16", "--data.crop_s", "0.12"]
    taught = ["--distillation.teacher", str(tmp_path / "teacher"), "--distillation.embedding.weight", "1"]
    tiny_recipe.write_text(
        tiny_recipe.read_text().replace("name: xvector", "").replace("channels: [32, 32, 32, 32, 48]", "")
    )
    with pytest.raises(TrainingError, match=r"data.crop_s: 0.12 s given; the teacher .* needs 0.165 s or more"):
        train(load_recipe(tiny_recipe, [*student, *taught]), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_done_is_refused(fitted, prepared_tiny, tmp_path):
    folder, path, _ = fitted
    options = TeacherOptions(onnx=OnnxSettings(convention="wespeaker"))
    with pytest.raises(OutputError, match="exists already"):
        fit_head(recipe(path, prepared_tiny, options=options), folder)
    with pytest.raises(OutputError, match="holds the corpus"):
        fit_head(recipe(path, prepared_tiny, options=options), prepared_tiny.parent, overwrite=True)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="holds no head.yaml"):
        fit_head(recipe(path, prepared_tiny, options=options), tmp_path / "precious", overwrite=True)
    with pytest.raises(OutputError, match="holds the teacher"):
        fit_head(recipe(folder, prepared_tiny), folder, overwrite=True)
    with pytest.raises(TrainingError, match="listens at 8000 Hz"):
        rate = TeacherOptions(onnx=OnnxSettings(convention="wespeaker", sample_rate_hz=8000))
        fit_head(recipe(path, prepared_tiny, options=rate), tmp_path / "new")
    with pytest.raises(RecipeError, match=r"head.passes: 0 given"):
        HeadSettings(passes=0)
    with pytest.raises(RecipeError, match=r"head.passes: 5000 given; expected at most 1000"):
        HeadSettings(passes=5000)
    assert not (tmp_path / "new").exists()


def test_a_run_may_not_be_written_over_the_teacher_of_its_teachers_head(fitted, tiny_recipe, tmp_path):
    folder, path, _ = fitted
    shutil.copytree(folder, tmp_path / "elsewhere")
    given = ["--distillation.teacher", str(tmp_path / "elsewhere"), "--distillation.embedding.weight", "1"]
    with pytest.raises(OutputError, match=r"holds the teacher, .*m.onnx; choose another --out"):
        train(load_recipe(tiny_recipe, given), path.parent, overwrite=True)
    assert path.is_file()


def test_a_heads_folder_can_be_looked_at(fitted, capsys):
    folder, path, _ = fitted
    assert main(["info", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "speaker head of parvox fit-head" in said
    assert f"teacher: {path}" in said


def test_the_command(fitted, prepared_tiny, tmp_path, capsys):
    _, path, _ = fitted
    out = tmp_path / "head"
    words = ["fit-head", str(path), "--corpus", str(prepared_tiny), "--out", str(out), "--data.batch_size", "8"]
    assert main(words) == 2
    assert "metadata do not say sample_rate_hz" in capsys.readouterr().err
    assert main([*words, "--onnx.convention", "wespeaker", "--head.passes", "1", "--loss.margin_rad", "0.3"]) == 0
    said = capsys.readouterr()
    assert "6 classes" in said.out
    assert "the teacher's dev EER" in said.out
    assert loaded(out).classifier.margin == pytest.approx(0.3)
    assert main(["fit-head", str(path), "--out", str(out)]) == 2
    assert "corpus: nothing given" in capsys.readouterr().err
