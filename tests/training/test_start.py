"""Training that starts from an earlier run, as large-margin fine-tuning does."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from parvox.cli.main import main
from parvox.errors import ParvoxError
from parvox.training.recipe import load_recipe
from parvox.training.run import load_run
from parvox.training.trainer import Trainer, train

LARGE_MARGIN = Path(__file__).parents[2] / "recipes" / "voxceleb" / "large_margin.yaml"
FAST = ("--data.batch_size", "8", "--data.crop_s", "0.8", "--training.epochs", "1")


@pytest.fixture(scope="module")
def first(tmp_path_factory, prepared_tiny):
    """A finished run with sub-centres and the inter-topK penalty. Do not write into it."""
    folder = tmp_path_factory.mktemp("first")
    recipe = folder / "first.yaml"
    recipe.write_text(
        f"corpus: {prepared_tiny}\n"
        "model: {name: xvector, channels: [16, 16, 16, 16, 24], embedding_dim: 12}\n"
        "loss: {name: aam_softmax, scale: 30, sub_centres: 2, top_k: 2}\n"
        "data: {crop_s: 0.5, batch_size: 8, workers: 0}\n"
        "training: {epochs: 1, accelerator: cpu, precision: fp32}\n"
    )
    return train(load_recipe(recipe), folder / "run")


def fine_tuning(first, *overrides):
    return load_recipe(LARGE_MARGIN, ["--init", str(first.folder), *FAST, *overrides])


def test_what_the_second_recipe_leaves_out_is_as_in_the_first(first):
    recipe = fine_tuning(first)
    assert recipe.model == first.recipe.model
    assert recipe.corpus == first.recipe.corpus
    assert (recipe.loss.scale, recipe.loss.sub_centres) == (30, 2)
    assert (recipe.loss.margin_rad, recipe.loss.top_k, recipe.loss.margin_end) == (0.5, 0, 0)
    assert recipe.training.accelerator == "cpu"
    assert recipe.training.learning_rate < first.recipe.training.learning_rate


def test_training_begins_with_the_weights_of_the_run_at_the_full_margin(first):
    trainer = Trainer(fine_tuning(first))
    for ours, theirs in ((trainer.model, first.model), (trainer.module.classifier, first.classifier)):
        expected = theirs.state_dict()
        found = ours.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    trainer.module.classifier.set_progress(0.0)
    assert trainer.module.classifier.margin == 0.5
    assert trainer.module.classifier.penalty == 0
    first.classifier.set_progress(1.0)
    assert first.classifier.penalty > 0


def test_the_command_runs_and_its_run_stands_without_the_first(first, tmp_path, capsys):
    start = shutil.copytree(first.folder, tmp_path / "start")
    out = tmp_path / "tuned"
    assert main(["train", str(LARGE_MARGIN), "--init", str(start), *FAST, "--out", str(out)]) == 0
    shutil.rmtree(start)
    tuned = load_run(out)
    assert tuned.recipe.init == str(start)
    assert tuned.recipe.model == first.recipe.model
    moved = [
        (tuned.model.state_dict()[name] - value).abs().max() / value.abs().max().clamp(min=1e-9)
        for name, value in first.model.named_parameters()
    ]
    assert 0 < max(moved) < 0.2  # a low learning rate


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["--init", "nowhere"], "init: nowhere is not there"),
        (["--model.channels", "[16, 16, 16, 16, 32]"], "model.channels: [16, 16, 16, 16, 32] given"),
        (["--model.features.bins", "40"], "model.features.bins: 40 given"),
        (["--loss.sub_centres", "3"], "loss.sub_centres: 3 given"),
        (["--data.speed_perturbation", "[0.9]"], "data.speed_perturbation: [0.9] given"),
        (["--corpus", "OTHER"], "knows 6 speakers and the corpus has 6, 0 of them in common"),
    ],
)
def test_what_does_not_fit_the_run_is_one_line(first, prepared_tiny, tmp_path, capsys, overrides, says):
    if "OTHER" in overrides:
        overrides = ["--init", str(renamed(first.folder, tmp_path / "renamed"))]
    options = ["--init", str(first.folder), *FAST, *overrides, "--out", str(tmp_path / "out")]
    assert main(["train", str(LARGE_MARGIN), *options]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def renamed(run: Path, to: Path) -> Path:
    """A copy of a run of as many other speakers."""
    shutil.copytree(run, to)
    known = json.loads((to / "speakers.json").read_text())
    (to / "speakers.json").write_text(json.dumps({**known, "speakers": [f"x{name}" for name in known["speakers"]]}))
    return to


def test_another_loss_is_refused_where_its_classifier_differs(first, tmp_path):
    path = tmp_path / "other.yaml"
    path.write_text(f"init: {first.folder}\nloss: {{name: am_softmax, sub_centres: 2}}\n")
    assert Trainer(load_recipe(path)).module.classifier.settings.margin == 0.2
    path.write_text(f"init: {first.folder}\nloss: {{name: softmax}}\n")
    with pytest.raises(ParvoxError, match=r"loss\.name: softmax given"):
        Trainer(load_recipe(path))


def test_a_run_is_not_replaced_by_what_starts_from_it(first, capsys):
    options = ["--init", str(first.folder), *FAST, "--out", str(first.folder), "--overwrite"]
    assert main(["train", str(LARGE_MARGIN), *options]) == 2
    assert "holds the run to start from" in capsys.readouterr().err
    assert (first.folder / "summary.json").is_file()


def test_a_recipe_with_a_model_section_stands_on_its_own(first, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(f"init: {first.folder}\ncorpus: other\nmodel: {{name: xvector}}\n")
    recipe = load_recipe(path)
    assert recipe.model.embedding_dim == 512
    assert recipe.loss.sub_centres == 1
