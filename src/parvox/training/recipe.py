"""Recipes: everything a run is made from, typed and checked for what goes together."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from parvox.data.settings import AugmentationSettings, DataSettings
from parvox.distillation import METHODS
from parvox.distillation.contract import MethodSettings, looks_inside
from parvox.errors import RecipeError
from parvox.losses import LOSSES, LossSettings
from parvox.models import ENCODERS, POOLINGS, ModelSettings
from parvox.models.frontend import FbankSettings
from parvox.settings import build_settings
from parvox.training.recipe_parsing import PAIR_FIELDS, parse_recipe
from parvox.training.settings import TrainingSettings
from parvox.training.teacher_settings import SELF, TEACHER_SECTIONS, TRANSFORMERS, TeacherOptions, teacher_path


@dataclass(frozen=True, kw_only=True)
class DistillationSettings:
    """The `distillation` section: a teacher and what is owed to it."""

    teacher: str | tuple[str, ...] = ""
    """The teacher: a run folder, an ONNX file, hf: and a folder of the transformers library, a folder written by
    parvox fit-head, self for the student's own moving average, or several that teach as a team."""
    alongside: str = ""
    """Recipe file of a teacher that is trained at the same time, in place of `teacher`."""
    cache: str = ""
    """Folder that keeps the teacher's embeddings, so that other students that hear the same items need not ask it; for
    methods that do not look inside the teacher."""
    methods: dict[str, MethodSettings]
    """Settings of each method, by name."""
    speaker_weight: float = 1.0
    """Weight of the student's own speaker loss beside the methods' terms."""
    options: TeacherOptions = field(default_factory=TeacherOptions)
    """What is said of teachers by their kind."""

    def __post_init__(self) -> None:
        if not isinstance(self.teacher, str):
            object.__setattr__(self, "teacher", self.teacher[0] if len(self.teacher) == 1 else tuple(self.teacher))
        if not self.teacher and not self.alongside:
            raise RecipeError("distillation.teacher: nothing given; expected the run folder of a trained teacher")
        if self.teachers[0].startswith("["):  # a list that did not pass as one of text
            raise RecipeError(
                f"distillation.teacher: {self.teachers[0]} given; expected the teachers of a team as text, a number in "
                'quotes: [ONE, "2"]'
            )
        if len(self.teachers) > 1 and ({"", SELF} & set(self.teachers) or len(self._places) < len(self.teachers)):
            raise RecipeError(
                f"distillation.teacher: {', '.join(name or 'nothing' for name in self.teachers)} given; expected a "
                f"team of different teachers, and {SELF} only alone"
            )
        if self.teacher and self.alongside:
            raise RecipeError(
                f"distillation: teacher {self.teacher} and alongside {self.alongside} given; expected one of the two"
            )
        self._expect_options_used()
        if self.cache and (self.alongside or self.teacher == SELF):
            raise RecipeError(
                f"distillation.cache: {self.cache} given for a teacher that changes while the student is trained; "
                "expected a trained teacher, or no cache"
            )
        inside = sorted(name for name, method in self.methods.items() if looks_inside(method))
        if self.cache and inside:
            raise RecipeError(
                f"distillation.cache: {self.cache} given with {', '.join(inside)}, which looks inside the teacher, "
                "where embeddings are not enough; expected other methods, or no cache"
            )
        if not self.methods:
            raise RecipeError(
                f"distillation: no method given; name one or more of {', '.join(sorted(e.name for e in METHODS))}, "
                "such as --distillation.label.weight 1"
            )
        if not 0 <= self.speaker_weight < math.inf:
            raise RecipeError(f"distillation.speaker_weight: {self.speaker_weight} given; expected a number from 0 up")
        if not self.speaker_weight and not any(method.weight for method in self.methods.values()):
            raise RecipeError(
                "distillation: speaker_weight 0 and no method's weight above 0 given, so that there is nothing to "
                "learn; give one of them more"
            )

    def _expect_options_used(self) -> None:
        """Raise `RecipeError` where something is said of a kind of teachers that is not there."""
        names = self.teachers
        kinds = {
            "onnx": ("an .onnx file", any(teacher_path(name).suffix == ".onnx" for name in names)),
            "transformers": (f"named {TRANSFORMERS}FOLDER", any(name.startswith(TRANSFORMERS) for name in names)),
            "team": ("one of several", len(names) > 1),
            "average": (SELF, names == (SELF,)),
        }
        for section in _told(self.options):
            expected, there = kinds[section]
            if not there:
                given = ", ".join(names) if self.teacher else f"alongside {self.alongside}"
                raise RecipeError(
                    f"distillation.{section}: given, but the teacher is {given}; expected a teacher that is "
                    f"{expected}, or this section left out"
                )

    @property
    def _places(self) -> set[str]:
        return {os.path.realpath(teacher_path(name)) for name in self.teachers}

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers by name, one or several."""
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything a run is made from."""

    corpus: str
    """Folder of the prepared corpus."""
    seed: int
    """Decides initial weights, the order of utterances and every random draw."""
    model: ModelSettings
    loss: LossSettings
    data: DataSettings
    augmentation: AugmentationSettings
    training: TrainingSettings
    distillation: DistillationSettings | None = None
    init: str = ""
    """Run folder whose weights the training starts from; nothing for random ones."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise RecipeError(f"seed: {self.seed} given; expected 0 to {2**63 - 1}")

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain data, every default filled in, in the layout of a recipe file."""
        model = {
            "name": ENCODERS.name_of(self.model.encoder),
            **_plain(self.model.encoder),
            "pooling": {"name": POOLINGS.name_of(self.model.pooling), **_plain(self.model.pooling)},
            "embedding_dim": self.model.embedding_dim,
            "head": self.model.head,
            "features": _plain(self.model.features),
        }
        sections: dict[str, Any] = {
            "corpus": self.corpus,
            "seed": self.seed,
            **({"init": self.init} if self.init else {}),
            "model": model,
            "loss": {"name": LOSSES.name_of(self.loss), **_plain(self.loss)},
        }
        if self.distillation:
            methods = {name: _plain(method) for name, method in self.distillation.methods.items()}
            pair = {
                name: value for name, value in _plain(self.distillation).items() if name in PAIR_FIELDS and value != ""
            }
            sections["distillation"] = {**pair, **_told(self.distillation.options), **methods}
        sections |= {
            "data": _plain(self.data),
            "augmentation": _plain(self.augmentation),
            "training": _plain(self.training),
        }
        return sections

    def to_yaml(self) -> str:
        """The recipe as the text of a recipe file."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file.

    Args:
        path: The YAML file.
        overrides: As on the command line: ``["--model.channels", "256"]``.

    Raises:
        RecipeError: the file is missing or not a recipe; a field is unknown or mistyped; parts do not go together.
    """
    return build_recipe(parse_recipe(path, overrides or [], prog="recipe"))


