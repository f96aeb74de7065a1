"""What several methods ask of their settings and of the pair."""

from __future__ import annotations

import dataclasses

from parvox.distillation.contract import Pair
from parvox.errors import RecipeError
from parvox.models.speaker_model import SpeakerModel

_MOST = 1_000_000
_TEMPERATURES = 0.001, 1000.0


def not_negative(method: str, **values: float) -> None:
    """Raise `RecipeError` for the first of a method's values, by field, that is negative, beyond sense or no number."""
    for field, value in values.items():
        if not 0 <= value <= _MOST:
            raise RecipeError(f"distillation.{method}.{field}: {value} given; expected 0 or more, at most {_MOST:,}")


def fraction(method: str, **values: float) -> None:
    """Raise `RecipeError` for the first of a method's values, by field, that is not from 0 to 1."""
    for field, value in values.items():
        if not 0 <= value <= 1:
            raise RecipeError(f"distillation.{method}.{field}: {value} given; expected a fraction from 0 to 1")


def positive_temperature(method: str, temperature: float, field: str = "temperature") -> None:
    """Raise `RecipeError` for a temperature at which posteriors in float32 say nothing any more."""
    coldest, hottest = _TEMPERATURES
    if not coldest <= temperature <= hottest:
        raise RecipeError(f"distillation.{method}.{field}: {temperature} given; expected {coldest} to {hottest:g}")


def expect_labels(method: str, pair: Pair) -> None:
    """Raise `RecipeError` for speech without labels."""
    if not pair.labelled:
        raise RecipeError(
            f"distillation.{method}: speech without speaker labels given, and this method needs them; use methods "
            f"that do not, such as --distillation.{method} none --distillation.embedding.weight 30"
        )


def expect_same_classes(method: str, pair: Pair) -> None:
    """Raise `RecipeError` where the two classifiers do not know the same speakers, or there is none."""
    ours, theirs = pair.student.classes, pair.teacher.classes
    if not theirs:
        raise RecipeError(
            f"distillation.{method}: the teacher {pair.teacher.name} has no speaker classifier, and this method "
            "needs one; give it one with parvox fit-head, or use embeddings: "
            f"--distillation.{method} none --distillation.embedding.weight 30"
        )
    known, taught = pair.student.speakers, pair.teacher.speakers
    if known is not None and taught is not None and list(known) != list(taught):
        raise RecipeError(
            f"distillation.{method}: the teacher {pair.teacher.name} knows {len(taught)} speakers and the corpus has "
            f"{len(known)}, {len(set(known) & set(taught))} of them in common; expected the teacher's own corpus: give "
            "it a head for yours with parvox fit-head, or use embeddings: "
            f"--distillation.{method} none --distillation.embedding.weight 30"
        )
    if ours != theirs:
        raise RecipeError(
            f"distillation.{method}: a student of {ours} speaker classes and a teacher of {theirs} given; label-level "
            "methods expect the same speakers: train both on one corpus with equal data.classes and "
            "data.speed_perturbation, or use distillation.embedding"
        )


def expect_models(method: str, pair: Pair) -> tuple[SpeakerModel, SpeakerModel]:
    """Student and teacher as Parvox models; raise `RecipeError` for a teacher that shows its embedding only."""
    student, teacher = pair.student.model, pair.teacher.model
    if student is None or teacher is None:
        side = pair.student if student is None else pair.teacher
        raise RecipeError(
            f"distillation.{method}: {side.name} shows its embedding only, and this method looks inside; take a "
            "teacher trained by Parvox, or use distillation.embedding"
        )
    return student, teacher


def expect_embeddings(method: str, pair: Pair) -> None:
    """Raise `RecipeError` for a teacher without an embedding, such as a team of teachers whose sizes differ."""
    if not pair.teacher.embedding_dim:
        raise RecipeError(
            f"distillation.{method}: {pair.teacher.name} shows no embedding of one size; take teachers of equal "
            "embedding_dim, or a method that looks at speaker posteriors, such as distillation.label"
        )


def expect_same_features(method: str, pair: Pair) -> None:
    """Raise `RecipeError` unless student and teacher are Parvox models with one front end."""
    student, teacher = (model.settings.features for model in expect_models(method, pair))
    if student != teacher:
        fields = [each.name for each in dataclasses.fields(teacher)]
        name = next(name for name in fields if getattr(student, name) != getattr(teacher, name))
        raise RecipeError(
            f"distillation.{method}: the student's features have {name} {getattr(student, name)} and the teacher's "
            f"{getattr(teacher, name)}; this method shows both the same features: set model.features.{name} to "
            f"{getattr(teacher, name)}"
        )
