"""`parvox models`."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json as json_format
import shutil
import textwrap
import types
import typing
from typing import Any

import yaml

from parvox.cli.parsing import call
from parvox.distillation import METHODS
from parvox.errors import RecipeError, nearest
from parvox.losses import LOSSES
from parvox.models import ENCODERS, POOLINGS, SpeakerModel
from parvox.models.breakdown import layers
from parvox.models.catalogue import SIZES, Configuration, configurations
from parvox.models.cost import cost, count_parameters
from parvox.progress import progress
from parvox.registry import Entry, Registry
from parvox.settings import descriptions
from parvox.tables import aligned, millions

_DIM, _CLASSES = 192, 1000  # what losses are stated for
_FALLBACK = "ecapa_tdnn"  # the encoder that poolings are stated for, unless another has them by default
# Where a recipe has the settings of each kind of choice.
_KINDS: dict[str, tuple[Registry[Any], str]] = {
    "model": (ENCODERS, "model"),
    "pooling": (POOLINGS, "model.pooling"),
    "loss": (LOSSES, "loss"),
    "distillation method": (METHODS, "distillation.{name}"),
}


def main(argv: list[str]) -> None:
    """Print the list, or what a name stands for."""
    call(models, argv, prog="parvox models")


def models(name: str = "", /, *, json: bool = False) -> None:
    """List every model, pooling, loss and distillation method that a recipe can name, with size and source.

    Multiply-accumulates (MACs) are those of one second of speech, without the front end's.

    Args:
        name: One of them, whose settings are to be shown.
        json: Print one JSON object.
    """
    if name:
        describe(name, json=json)
    else:
        overview(json=json)


def overview(*, json: bool) -> None:
    """Print the list."""
    encoders = [_model(name, made) for name, made in progress(list(configurations()), "counting", unit="model")]
    poolings = [_pooling(entry) for entry in _sorted(POOLINGS)]
    losses = [_loss(entry) for entry in _sorted(LOSSES)]
    methods = [{"name": entry.name, "source": entry.source} for entry in _sorted(METHODS)]
    if json:
        print(json_format.dumps({"models": encoders, "poolings": poolings, "losses": losses, "distillation": methods}))
        return
    blocks = [
        aligned(
            [
                ("model", "parameters", "MACs, 1 s", "dim", "pooling"),
                *((*_size(row, "embedding_dim"), row["pooling"]) for row in encoders),
            ],
            right=(1, 2, 3),
        ),
        aligned(
            [
                ("pooling", "parameters", "MACs, 1 s", "gives", "on frames of"),
                *((*_size(row, "output_dim"), f"{row['encoder']} ({row['frames_dim']})") for row in poolings),
            ],
            right=(1, 2, 3),
        ),
        aligned(
            [
                ("loss", "parameters", "MACs", "speakers"),
                *(_size(row, "classes") for row in losses),
            ],
            right=(1, 2, 3),
        ),
        ["distillation", *(row["name"] for row in methods)],
        _sources([entry for registry, _ in _KINDS.values() for entry in _sorted(registry)]),
    ]
    print("\n\n".join("\n".join(block) for block in blocks))
    print("\nparvox models NAME shows the settings of one.")
    print("parvox info RECIPE.yaml shows a recipe's model layer by layer.")


def describe(name: str, *, json: bool) -> None:
    """Print what a model, pooling, loss or distillation method is, and its settings."""
    found = [
        _described(entry, kind, section.format(name=entry.name))
        for kind, (registry, section) in _KINDS.items()
        for entry in registry
        if entry.name == (SIZES[name].encoder if name in SIZES and kind == "model" else name)
    ]
    if not found:
        known = {entry.name for registry, _ in _KINDS.values() for entry in registry} | set(SIZES)
        raise RecipeError(f"unknown name {name!r}: {nearest(name, known)}")
    for told in found:
        if told["kind"] == "model":
            made = SIZES.get(name, Configuration(encoder=name))
            told |= _model(name, made) | {"poolings": _fitting(made)}
        if told["kind"] == "pooling":
            goes_on = [entry.name for entry in _sorted(ENCODERS) if name in _fitting(Configuration(encoder=entry.name))]
            told |= _pooling(POOLINGS[name]) | {"encoders": goes_on}
    if json:
        print(json_format.dumps(found[0] if len(found) == 1 else found))
    else:
        print("\n\n".join(_text(told) for told in found))


def _sources(entries: list[Entry]) -> list[str]:
    """What each is after, wrapped: a column for it would be wider than most terminals."""
    room, widest = _width(), max(len(entry.name) for entry in entries)
    lines = ["sources"]
    for entry in entries:
        first = f"  {entry.name:<{widest}}  "
        lines += textwrap.wrap(
            entry.source, room, initial_indent=first, subsequent_indent=" " * len(first), break_on_hyphens=False
        )
    return lines


def _width() -> int:
    """Of text."""
    return min(110, shutil.get_terminal_size().columns)


def _size(row: dict[str, Any], third: str) -> tuple[str, str, str, str]:
    """What the tables have in common."""
    macs = row["macs"] if "macs" in row else row["macs_1s"]
    return row["name"], f"{row['parameters']:,}", millions(macs), f"{row[third]:,}"


def _sorted(registry: Registry[Any]) -> list[Entry]:
    return sorted(registry, key=lambda entry: entry.name)


def _model(name: str, made: Configuration) -> dict[str, Any]:
    settings = made.settings()
    model = SpeakerModel(settings)
    costs = cost(model)
    return {
        "name": name,
        "recipe": made.section(),
        "parameters": costs.parameters,
        "macs_1s": costs.macs,
        "feature_macs_1s": costs.feature_macs,
        "embedding_dim": settings.embedding_dim,
        "pooling": POOLINGS.name_of(settings.pooling),
        "head": settings.head,
        "least_s": model.min_samples / settings.features.sample_rate_hz,
        "source": ENCODERS[made.encoder].source,
    }


def _fitting(made: Configuration) -> list[str]:
    """Names of the poolings that read what an encoder gives."""
    settings = made.settings()
    encoder, found = settings.encoder.build(settings.features.bins), []
    for entry in _sorted(POOLINGS):
        with contextlib.suppress(RecipeError):
            entry.settings().build(encoder)
            found.append(entry.name)
    return found


def _pooling(entry: Entry) -> dict[str, Any]:
    """What a pooling costs on the frames of the encoder that has it by default."""
    usual = [other.name for other in _sorted(ENCODERS) if entry.name == getattr(other.settings, "default_pooling", "")]
    if _FALLBACK in usual or not usual:
        usual = [_FALLBACK, *(other.name for other in _sorted(ENCODERS))]
    encoder = next(name for name in usual if entry.name in _fitting(Configuration(encoder=name)))
    model = SpeakerModel(Configuration(encoder=encoder, pooling=entry.name).settings())
    macs = sum(layer.macs for layer in layers(model) if layer.name.split(".")[0] == "pooling")
    return {
        "name": entry.name,
        "encoder": encoder,
        "frames_dim": model.encoder.frames_dim,
        "output_dim": model.pooling.output_dim,
        "parameters": count_parameters(model.pooling),
        "macs_1s": macs,
        "source": entry.source,
    }


def _loss(entry: Entry) -> dict[str, Any]:
    parameters = count_parameters(entry.settings().build(_DIM, _CLASSES))
    return {
        "name": entry.name,
        "embedding_dim": _DIM,
        "classes": _CLASSES,
        "parameters": parameters,
        "macs": _DIM * _CLASSES,
        "source": entry.source,
    }


def _described(entry: Entry, kind: str, section: str) -> dict[str, Any]:
    """An entry with its documentation and its settings."""
    helps, kinds = descriptions(entry.settings), typing.get_type_hints(entry.settings)
    summary = inspect.getdoc(entry.settings) or ""
    return {
        "name": entry.name,
        "kind": kind,
        "source": entry.source,
        "description": summary,
        "section": section,
        "settings": [
            {
                "name": field.name,
                "type": _type(kinds[field.name]),
                "default": None if field.default is dataclasses.MISSING else field.default,
                "help": helps.get(field.name, ""),
            }
            for field in dataclasses.fields(entry.settings)
        ],
    }


def _type(kind: Any) -> str:
    """A type in words."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return ", ".join(map(str, inner))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_type(each) for each in inner)
    if origin is tuple:
        return f"list of {_type(inner[0])}" if inner[-1] is ... else f"{len(inner)} × {_type(inner[0])}"
    return "null" if kind is type(None) else getattr(kind, "__name__", str(kind))


