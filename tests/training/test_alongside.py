"""A teacher trained alongside: it learns from labels alone, is resumed with the student, and left as a run."""

import csv
import dataclasses

import pytest
import torch
from test_module import LABELS, inputs, make

from parvox.data.random_erasing import erase
from parvox.distillation import View
from parvox.distillation.embedding import EmbeddingSettings
from parvox.distillation.label import LabelSettings
from parvox.errors import OutputError, RecipeError
from parvox.training.module import TrainedModule
from parvox.training.recipe import build_recipe, load_recipe
from parvox.training.recipe_parsing import parse_recipe
from parvox.training.run import load_run
from parvox.training.teachers import Inputs
from parvox.training.teachers.alongside import AlongsideTeacher, stopped
from parvox.training.trainer import Trainer, train

TEACHER = """
model:
  name: xvector
  channels: [24, 24, 24, 24, 32]
  embedding_dim: 12
  features:
    bins: 40
loss:
  name: am_softmax
  margin: 0.1
"""


@pytest.fixture
def recipe(tiny_recipe, tmp_path):
    """A recipe with a teacher alongside, of other features and another loss."""
    teacher = tmp_path / "teacher.yaml"
    teacher.write_text(TEACHER)
    given = ["--distillation.alongside", str(teacher), "--distillation.embedding.weight", "10"]
    return load_recipe(tiny_recipe, [*given, "--distillation.label.weight", "1", "--training.epochs", "2"])


def teacher_for(student):
    """A teacher of the same kind."""
    recipe = build_recipe(parse_recipe(None, ["--corpus", "none"], prog="test"))
    torch.manual_seed(11)
    return AlongsideTeacher(dataclasses.replace(recipe, model=student.settings), student, 4)


def module_of(method_weight):
    """A student and a teacher alongside."""
    student, classifier = make("class_distillation_token")
    methods = {"label": LabelSettings(weight=method_weight), "embedding": EmbeddingSettings(weight=method_weight)}
    return TrainedModule(student, classifier, methods, alongside=teacher_for(student))


def test_the_teacher_gets_no_gradient_from_distillation():
    gradients = {}
    for weight in (0.0, 5.0):
        module = module_of(weight)
        total, terms = module(inputs())
        assert set(terms) == {"speaker", "teacher_speaker", "label_kl", "embedding_cosine"}
        assert min(terms.values()) > 0
        expected = (
            terms["speaker"] + terms["teacher_speaker"] + weight * (terms["label_kl"] + terms["embedding_cosine"])
        )
        torch.testing.assert_close(total, expected)
        total.backward()
        gradients[weight] = {name: parameter.grad for name, parameter in module.named_parameters()}
    teachers = [name for name in gradients[0.0] if name.startswith("alongside.")]
    assert sum(gradients[0.0][name].abs().sum() > 0 for name in teachers) > 20
    assert all(torch.equal(gradients[0.0][name], gradients[5.0][name]) for name in teachers)
    assert not torch.equal(gradients[0.0]["classifier.weight"], gradients[5.0]["classifier.weight"])


def test_its_loss_is_that_of_training_it_alone():
    module = module_of(1.0)
    teacher = module.alongside
    alone, terms = TrainedModule(teacher.model, teacher.classifier)(inputs())
    assert terms["speaker"] == module(inputs())[1]["teacher_speaker"]
    alone.backward()
    expected = {name: parameter.grad.clone() for name, parameter in teacher.named_parameters()}
    module.zero_grad()
    module(inputs())[0].backward()
    for name, parameter in teacher.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_both_are_counted_and_follow_the_schedule():
    module = module_of(1.0)
    teacher = module.alongside
    assert module.added_parameters() == sum(parameter.numel() for parameter in teacher.parameters())
    module.set_progress(1.0)
    assert module.classifier.margin == teacher.classifier.margin == 0.2


def test_each_hears_its_own_features():
    module = module_of(1.0)
    given, others = inputs(seed=5), inputs(seed=6)
    both = Inputs(given.waveforms, given.features, LABELS, teacher_features=others.features)
    assert module(both)[1]["teacher_speaker"] == module(others)[1]["teacher_speaker"]
    assert module(both)[1]["speaker"] == module(given)[1]["speaker"]


