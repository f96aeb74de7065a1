"""A teacher that is trained at the same time as its student."""

from __future__ import annotations

import dataclasses
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from parvox.distillation.contract import Side, View
from parvox.errors import RecipeError
from parvox.files import atomic_file, output_errors
from parvox.losses import SpeakerLoss
from parvox.models import SpeakerModel
from parvox.models.contract import EncoderOutput
from parvox.training import run as names
from parvox.training.checkpoint import save_tensors
from parvox.training.checks import expect_crop, expect_same_recipe
from parvox.training.fit_frames import give_frames
from parvox.training.recipe import Recipe, load_recipe
from parvox.training.teachers.contract import Inputs

if TYPE_CHECKING:
    from parvox.training.dev import DevScores

FOLDER = "teacher"
"""Where in the student's run folder the teacher is left, as a run of its own."""
_TERM = "teacher_"


class AlongsideTeacher(nn.Module):
    """A teacher inside the trained module: it learns from the labels, and nothing of what the student owes it.

    Source: the second of the two ways of Mingote et al., "Knowledge distillation and random erasing data augmentation
    for text-dependent speaker verification", ICASSP 2020. Inferred: that gradients of distillation stop at the teacher,
    and that both have one optimizer.

    Args:
        recipe: Its model and loss, and the rest as for its student.
        student: Who learns; where both have the same front end, features are computed once for the two.
        classes: Classes of its speaker head.
    """

    def __init__(self, recipe: Recipe, student: SpeakerModel, classes: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.model = SpeakerModel(recipe.model)
        self.classifier = recipe.loss.build(recipe.model.embedding_dim, classes)
        side = Side.of("the teacher trained alongside", self.model, self.classifier)
        self.side = dataclasses.replace(side, changes=True)
        self._shares_features = recipe.model.features == student.settings.features

    def forward(self, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor], View]:
        """Its own loss, the terms of it detached and by name, and what its student may look at.

        Args:
            inputs: The batch, with labels.
        """
        features = inputs.teacher_features if self._shares_features else inputs.own_features(self.model)
        view = View.of(self.model, self.classifier, features, inputs.labels, inputs.batch)
        assert inputs.labels is not None  # speech without labels trains nobody
        total = F.cross_entropy(view.margin_logits.float(), inputs.labels)
        terms = {f"{_TERM}speaker": total.detach()}
        for name, (value, weight) in self.model.own_terms().items():
            total = total + weight * value
            terms[_TERM + name] = value.detach()
        return total, terms, stopped(view, self.model)

    def begin(self, student_run: Path, going_on: bool) -> None:
        """Write its recipe into the folder of its student's run, or make sure that the run was begun with it.

        Raises:
            OutputError: the run was begun with another teacher.
        """
        folder = student_run / FOLDER
        if going_on:
            expect_same_recipe(self.recipe, folder)
            return
        with output_errors(folder):
            folder.mkdir(exist_ok=True)
        _write(folder / names.RECIPE, self.recipe.to_yaml())

    def close(self, student_run: Path, of_student: dict[str, Any], scores: DevScores | None) -> None:
        """Leave a run folder of its own in that of its student, with its final weights.

        Args:
            student_run: The student's run folder.
            of_student: The summary of the student's run.
            scores: Its own scores of the dev trials.
        """
        folder = student_run / FOLDER
        save_tensors(folder / names.MODEL, self.model.state_dict())
        save_tensors(folder / names.CLASSIFIER, self.classifier.state_dict())
        _write(folder / names.SPEAKERS, (student_run / names.SPEAKERS).read_text(encoding="utf-8"))
        summary = of_student | {
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "parameters_added_for_training": 0,
            "best_dev_eer": None if scores is None else scores.eer,
            "best_step": of_student["steps"],
            names.CHECKSUMS: {name: names.file_checksum(folder / name) for name in (names.MODEL, names.CLASSIFIER)},
        }
        _write(folder / names.SUMMARY, json.dumps(summary, indent=1))


