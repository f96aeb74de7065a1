"""What must hold before training begins; each raises one line that says what does not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from parvox.corpora.prepared import INFO, PreparedCorpus
from parvox.data import DataSettings
from parvox.errors import ModelFileError, OutputError, RecipeError, TrainingError
from parvox.models import SpeakerModel
from parvox.training import run as names
from parvox.training.recipe import Recipe
from parvox.training.recipe_parsing import read_yaml
from parvox.training.run import Run
from parvox.training.teacher_settings import SELF, teacher_path
from parvox.training.teachers import Teacher
from parvox.training.teachers.head import heads_teachers

_SUMMARISED = {"parameters", "best_dev_eer", "seconds", "precision"}


def expect_summary(run: Run) -> None:
    """Raise `ModelFileError` unless the run's summary says what a command tells of a run."""
    missing = _SUMMARISED - run.summary.keys()
    if missing:
        raise ModelFileError(
            f"{run.folder / names.SUMMARY} lacks {', '.join(sorted(missing))}; restore the run folder or train again"
        )


def expect_same_recipe(recipe: Recipe, out: Path) -> None:
    """Raise `OutputError` unless the run in `out` was begun with this recipe, wherever embeddings are kept."""
    try:
        begun = read_yaml(out / names.RECIPE)
    except RecipeError as error:
        raise OutputError(
            f"{out / names.RECIPE} cannot be read, so the run cannot be resumed; train to another folder"
        ) from error
    given = yaml.safe_load(recipe.to_yaml())
    for each in (begun, given):
        if isinstance(each.get("distillation"), dict):
            each["distillation"].pop("cache", None)
    if begun != given:
        raise OutputError(
            f"{out} was begun with another recipe than the one given ({_difference(begun, given)}), so it cannot be "
            f"resumed; give the same one ({out / names.RECIPE}), or another folder"
        )


def _difference(begun: dict[str, Any], given: dict[str, Any]) -> str:
    """The first field in which two recipes differ, and how many more do."""
    before, now = dict(_fields(begun)), dict(_fields(given))
    differing = [name for name in [*now, *(before.keys() - now.keys())] if before.get(name) != now.get(name)]
    first, more = differing[0], len(differing) - 1
    then, here = (repr(fields[first])[:60] if first in fields else "nothing" for fields in (before, now))
    return f"{first}: {then} there, {here} given" + (f", and {more} more" if more else "")


