"""What an ONNX speaker model wants to be fed: from its metadata, a file beside it, or the recipe.

Sources: WeSpeaker's `infer_onnx.py` (16-bit scale, Hamming window, mean off), 3D-Speaker's `processor.py` (samples in
[-1, 1], Kaldi's Povey window, mean off), and the keys that sherpa-onnx writes: `framework`, `sample_rate`,
`normalize_samples`, `feature_normalize_type`, `output_dim`. Neither toolkit's own export writes any.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from parvox.errors import ModelFileError
from parvox.models.frontend import FULL_SCALE, FbankSettings
from parvox.settings import Parser, add_settings, build_settings, parse
from parvox.training.recipe_parsing import as_options, read_yaml
from parvox.training.teacher_settings import OnnxSettings

_HABITS = {
    "wespeaker": OnnxSettings(sample_rate_hz=16000, scale=FULL_SCALE, window="hamming", normalise="mean"),
    "3d-speaker": OnnxSettings(sample_rate_hz=16000, scale=1.0, window="povey", normalise="mean"),
}
# sherpa-onnx feeds WeSpeaker's models without taking the mean off; they were trained with it off.
_NORMALISE: dict[str, Literal["mean", "mean_std"]] = {"global-mean": "mean", "per_feature": "mean_std"}
_KEYS = ("framework", "sample_rate", "normalize_samples", "feature_normalize_type")


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How to feed one ONNX model.

    Attributes:
        features: The front end; None where waveforms go in.
        sample_rate_hz: Rate it listens at.
        scale: What samples in [-1, 1] are multiplied by.
        normalise: What is done to each bin over the utterance.
        bins_first: Whether features go in as (batch, bins, frames).
        channels: Whether waveforms go in as (batch, 1, samples).
        one_by_one: Whether it takes a single utterance at a time.
        output: Which output is the embedding, if that was said.
        note: All that in words, and where it was found.
    """

    features: FbankSettings | None
    sample_rate_hz: int
    scale: float
    normalise: str = "none"
    bins_first: bool = False
    channels: bool = False
    one_by_one: bool = False
    output: str | None = None
    note: str = ""


def beside(path: Path) -> Path:
    """The file beside a model that says what it wants: ``model.onnx.yaml``, with the fields of `OnnxSettings`."""
    return path.with_name(path.name + ".yaml")


def convention(path: Path, shape: Sequence[Any], metadata: Mapping[str, str], given: OnnxSettings) -> Convention:
    """How to feed a model.

    Args:
        path: The model, for messages and the file beside it.
        shape: Of its one input; numbers where fixed, anything else where free.
        metadata: Its metadata.
        given: What the recipe says, before the file beside it, before the metadata.

    Raises:
        ModelFileError: it has a fixed length, an input of another kind, or does not say what it wants.
        RecipeError: the file beside it is no settings.
    """
    file = _from_file(path)
    told = _first(given, file, _from_metadata(path, metadata))
    merged = _first(told, _HABITS.get(told.convention or "", OnnxSettings()))
    found = [
        *(["the recipe"] if given != OnnxSettings() else []),
        *([beside(path).name] if file != OnnxSettings() else []),
        *(["its metadata"] if any(key in metadata for key in _KEYS) else []),
        *([f"{told.convention}'s habits"] if told.convention else []),
    ]
    one_by_one = shape[:1] == [1]
    if len(shape) not in (2, 3) or (isinstance(shape[0], int) and not one_by_one):
        raise ModelFileError(
            f"{path}: an input of shape {_shown(shape)} given; expected (batch, samples) or (batch, frames, bins), "
            "the batch free"
        )
    waveform = len(shape) == 2 or (merged.input == "waveform" and shape[1] == 1)
    if merged.input is not None and waveform != (merged.input == "waveform"):
        raise ModelFileError(f"{path}: onnx.input {merged.input} given, but its input has shape {_shown(shape)}")
    take = _waveforms if waveform else _features
    made = take(path, list(shape), merged)
    said = ", ".join(found)
    note = f"{path}: {made.note} ({said})"
    return dataclasses.replace(made, one_by_one=one_by_one, output=merged.output, note=note)


def _waveforms(path: Path, shape: list[Any], merged: OnnxSettings) -> Convention:
    _expect_free(path, shape, len(shape) - 1)
    _expect_told(path, merged, ("sample_rate_hz",))
    scale = 1.0 if merged.scale is None else merged.scale
    rate = merged.sample_rate_hz or 0
    return Convention(
        features=None,
        sample_rate_hz=rate,
        scale=scale,
        channels=len(shape) == 3,
        note=f"waveforms at {rate} Hz, times {scale:g}",
    )


