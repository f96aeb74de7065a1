"""Teachers whose embeddings are kept: the same student, without asking twice."""

import re
import shutil
from unittest.mock import ANY

import pytest
import torch
from onnx_models import features_model

from parvox.errors import ModelFileError, OutputError, RecipeError
from parvox.training.recipe import load_recipe
from parvox.training.teacher_settings import OnnxSettings, TeacherOptions
from parvox.training.teachers import Inputs, RunTeacher, load_teachers
from parvox.training.trainer import train

CPU = torch.device("cpu")


@pytest.fixture
def teacher(tiny_recipe, tmp_path):
    return train(load_recipe(tiny_recipe, ["--training.epochs", "1"]), tmp_path / "teacher").folder


@pytest.fixture
def fit(tiny_recipe, teacher, tmp_path):
    def run(name, *options, method="label", cache="said", **how):
        given = ["--distillation.teacher", str(teacher), f"--distillation.{method}.weight", "1"]
        given += ["--distillation.cache", str(tmp_path / cache)] if cache else []
        return train(load_recipe(tiny_recipe, [*given, *options]), tmp_path / name, **how)

    return run


@pytest.fixture
def unasked(monkeypatch):
    """From then on teachers have nothing to say."""

    def silence():
        def view(self, inputs):
            raise AssertionError("the teacher was asked")

        monkeypatch.setattr(RunTeacher, "view", view)

    return silence


def weights(run):
    return (run.folder / "model.safetensors").read_bytes()


def files(folder):
    return sorted(folder.glob("*/*.safetensors"))


def test_students_are_the_same_and_the_second_asks_nobody(fit, tmp_path, unasked):
    plain = fit("plain", "--augmentation.random_erasing_probability", "0.5", cache="")
    kept = fit("kept", "--augmentation.random_erasing_probability", "0.5")
    assert weights(kept) == weights(plain)
    said = files(tmp_path / "said")
    assert len(said) == plain.summary["steps"]
    unasked()
    again = fit("again", "--augmentation.random_erasing_probability", "0.5")
    assert weights(again) == weights(plain)
    fit("other", "--augmentation.random_erasing_probability", "0.5", method="embedding")
    assert files(tmp_path / "said") == said


def test_other_items_another_teacher_or_arithmetic_are_not_mixed_up(fit, tiny_recipe, teacher, tmp_path, unasked):
    fit("first")
    said = len(files(tmp_path / "said"))
    fit("seed", "--seed", "6")
    assert len(files(tmp_path / "said")) == 2 * said
    fit("bf16", "--training.precision", "bf16")
    assert len(files(tmp_path / "said")) == 3 * said
    train(load_recipe(tiny_recipe, ["--seed", "9", "--training.epochs", "1"]), tmp_path / "teacher9")
    fit("teacher9-student", "--distillation.teacher", str(tmp_path / "teacher9"))
    assert len(files(tmp_path / "said")) == 4 * said
    unasked()
    fit("team", "--distillation.teacher", f"[{teacher}, {tmp_path / 'teacher9'}]")  # both have said it before


@pytest.mark.parametrize("cache", ["said", "elsewhere", ""])
def test_a_stopped_student_resumes_bit_for_bit_wherever_embeddings_are_kept(fit, tmp_path, interrupted, cache):
    whole = fit("whole", cache="other")
    interrupted(lambda: fit("stopped"))
    assert weights(fit("stopped", resume=True, cache=cache)) == weights(whole)
    assert fit("stopped", resume=True, cache="").summary == whole.summary | {
        "seconds": ANY,
        "utterances_per_s": ANY,
    }  # a finished run is that run


@pytest.mark.parametrize("how", ["cut", "shape", "nan"])
def test_damaged_embeddings_are_one_line(fit, teacher, tmp_path, how):
    fit("first")
    said = files(tmp_path / "said")
    for path in said:
        if how == "cut":
            path.write_bytes(path.read_bytes()[:40])
        else:
            from safetensors.torch import load_file, save_file

            kept = load_file(path)["embedding"]
            save_file({"embedding": kept[:, 1:].contiguous() if how == "shape" else kept * torch.nan}, path)
    with pytest.raises(ModelFileError, match=r"is damaged \(.*\); delete it, and the teacher is asked anew"):
        fit("second")


