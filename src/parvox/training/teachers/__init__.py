"""Whom a student can learn from: the teacher that a recipe names becomes a `Teacher`."""

from __future__ import annotations

from pathlib import Path

import torch

from parvox.models import SpeakerModel
from parvox.training.teachers.contract import Inputs, Teacher
from parvox.training.teachers.run import RunTeacher

__all__ = ["Inputs", "RunTeacher", "Teacher", "load_teacher"]


def load_teacher(name: str, student: SpeakerModel, device: torch.device) -> Teacher:
    """The frozen teacher that a recipe names.

    Args:
        name: Run folder.
        student: Who will learn from it.
        device: Where it is to run.

    Raises:
        ModelFileError: there is no such teacher, or it is damaged.
    """
    return RunTeacher.load(Path(name), student, device)