def load_alongside(recipe: Recipe, student: SpeakerModel, classes: int) -> AlongsideTeacher | None:
    """The teacher that a recipe wants trained alongside; None if it wants none.

    Args:
        recipe: Of the student. The teacher's file gives model and loss; data, augmentation and training are as here.
        student: Who learns.
        classes: Classes of the student's speaker head, and so of the teacher's.

    Raises:
        RecipeError: the teacher's file is no recipe of a model to train alongside this one.
    """
    if recipe.distillation is None or not recipe.distillation.alongside:
        return None
    path = Path(recipe.distillation.alongside)
    theirs = load_recipe(path)
    for section in ("distillation", "init"):
        if getattr(theirs, section):
            raise RecipeError(
                f"distillation.alongside: {path} has {section}, and a teacher trained alongside has no teacher and "
                "starts from nothing; take it out"
            )
    rate = theirs.model.features.sample_rate_hz
    if rate != recipe.model.features.sample_rate_hz:
        raise RecipeError(
            f"distillation.alongside: {path} listens at {rate} Hz, the student at "
            f"{recipe.model.features.sample_rate_hz} Hz; give both one model.features.sample_rate_hz"
        )
    both = dataclasses.replace(recipe, model=theirs.model, loss=theirs.loss, distillation=None, init="")
    teacher = AlongsideTeacher(both, student, classes)
    expect_crop(both, teacher.model)
    give_frames(teacher.model)
    return teacher


def stopped(view: View, model: SpeakerModel) -> View:
    """A view of a model in training through which nothing flows back into the model.

    Args:
        view: With gradients.
        model: Whose view it is. Looked at again, it is in whatever mode it is in, and keeps its statistics.
    """
    assert view.classifier is not None
    assert view.encoded is not None

    def again(others: Tensor) -> View:
        output = _call_stopped(model, "embed_features", others)
        return _StoppedView(
            output.embedding,
            view.classifier,
            view.labels,
            encoded=output.encoded,
            features=others,
            again=again,
            batch=view.batch,
        )

    seen = _StoppedView(
        view.embedding.detach(),
        view.classifier,
        view.labels,
        encoded=_detached(view.encoded),
        features=view.features,
        again=again,
        batch=view.batch,
    )
    seen.margin_logits = view.margin_logits.detach()
    return seen


class _StoppedView(View):
    """A view whose logits have gradients for the embedding, and none for the classifier."""

    @cached_property
    def free_logits(self) -> Tensor:
        return self._logits(None)

    @cached_property
    def margin_logits(self) -> Tensor:
        return self._logits(self.labels)

    def _logits(self, labels: Tensor | None) -> Tensor:
        logits: Tensor = _call_stopped(self._head, "logits", self.embedding, labels)
        return logits


class _Method(nn.Module):
    """A method of a module, as a module."""

    def __init__(self, module: SpeakerModel | SpeakerLoss, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name

    def forward(self, *args: Any) -> Any:
        return getattr(self.module, self.name)(*args)


def _call_stopped(module: SpeakerModel | SpeakerLoss, name: str, *args: Any) -> Any:
    """What a method gives with the module's parameters as constants, and its buffers as they stay."""
    called = _Method(module, name)
    constants = {key: parameter.detach() for key, parameter in called.named_parameters()}
    constants |= {key: buffer.clone() for key, buffer in called.named_buffers()}
    return functional_call(called, constants, args)


def _detached(encoded: EncoderOutput) -> EncoderOutput:
    return EncoderOutput(
        frames=encoded.frames.detach(),
        lengths=encoded.lengths,
        tokens=None if encoded.tokens is None else encoded.tokens.detach(),
        attention_maps={name: weights.detach() for name, weights in encoded.attention_maps.items()},
    )


def _write(path: Path, text: str) -> None:
    with atomic_file(path, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