def _text(told: dict[str, Any]) -> str:
    """What is told of an entry, for reading."""
    width = _width()
    paragraphs = [" ".join(part.split()) for part in told["description"].split("\n\n")]
    lines = [f"{told['name']}: {told['kind']}", f"source: {told['source']}", ""]
    for paragraph in paragraphs:
        lines += [*textwrap.wrap(paragraph, width), ""]
    if "recipe" in told:
        lines += [
            *textwrap.wrap(
                f"{told['parameters']:,} parameters; {millions(told['macs_1s'])} multiply-accumulates for 1 s of "
                f"speech, and {millions(told['feature_macs_1s'])} for features; takes {told['least_s']:.3f} s or more.",
                width,
            ),
            *textwrap.wrap(
                f"Unless said otherwise: embeddings of {told['embedding_dim']} (model.embedding_dim), head "
                f"{told['head']} (model.head), pooling {told['pooling']} (model.pooling.name).",
                width,
            ),
            *textwrap.wrap(f"poolings that go with it: {', '.join(told['poolings'])}", width),
            "accuracy and speed beside the others': docs/models.md",
            "",
            yaml.safe_dump({"model": told["recipe"]}, sort_keys=False).rstrip(),
            "",
        ]
    if "encoders" in told:
        lines += [
            *textwrap.wrap(
                f"Gives {told['output_dim']:,} numbers for frames of {told['frames_dim']:,} ({told['encoder']}).", width
            ),
            *textwrap.wrap(f"encoders it goes on: {', '.join(told['encoders'])}", width),
            "",
        ]
    lines.append(f"settings, in a recipe under {told['section']}:" if told["settings"] else "no settings")
    for setting in told["settings"]:
        default = _default(setting["default"])
        lines.append(f"  {setting['name']}: {setting['type']} (default: {default})")
        lines += textwrap.wrap(setting["help"], width, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def _default(value: Any) -> str:
    return "null" if value is None else str(list(value) if isinstance(value, tuple) else value)