def _features(path: Path, shape: list[Any], merged: OnnxSettings) -> Convention:
    bins_first = isinstance(shape[1], int) and not isinstance(shape[2], int)
    _expect_free(path, shape, 2 if bins_first else 1)
    held = shape[1] if bins_first else shape[2]
    bins = held if isinstance(held, int) else merged.bins
    if bins is None:
        raise ModelFileError(
            f"{path}: its input of shape {_shown(shape)} does not say how many mel bins; set onnx.bins"
        )
    if merged.bins not in (None, bins):
        raise ModelFileError(f"{path}: onnx.bins {merged.bins} given, but its input has {bins}")
    _expect_told(path, merged, ("sample_rate_hz", "scale", "window", "normalise"))
    settings = FbankSettings(
        bins=bins,
        sample_rate_hz=merged.sample_rate_hz or 0,
        window=merged.window or "povey",
        low_hz=20.0 if merged.low_hz is None else merged.low_hz,
        high_hz=merged.high_hz or 0.0,
    )
    normalise = {"mean": "mean off", "mean_std": "mean off and deviation 1", "none": "as they are"}
    return Convention(
        features=settings,
        sample_rate_hz=settings.sample_rate_hz,
        scale=merged.scale or 1.0,
        normalise=merged.normalise or "none",
        bins_first=bins_first,
        note=(
            f"{bins} log-mel bins at {settings.sample_rate_hz} Hz, samples times {merged.scale:g}, {settings.window} "
            f"window, {normalise[merged.normalise or 'none']}"
        ),
    )


def _expect_free(path: Path, shape: list[Any], axis: int) -> None:
    if isinstance(shape[axis], int):
        raise ModelFileError(
            f"{path}: takes a fixed length, {shape[axis]}, of input {_shown(shape)}; export it with that axis free "
            "(dynamic_axes)"
        )


def _expect_told(path: Path, merged: OnnxSettings, needed: tuple[str, ...]) -> None:
    missing = [name for name in needed if getattr(merged, name) is None]
    if missing:
        raise ModelFileError(
            f"{path}: its metadata do not say {', '.join(missing)}; set onnx.convention to wespeaker or 3d-speaker, or "
            f"onnx.{missing[0]}{' and so on' if len(missing) > 1 else ''}, in the recipe or in {beside(path).name}"
        )


def _from_metadata(path: Path, metadata: Mapping[str, str]) -> OnnxSettings:
    """What sherpa-onnx's keys say."""
    framework = metadata.get("framework", "").strip().lower()
    if framework == "nemo":
        raise ModelFileError(
            f"{path}: a NeMo model, whose mel bins are not Kaldi's; expected an export of WeSpeaker, 3D-Speaker or "
            "Parvox, or one that takes waveforms"
        )
    normalise = metadata.get("feature_normalize_type", "").strip()
    if normalise and normalise not in _NORMALISE:
        raise ModelFileError(f"{path}: feature_normalize_type {normalise!r} in its metadata; known: {list(_NORMALISE)}")
    values: dict[str, Any] = {"convention": framework if framework in _HABITS else None}
    for key, name, read in (
        ("sample_rate", "sample_rate_hz", int),
        ("normalize_samples", "scale", lambda text: 1.0 if int(text) else FULL_SCALE),
    ):
        if key in metadata:
            try:
                values[name] = read(metadata[key])
            except ValueError:
                raise ModelFileError(f"{path}: {key} {metadata[key]!r} in its metadata; expected a number") from None
    return OnnxSettings(normalise=_NORMALISE.get(normalise), **values)


def _from_file(path: Path) -> OnnxSettings:
    """What the file beside the model says; nothing without one."""
    file = beside(path)
    if not file.is_file():
        return OnnxSettings()
    parser = Parser(prog=file.name)
    add_settings(parser, OnnxSettings, "onnx")
    values = parse(parser, as_options({"onnx": read_yaml(file)}, parser, str(file))).as_dict()
    settings: OnnxSettings = build_settings(OnnxSettings, values["onnx"])
    return settings


def _first(*told: OnnxSettings) -> OnnxSettings:
    """Field by field, what the first of them says that says anything."""
    names = [field.name for field in dataclasses.fields(OnnxSettings)]
    values = {
        name: next((value for each in told if (value := getattr(each, name)) is not None), None) for name in names
    }
    return OnnxSettings(**values)


def _shown(shape: Sequence[Any]) -> str:
    return f"({', '.join(str(each) for each in shape)})"
