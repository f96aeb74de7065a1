"""What several methods ask of their settings and of the pair."""

from __future__ import annotations

from parvox.distillation.contract import Side
from parvox.errors import RecipeError


def weight_not_negative(method: str, weight: float) -> None:
    """Raise `RecipeError` for a negative weight."""
    if not weight >= 0:
        raise RecipeError(f"distillation.{method}.weight: {weight} given; expected 0 or more")


def positive_temperature(method: str, temperature: float) -> None:
    """Raise `RecipeError` for a temperature that is not above zero."""
    if not temperature > 0:
        raise RecipeError(f"distillation.{method}.temperature: {temperature} given; expected more than 0")


def expect_same_classes(method: str, student: Side, teacher: Side) -> None:
    """Raise `RecipeError` where the two classifiers do not have as many speakers."""
    ours, theirs = student.classifier.classes, teacher.classifier.classes
    if ours != theirs:
        raise RecipeError(
            f"distillation.{method}: a student of {ours} speaker classes and a teacher of {theirs} given; label-level "
            "methods expect the same speakers: train both on one corpus with equal data.speed_perturbation, or use "
            "distillation.embedding"
        )