def _fields(section: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each field of a recipe by its dotted name."""
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def expect_inputs_outside(recipe: Recipe, out: Path) -> None:
    """What a run is made from must not lie where the run is written: overwriting would destroy it."""
    given = [("the corpus", recipe.corpus), ("the run to start from", recipe.init)]
    given.append(("the frame classifier", getattr(recipe.model.encoder, "frame_classifier", "")))
    if recipe.distillation:
        teachers = [teacher_path(name) for name in recipe.distillation.teachers if name != SELF]
        given += [("the teacher", str(path)) for teacher in teachers for path in (teacher, *heads_teachers(teacher))]
        given.append(("the teacher's recipe", recipe.distillation.alongside))
        given.append(("the teacher's embeddings", recipe.distillation.cache))
        given += [("maps", getattr(method, "cache", "")) for method in recipe.distillation.methods.values()]
    for what, folder in given:
        path = Path(os.path.realpath(folder))
        if folder and Path(os.path.realpath(out)) in (path, *path.parents):
            raise OutputError(f"{out} holds {what}, {folder}; choose another --out")


def expect_cache_apart(recipe: Recipe) -> None:
    """Raise `OutputError` where embeddings or maps are to be kept in a folder that is something else."""
    if recipe.distillation is None:
        return
    caches = [("cache", "embeddings", recipe.distillation.cache)]
    for name, method in recipe.distillation.methods.items():
        caches.append((f"{name}.cache", "maps", getattr(method, "cache", "")))
    for field, kept, cache in caches:
        for file, what in ((names.RECIPE, "a run"), (INFO, "a prepared corpus")):
            if cache and os.path.exists(os.path.join(cache, file)):
                raise OutputError(
                    f"distillation.{field}: {cache} is {what}; {kept} would lie among its files: name another folder"
                )


def expect_rate(recipe: Recipe, corpus_rate_hz: int) -> None:
    """Raise `RecipeError` unless the model listens at the corpus's rate."""
    expected = recipe.model.features.sample_rate_hz
    if expected != corpus_rate_hz:
        raise RecipeError(
            f"model.features.sample_rate_hz: {expected} Hz given, but the corpus was prepared at {corpus_rate_hz} Hz; "
            f"set it to {corpus_rate_hz}, or prepare the corpus at {expected} Hz"
        )


def expect_dev_trials(recipe: Recipe, corpus: PreparedCorpus) -> None:
    """Raise `RecipeError` where training is to end early, but nothing tells when."""
    dev = corpus.info.splits.get("dev")
    if recipe.training.patience and (dev is None or not dev.trials_from):
        raise RecipeError(
            f"training.patience: {recipe.training.patience} given, but {corpus.folder} has no dev trials to judge "
            "epochs by; prepare it with dev speakers, or leave patience at 0"
        )


def expect_crop(recipe: Recipe, model: SpeakerModel) -> None:
    """Raise `TrainingError` where a crop is too short for the model."""
    shortest_s = model.min_samples / recipe.model.features.sample_rate_hz
    if recipe.data.crop_s < shortest_s:
        raise TrainingError(
            f"data.crop_s: {recipe.data.crop_s} s given; this model needs {shortest_s:.3f} s or more to see two frames"
        )


def expect_batch(recipe: Recipe, model: SpeakerModel) -> None:
    """Raise `RecipeError` where a batch is too small for the embedding head's batch normalisation."""
    normalised = any(isinstance(part, nn.BatchNorm1d) for part in model.head.modules())
    if recipe.data.batch_size < 2 and normalised:
        raise RecipeError(
            f"data.batch_size: {recipe.data.batch_size} given; model.head {recipe.model.head} normalises over "
            "the batch and needs 2 or more"
        )


def expect_teacher_hears(teacher: Teacher, corpus_rate_hz: int, data: DataSettings) -> None:
    """Raise `TrainingError` unless the teacher listens at the corpus's rate, and a crop is long enough for it."""
    theirs = teacher.sample_rate_hz
    if theirs != corpus_rate_hz:
        raise TrainingError(
            f"the teacher {teacher.side.name} listens at {theirs} Hz, but the corpus was prepared at {corpus_rate_hz} "
            f"Hz; prepare the corpus at {theirs} Hz, or take a teacher trained at {corpus_rate_hz} Hz"
        )
    if data.crop_samples(theirs) < teacher.min_samples:
        raise TrainingError(
            f"data.crop_s: {data.crop_s} s given; the teacher {teacher.side.name} needs "
            f"{teacher.min_samples / theirs:.3f} s or more"
        )


def expect_something_to_learn(recipe: Recipe) -> None:
    """Raise `RecipeError` for speech without labels, unless a trained teacher knows more than the student."""
    recipe.data.expect_no_labels_asked_for()
    if recipe.training.phrase_weight:
        raise RecipeError(
            f"training.phrase_weight: {recipe.training.phrase_weight} given with speech whose words are not known; "
            "set --training.phrase_weight 0"
        )
    distillation = recipe.distillation
    if distillation is None:
        raise RecipeError(
            f"the corpus {recipe.corpus} names no speakers, and without a teacher there is nothing else to learn; give "
            "a corpus with speakers, or a teacher to parvox distill"
        )
    if not any(method.weight for method in distillation.methods.values()):
        raise RecipeError(
            "distillation: no method's weight above 0 given, and speech without speaker labels teaches nothing else; "
            "give a method more"
        )
    if distillation.alongside or SELF in distillation.teachers:
        given = f"alongside {distillation.alongside}" if distillation.alongside else f"teacher {SELF}"
        raise RecipeError(
            f"distillation: {given} given with speech without speaker labels, from which such a teacher learns "
            "nothing; name a teacher that is trained already"
        )