@pytest.mark.parametrize("hears", ["same", "own", "plain"])
def test_what_a_recipe_has_each_hear(recipe, hears, monkeypatch):
    options = {"random_erasing_probability": 1.0, "random_erasing_fill": "mean", "random_erasing_teacher": hears}
    augmentation = dataclasses.replace(recipe.augmentation, **options)
    trainer = Trainer(dataclasses.replace(recipe, augmentation=augmentation))
    batch = next(trainer.batches.epoch(0))
    seen = []
    monkeypatch.setattr(trainer, "wrapped", lambda inputs, view, fraction: seen.append(inputs) or (0, {}))
    trainer._loss(batch, 0.0)
    features, _ = trainer.model.extract_features(batch.waveforms)
    assert torch.equal(seen[0].features, erase(features, None, batch.erasing, augmentation.random_erasing))
    heard = {"same": seen[0].features, "plain": features, "own": None}[hears]
    if heard is None:
        heard = erase(features, None, batch.teacher_erasing, augmentation.random_erasing)
        assert (heard != seen[0].features).any()
    assert torch.equal(seen[0].teacher_features, heard)
    teacher = trainer.module.alongside.model  # of another front end: the same part of its own features is erased
    own, _ = teacher.extract_features(batch.waveforms)
    changed = (seen[0].own_features(teacher) != own).float().mean((1, 2))
    if hears == "plain":
        assert changed.max() == 0
    else:
        torch.testing.assert_close(changed, (heard != features).float().mean((1, 2)), atol=0.05, rtol=0)


def test_looking_again_moves_nothing_and_tells_gradients_of_features():
    model, classifier = make("class_distillation_token")
    model.train()
    given = inputs()
    seen = stopped(View.of(model, classifier, given.features, LABELS), model)
    assert not any(value.requires_grad for value in (seen.embedding, seen.free_logits, seen.margin_logits))
    assert not seen.encoded.frames.requires_grad
    assert not seen.encoded.tokens.requires_grad
    before = {name: value.clone() for name, value in model.state_dict().items()}
    features = given.features.clone().requires_grad_()
    again = seen.again(features)
    torch.testing.assert_close(again.margin_logits, seen.margin_logits)
    again.free_logits.sum().backward()
    assert features.grad.abs().max() > 0
    assert all(parameter.grad is None for part in (model, classifier) for parameter in part.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_whole_run_leaves_two(recipe, tmp_path):
    student = train(recipe, tmp_path / "student")
    teacher = load_run(tmp_path / "student" / "teacher")
    assert teacher.recipe.distillation is None
    assert teacher.recipe.training == student.recipe.training
    assert teacher.speakers == student.speakers
    assert (student.recipe.model.embedding_dim, teacher.recipe.model.embedding_dim) == (16, 12)
    trained = teacher.summary["parameters"] + teacher.classifier.weight.numel()
    assert student.summary["parameters_added_for_training"] == trained + 16 * 12
    assert student.summary["parameters"] == sum(parameter.numel() for parameter in student.model.parameters())
    rows = list(csv.DictReader((student.folder / "metrics.csv").open()))
    assert float(rows[-1]["loss/teacher_speaker"]) < float(rows[0]["loss/teacher_speaker"])
    assert float(rows[-1]["loss/embedding_cosine"]) < float(rows[0]["loss/embedding_cosine"])
    assert 0 <= teacher.summary["best_dev_eer"] <= 1


def test_it_resumes_bit_for_bit_and_only_with_the_same_teacher(recipe, tmp_path, interrupted):
    erased = ("random_erasing_probability", 0.5), ("random_erasing_teacher", "own")
    recipe = dataclasses.replace(recipe, augmentation=dataclasses.replace(recipe.augmentation, **dict(erased)))
    whole = train(recipe, tmp_path / "whole")
    interrupted(lambda: train(recipe, tmp_path / "stopped"))
    path = tmp_path / "teacher.yaml"
    path.write_text(TEACHER.replace("margin: 0.1", "margin: 0.2"))
    with pytest.raises(OutputError, match=r"another recipe .*\(loss.margin: 0.1 there, 0.2 given\)"):
        train(recipe, tmp_path / "stopped", resume=True)
    path.write_text(TEACHER)
    resumed = train(recipe, tmp_path / "stopped", resume=True)
    for name in ("model.safetensors", "classifier.safetensors", "teacher/model.safetensors"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_run_stopped_before_its_teacher_is_written_is_not_finished(recipe, tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(AlongsideTeacher, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "summary.json").exists()
    monkeypatch.undo()
    train(recipe, tmp_path / "stopped", resume=True)
    assert load_run(tmp_path / "stopped" / "teacher").summary["parameters_added_for_training"] == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TEACHER + "distillation:\n  teacher: runs/x\n  label: {}\n", "has distillation"),
        (TEACHER + "init: runs/x\n", "has init"),
        (TEACHER.replace("bins: 40", "sample_rate_hz: 8000"), "at 8000 Hz, the student at 16000 Hz"),
        ("model: [", "not valid YAML"),
    ],
)
def test_what_cannot_be_trained_alongside_is_named(recipe, tmp_path, text, says):
    (tmp_path / "teacher.yaml").write_text(text)
    with pytest.raises(RecipeError, match=says):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_teacher_not_two(tiny_recipe):
    two = ["--distillation.alongside", "a.yaml", "--distillation.teacher", "b", "--distillation.label.weight", "1"]
    with pytest.raises(RecipeError, match="expected one of the two"):
        load_recipe(tiny_recipe, two)