def test_a_folder_that_cannot_be_written_is_one_line(fit, tmp_path):
    (tmp_path / "said").write_text("a file")
    with pytest.raises(OutputError, match=re.escape(str(tmp_path / "said"))):
        fit("first")


def test_nothing_is_kept_among_other_files(fit, teacher, prepared_tiny):
    for cache, what in ((teacher, "a run"), (prepared_tiny, "a prepared corpus")):
        with pytest.raises(OutputError, match=f"is {what}; embeddings would lie among its files"):
            fit("first", cache=cache)
        maps = ["--distillation.integrated.weight", "1", "--distillation.integrated.cache", str(cache)]
        with pytest.raises(OutputError, match=f"integrated.cache: .* is {what}; maps would lie among its files"):
            fit("first", *maps, cache="")


def test_a_folder_that_cannot_be_asked_for_is_one_line(fit):
    with pytest.raises(OutputError, match="cannot write .*; choose a folder that is writable"):
        fit("first", cache="n" * 300)


def test_what_lies_there_is_found_by_what_is_heard(teacher, tmp_path):
    kept = load_teachers(str(teacher), None, CPU, None, str(tmp_path / "said"))
    waveforms = 0.1 * torch.randn(3, 16000, generator=torch.Generator().manual_seed(0))
    features, _ = kept._teacher.model.extract_features(waveforms)
    first = kept.view(Inputs(waveforms, features, torch.tensor([0, 1, 2])))
    again = kept.view(Inputs(waveforms.clone(), features.clone(), torch.tensor([0, 1, 2])))
    assert torch.equal(first.embedding, again.embedding)
    assert torch.equal(first.margin_logits, again.margin_logits)
    kept.view(Inputs(waveforms, features, torch.tensor([2, 1, 0])))  # labels are no part of it
    assert len(files(tmp_path / "said")) == 1
    kept.view(Inputs(waveforms * 1.0001, features))
    kept.view(Inputs(waveforms, features, teacher_features=features + 1e-3))
    assert len(files(tmp_path / "said")) == 3


def test_a_run_whose_front_end_was_changed_by_hand_is_another_teacher(teacher, tmp_path):
    waveforms = 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    found = []
    for window in ("hamming", "povey"):
        path = teacher / "recipe.yaml"
        path.write_text(re.sub("window: .*", f"window: {window}", path.read_text()))
        for cache in (str(tmp_path / "said"), ""):
            taught = load_teachers(str(teacher), None, CPU, None, cache)
            found.append(taught.view(Inputs(waveforms, torch.zeros(2, 98, 80))).embedding)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[2], found[3])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("first", "second"),
    [({}, {"low_hz": 500.0}), ({}, {"high_hz": 3000.0}), ({"scale": 32768.0}, {"scale": 32768.01})],
)
def test_an_onnx_model_fed_otherwise_is_another_teacher(tmp_path, first, second):
    path = features_model(tmp_path / "m.onnx")
    waveforms = 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    for settings in (first, second):
        options = TeacherOptions(onnx=OnnxSettings(convention="wespeaker", **settings))
        load_teachers(str(path), None, CPU, options, str(tmp_path / "said")).view(Inputs(waveforms, waveforms))
    assert len(files(tmp_path / "said")) == 2
    load_teachers(str(path), None, CPU, options, str(tmp_path / "said")).view(Inputs(waveforms, waveforms + 1))
    assert len(files(tmp_path / "said")) == 2  # it never hears the student's features


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--distillation.attention_maps.weight", "1"], "given with attention_maps, which looks inside the teacher"),
        (["--distillation.teacher", "self"], "given for a teacher that changes while the student is trained"),
        (["--distillation.teacher", "", "--distillation.alongside", "t.yaml"], "given for a teacher that changes"),
    ],
)
def test_what_does_not_go_together(fit, tmp_path, options, said):
    with pytest.raises(RecipeError, match=said):
        fit("refused", *options)
    assert not (tmp_path / "refused").exists()
    assert not (tmp_path / "said").exists()


def test_the_run_folder_is_not_written_over_it(fit, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(OutputError, match="holds the teacher's embeddings"):
        fit("run", cache="run/said", overwrite=True)
    shutil.rmtree(tmp_path / "run")
