"""What a recipe can say of a teacher that Parvox did not train."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from parvox.errors import RecipeError


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
        for name, least in (("sample_rate_hz", 1000), ("bins", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise RecipeError(f"onnx.{name}: {value} given; expected {least} or more")


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
class TeacherOptions:
    """What a recipe says of teachers by their kind."""

    onnx: OnnxSettings = field(default_factory=OnnxSettings)
    """Of ONNX files."""
    transformers: TransformersSettings = field(default_factory=TransformersSettings)
    """Of folders of the transformers library."""


TEACHER_SECTIONS: dict[str, type] = {"onnx": OnnxSettings, "transformers": TransformersSettings}
"""The sections of `TeacherOptions`, by name."""
