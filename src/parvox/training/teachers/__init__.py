"""Whom a student can learn from: the teacher that a recipe names becomes a `Teacher`."""

from __future__ import annotations

from pathlib import Path

import torch

from parvox.errors import RecipeError
from parvox.models import SpeakerModel
from parvox.training.teacher_settings import HEAD, SELF, TRANSFORMERS, TeacherOptions, teacher_path
from parvox.training.teachers.contract import Inputs, Teacher
from parvox.training.teachers.head import load_head
from parvox.training.teachers.kept import KeptTeacher
from parvox.training.teachers.run import RunTeacher
from parvox.training.teachers.team import Team

__all__ = ["Inputs", "RunTeacher", "Teacher", "load_teacher", "load_teachers"]


def load_teacher(
    name: str, student: SpeakerModel | None, device: torch.device, options: TeacherOptions | None = None
) -> Teacher:
    """The frozen teacher that a recipe names.

    Args:
        name: A run folder, a folder written by `parvox fit-head`, an .onnx file, or ``hf:`` and a folder of the
            transformers library.
        student: Who will learn from it, if anybody.
        device: Where it is to run.
        options: What the recipe says of teachers of its kind.

    Raises:
        ModelFileError: there is no such teacher, it is damaged, or Parvox cannot feed it.
        MissingExtraError: its library is not installed.
    """
    options = options or TeacherOptions()
    path = teacher_path(name)
    if name.startswith(TRANSFORMERS):
        from parvox.training.teachers.transformers import TransformersTeacher

        return TransformersTeacher(path, options.transformers, device)
    if path.suffix == ".onnx":
        from parvox.training.teachers.onnx import load_onnx

        return load_onnx(path, options.onnx, device)
    if (path / HEAD).is_file():
        return load_head(path, student, device)
    return RunTeacher.load(path, student, device)


def load_teachers(
    names: str | tuple[str, ...],
    student: SpeakerModel,
    device: torch.device,
    options: TeacherOptions,
    cache: str = "",
) -> Teacher:
    """The frozen teacher that a recipe names, or a team of several.

    Args:
        names: As for `load_teacher`.
        student: Who will learn.
        device: Where they are to run.
        options: What the recipe says of teachers by their kind.
        cache: Folder that keeps their embeddings; none if empty.

    Raises:
        ParvoxError: one of them cannot be had, or they do not go together.
    """
    if names == SELF:
        raise RecipeError(
            f"distillation.teacher: {SELF} given for speech without speaker labels, where the student's average has "
            "nothing to teach; expected another teacher, or speech with labels"
        )
    several = (names,) if isinstance(names, str) else names
    members = [load_teacher(name, student, device, options) for name in several]
    if cache:
        members = [KeptTeacher(member, Path(cache)) for member in members]
    return members[0] if isinstance(names, str) else Team(members, options.team)
