"""A teacher with a speaker head that `parvox fit-head` gave it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from parvox.errors import ModelFileError, RecipeError
from parvox.losses import LOSSES
from parvox.models import SpeakerModel
from parvox.settings import build_settings
from parvox.training.recipe_parsing import read_yaml
from parvox.training.run import CLASSIFIER, SPEAKERS, SUMMARY, known_checksum, load_weights, read_json
from parvox.training.teacher_settings import HEAD, TEACHER_SECTIONS, TeacherOptions, teacher_path
from parvox.training.teachers.contract import Teacher


def load_head(folder: Path, student: SpeakerModel | None, device: torch.device) -> Teacher:
    """The teacher that a folder written by `parvox fit-head` names, with its head.

    Args:
        folder: The folder.
        student: Who will learn from it, if anybody.
        device: Where it is to run.

    Raises:
        ModelFileError: the folder is damaged, or the teacher is gone or not the one that the head was fitted to.
    """
    from parvox.training.teachers import load_teacher

    try:
        heads_teachers(folder)
        told = read_yaml(folder / HEAD)
        name, checksum, loss = str(told["teacher"]), told["checksum"], dict(told["loss"])
        options = {
            kind: build_settings(TEACHER_SECTIONS[kind], told["options"].get(kind, {})) for kind in TEACHER_SECTIONS
        }
        settings: Any = build_settings(LOSSES[loss.pop("name")].settings, loss)
    except (RecipeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"{folder / HEAD} is damaged ({error}); restore the folder or fit the head again"
        ) from error
    try:
        teacher = load_teacher(name, student, device, TeacherOptions(**options))
    except ModelFileError as error:
        raise ModelFileError(f"{folder} is a head for a teacher that cannot be read: {error}") from error
    if teacher.checksum != checksum:
        raise ModelFileError(
            f"{folder}: its teacher {name} has changed since the head was fitted; restore it, or fit the head again"
        )
    known = read_json(folder / SPEAKERS)
    speakers, classes = known.get("speakers"), known.get("classes")
    if not isinstance(speakers, list) or not isinstance(classes, int) or classes < 1:
        raise ModelFileError(f"{folder / SPEAKERS} names no speakers; restore the folder or fit the head again")
    classifier = settings.build(teacher.side.embedding_dim, classes)
    load_weights(classifier, folder / CLASSIFIER, known_checksum(read_json(folder / SUMMARY), CLASSIFIER))
    classifier.set_progress(1.0)
    teacher.give_head(str(folder), classifier.to(device).eval().requires_grad_(False), speakers)
    return teacher


def heads_teachers(folder: Path) -> list[Path]:
    """Whose head a folder of `parvox fit-head` is; that may have a head too, and so on. Nobody for other teachers.

    Raises:
        RecipeError: a head is, in the end, its own teacher, or its file is damaged.
    """
    found: list[Path] = []
    passed: set[str] = set()
    while (folder / HEAD).is_file():
        if os.path.realpath(folder) in passed:
            raise RecipeError("its teacher is, in the end, itself")
        passed.add(os.path.realpath(folder))
        folder = teacher_path(str(read_yaml(folder / HEAD).get("teacher")))
        found.append(folder)
    return found
