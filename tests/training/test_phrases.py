"""Training where the words count: pairs of speaker and phrase as classes, or a phrase head."""

import csv
import json

import pytest

from parvox.errors import CorpusError, ParvoxError, RecipeError
from parvox.training.recipe import load_recipe
from parvox.training.run import load_run
from parvox.training.trainer import Trainer, train


@pytest.fixture
def recipe(tiny_recipe, prepared_phrases):
    """``recipe("--option", "value")``: the tiny recipe on a corpus with phrases."""
    return lambda *overrides: load_recipe(
        tiny_recipe, ["--corpus", str(prepared_phrases), "--training.epochs", "1", *overrides]
    )


def test_pairs_are_the_classes_of_the_run_and_of_its_student(recipe, tmp_path):
    pairs = ["--data.classes", "speaker_phrase"]
    teacher = train(recipe(*pairs), tmp_path / "teacher")
    words = ("no", "open sesame", "yes")
    speakers = sorted({name.partition(":")[0] for name in teacher.speakers})
    assert len(speakers) == 6
    assert teacher.speakers == [f"{speaker}: {word}" for speaker in speakers for word in words]
    assert json.loads((teacher.folder / "speakers.json").read_text())["classes"] == 18
    assert teacher.classifier.classes == teacher.summary["classes"] == 18
    learnt = ["--distillation.teacher", str(teacher.folder), "--distillation.label.weight", "1"]
    student = train(recipe(*pairs, *learnt), tmp_path / "student")
    assert load_run(student.folder).speakers == teacher.speakers
    with pytest.raises(ParvoxError, match="knows 18 speakers and the corpus has 6"):
        Trainer(recipe(*learnt))
    with pytest.raises(RecipeError, match="data.classes: speaker given, but the run in init, .* has speaker_phrase"):
        Trainer(recipe("--init", str(teacher.folder)))


def test_a_phrase_head_is_resumed_and_not_kept(recipe, tmp_path, interrupted):
    settings = recipe("--training.phrase_weight", "0.5", "--training.epochs", "2", "--loss.sub_centres", "2")
    whole = train(settings, tmp_path / "whole")
    rows = list(csv.DictReader((whole.folder / "metrics.csv").open()))
    assert float(rows[-1]["loss/phrase"]) > 0
    assert whole.summary["parameters_added_for_training"] == 3 * 16
    assert len(whole.speakers) == 6
    interrupted(lambda: train(settings, tmp_path / "stopped"))
    resumed = train(settings, tmp_path / "stopped", resume=True)
    name = "model.safetensors"
    assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_what_a_corpus_lacks_is_named(recipe, tiny_recipe):
    with pytest.raises(CorpusError, match="has no text, so its phrase is unknown"):
        Trainer(load_recipe(tiny_recipe, ["--training.phrase_weight", "1"]))
    with pytest.raises(RecipeError, match="phrase_weight: -1.0 given"):
        recipe("--training.phrase_weight", "-1")
