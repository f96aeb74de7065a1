"""What a recipe can say of a teacher beside its name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from parvox.errors import RecipeError

SELF = "self"
"""The name of the teacher that is the student's own moving average."""
TRANSFORMERS = "hf:"
"""What the name of a folder of the transformers library begins with."""
HEAD = "head.yaml"
"""What says of which teacher a head is, and how it was fitted; no other folder holds one."""


def teacher_path(name: str) -> Path:
    """Where the teacher that a recipe names lies."""
    return Path(name.removeprefix(TRANSFORMERS))


@dataclass(frozen=True, kw_only=True)
class OnnxSettings:
    """How an ONNX teacher wants its input; what is left unset, the file's metadata say."""

    convention: Literal["wespeaker", "3d-speaker"] | None = None
    """Whose habits fill in what else is unset."""
    input: Literal["features", "waveform"] | None = None
    """What goes in; unset means waveforms for an input (batch, samples), features for (batch, frames, bins)."""
    sample_rate_hz: int | None = None
    """Rate it listens at."""
    scale: float | None = None
    """What samples in [-1, 1] are multiplied by: 1 or 32768."""
    bins: int | None = None
    """Mel bins; unset means as many as the input has."""
    window: Literal["hamming", "povey", "hann"] | None = None
    """Window of the features."""
    normalise: Literal["mean", "mean_std", "none"] | None = None
    """What is done to each bin over the utterance: its mean taken off, its deviation made 1 as well, or nothing."""
    low_hz: float | None = None
    """Lower edge of the first mel bin; 20 if unset."""
    high_hz: float | None = None
    """Upper edge of the last mel bin; zero or less counts down from half the sample rate; 0 if unset."""
    output: str | None = None
    """Name of the output that is the embedding, where there are several."""

    def __post_init__(self) -> None:
        if self.scale is not None and not self.scale > 0:
            raise RecipeError(f"onnx.scale: {self.scale} given; expected more than 0, such as 1 or 32768")
        for name, least, most in (("sample_rate_hz", 1000, 768_000), ("bins", 1, 4096)):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise RecipeError(f"onnx.{name}: {value} given; expected {least} to {most}")


@dataclass(frozen=True, kw_only=True)
class TransformersSettings:
    """How the embedding of a Hugging Face transformers teacher is read."""

    layers: tuple[int, ...] = ()
    """Layers whose frames are averaged, 0 for what goes into the first, -1 for the last; if empty, the x-vector head's
    embedding where the model has such a head, else the last layer."""
    layer_weights: tuple[float, ...] = ()
    """A weight for each of `layers`; equal ones if empty."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))  # a list would make the settings unhashable
        object.__setattr__(self, "layer_weights", tuple(self.layer_weights))
        if self.layer_weights and len(self.layer_weights) != len(self.layers):
            raise RecipeError(
                f"transformers.layer_weights: {len(self.layer_weights)} given for {len(self.layers)} layers; expected "
                "one each"
            )
        if self.layer_weights and not (min(self.layer_weights) >= 0 and sum(self.layer_weights) > 0):
            raise RecipeError(
                f"transformers.layer_weights: {list(self.layer_weights)} given; expected 0 or more each, not all 0"
            )


@dataclass(frozen=True, kw_only=True)
class TeamSettings:
    """How several teachers are combined into one."""

    combine: Literal["mean", "confidence"] = "mean"
    """The mean of their posteriors and embeddings, or for each utterance the surer ones more (CA-MKD)."""

    def __post_init__(self) -> None:
        if self.combine not in ("mean", "confidence"):
            raise RecipeError(f"team.combine: {self.combine!r} given; expected mean or confidence")


@dataclass(frozen=True, kw_only=True)
class AverageSettings:
    """How the teacher self, the student's own moving average, follows the student."""

    decay: float = 0.999
    """Share of the average that is kept at each step."""
    warmup: int = 10
    """After t steps at most (1 + t) / (warmup + t) is kept; 1 for the same decay from the first step on."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise RecipeError(f"average.decay: {self.decay} given; expected 0 or more and less than 1")
        if self.warmup < 1:
            raise RecipeError(f"average.warmup: {self.warmup} given; expected 1 or more")


@dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """What a recipe says of teachers by their kind."""

    onnx: OnnxSettings = field(default_factory=OnnxSettings)
    """Of ONNX files."""
    transformers: TransformersSettings = field(default_factory=TransformersSettings)
    """Of folders of the transformers library."""
    team: TeamSettings = field(default_factory=TeamSettings)
    """Of several teachers at once."""
    average: AverageSettings = field(default_factory=AverageSettings)
    """Of the student's own moving average."""


TEACHER_SECTIONS: dict[str, type] = {
    "onnx": OnnxSettings,
    "transformers": TransformersSettings,
    "team": TeamSettings,
    "average": AverageSettings,
}
"""The sections of `TeacherOptions`, by name."""
