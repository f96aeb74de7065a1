"""Whole runs with integrated inputs: maps on disk or not, the same seed gives the same student, resumed or not."""

import csv

import pytest
import torch

from parvox.errors import OutputError, RecipeError
from parvox.training.recipe import load_recipe
from parvox.training.teachers import Inputs
from parvox.training.trainer import Trainer, train

PAIR = [
    *("--training.epochs", "2", "--data.crop_s", "0.4", "--data.speed_perturbation", "[1.1]"),
    *("--distillation.integrated.steps", "2", "--distillation.integrated.durations_s", "[0.2,0]"),
]


@pytest.fixture
def teacher(tiny_recipe, tmp_path):
    options = ["--training.epochs", "1", "--data.speed_perturbation", "[1.1]"]
    return train(load_recipe(tiny_recipe, options), tmp_path / "teacher").folder


def fit(recipe_path, teacher, out, *options, **given):
    return train(load_recipe(recipe_path, ["--distillation.teacher", str(teacher), *PAIR, *options]), out, **given)


def weights(run):
    return (run.folder / "model.safetensors").read_bytes()


def test_maps_are_kept_and_every_run_gives_the_same_student(tiny_recipe, teacher, tmp_path, capfd, interrupted):
    options = ["--distillation.integrated.cache", str(tmp_path / "maps"), "--distillation.integrated.map", "random"]
    first = fit(tiny_recipe, teacher, tmp_path / "first", *options)
    told = capfd.readouterr().err
    shards = sorted((tmp_path / "maps").rglob("*.safetensors"))
    written = [shard.stat().st_mtime_ns for shard in shards]
    assert len(written) == 2
    assert f"maps of 72 utterances: {sum(shard.stat().st_size for shard in shards) / 1e6:.1f} MB in" in told
    rows = list(csv.DictReader((first.folder / "metrics.csv").open()))
    for name in ("integrated_plain_instance", "integrated_instance", "integrated_class", "integrated_batch"):
        assert float(rows[-1][f"loss/{name}"]) > 0

    interrupted(lambda: fit(tiny_recipe, teacher, tmp_path / "stopped", *options))
    assert weights(fit(tiny_recipe, teacher, tmp_path / "stopped", *options, resume=True)) == weights(first)
    assert [shard.stat().st_mtime_ns for shard in shards] == written


def test_maps_on_disk_are_those_of_the_items_place(tiny_recipe, teacher, tmp_path):
    options = ["--distillation.teacher", str(teacher), *PAIR, "--distillation.integrated.durations_s", "[0]"]
    options += ["--data.crop_s", "0.7", "--distillation.integrated.steps", "6"]
    found = []
    for cache in ([], ["--distillation.integrated.cache", str(tmp_path / "maps")]):
        trainer = Trainer(load_recipe(tiny_recipe, [*options, *cache]))
        trainer._prepare_methods()
        (method,) = trainer.module.distillation_methods()
        batch = next(trainer.batches.epoch(0))
        features, _ = trainer.model.extract_features(batch.waveforms)
        found.append(method.maps.of(trainer.teacher.view(Inputs(batch.waveforms, features, batch.labels, batch))))
    computed, kept = found

    def likeness(shift):
        ours, theirs = computed[:, 12:-12], kept[:, 12 + shift : kept.shape[1] - 12 + shift]
        pairs = zip(ours.flatten(1), theirs.flatten(1), strict=True)
        return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]).mean().item()

    assert likeness(0) > 0.5
    assert max(likeness(shift) for shift in (-12, -6, -2, 2, 6, 12)) < likeness(0) - 0.05


def test_a_teacher_that_changes_has_no_maps_to_keep(tiny_recipe, tmp_path):
    for teacher in (["--distillation.teacher", "self"], ["--distillation.alongside", str(tiny_recipe)]):
        options = [*PAIR, *teacher, "--distillation.integrated.cache", str(tmp_path / "maps")]
        with pytest.raises(RecipeError, match="changes with every step"):
            Trainer(load_recipe(tiny_recipe, options))


def test_a_cache_that_cannot_be_written_is_one_line(tiny_recipe, teacher, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        fit(tiny_recipe, teacher, tmp_path / "a", "--distillation.integrated.cache", str(tmp_path / "file" / "maps"))
    assert not (tmp_path / "a").exists()