def build_recipe(values: dict[str, Any]) -> Recipe:
    """The typed recipe from parsed values.

    Raises:
        RecipeError: a value is out of range, or parts do not go together.
    """
    model = dict(values["model"])
    pooling = dict(model.pop("pooling"))
    encoder = ENCODERS[model.pop("name")]
    embedding_dim, head, features = model.pop("embedding_dim"), model.pop("head"), model.pop("features")
    loss = dict(values["loss"])
    distillation = None
    if values.get("distillation"):
        methods = dict(values["distillation"])
        distillation = DistillationSettings(
            **{name: methods.pop(name) for name in PAIR_FIELDS},
            options=TeacherOptions(
                **{name: build_settings(settings, methods.pop(name)) for name, settings in TEACHER_SECTIONS.items()}
            ),
            methods={name: build_settings(METHODS[name].settings, fields) for name, fields in methods.items()},
        )
    return Recipe(
        corpus=values["corpus"],
        seed=values["seed"],
        init=values["init"],
        model=ModelSettings(
            encoder=build_settings(encoder.settings, model),
            pooling=build_settings(POOLINGS[pooling.pop("name")].settings, pooling),
            embedding_dim=embedding_dim,
            head=head,
            features=build_settings(FbankSettings, features),
        ),
        loss=build_settings(LOSSES[loss.pop("name")].settings, loss),
        data=build_settings(DataSettings, values["data"]),
        augmentation=build_settings(AugmentationSettings, values["augmentation"]),
        training=build_settings(TrainingSettings, values["training"]),
        distillation=distillation,
    )


def _told(options: TeacherOptions) -> dict[str, Any]:
    """Sections on the kinds of teachers, without what is left unset."""
    sections = {name: getattr(options, name) for name in TEACHER_SECTIONS}
    return {name: _plain(told) for name, told in sections.items() if told != type(told)()}


def _plain(settings: Any) -> dict[str, Any]:
    """A settings dataclass as YAML-ready data."""
    return {
        field.name: list(value) if isinstance(value := getattr(settings, field.name), tuple) else value
        for field in dataclasses.fields(settings)
    }
