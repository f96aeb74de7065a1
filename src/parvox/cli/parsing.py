"""From a typed function to a command."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parvox.settings import Parser, add_settings, build_settings, descriptions, parse, path, text


def call(function: Callable[..., Any], argv: list[str], prog: str) -> Any:
    """Run `function` with arguments taken from `argv`.

    Required parameters become positional arguments, as do those before a slash, which may be left out if they have a
    default; the others become options. Lists take one or more words, booleans that
    default to False become flags, and a dataclass becomes a group of dotted options. The help text is the
    function's Google-style docstring.

    Args:
        function: A typed function.
        argv: Arguments after the command's name.
        prog: How the command is called, for usage and errors.

    Returns:
        What the function returns.

    Raises:
        UsageError: the arguments do not fit the function.
    """
    parser = Parser(prog=prog, description=summary(function))
    add_parameters(parser, function)
    values = parse(parser, argv).as_dict()
    for name, kind in typing.get_type_hints(function).items():
        if _is_settings(kind) and name in values:
            values[name] = build_settings(kind, values[name])
    parameters = inspect.signature(function).parameters.items()
    by_place = [values.pop(name) for name, parameter in parameters if parameter.kind is parameter.POSITIONAL_ONLY]
    return function(*by_place, **values)


def add_parameters(parser: Parser, function: Callable[..., Any]) -> None:
    """Give `parser` an argument for each parameter of `function`."""
    helps = descriptions(function)
    types = typing.get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, default, help_text = _as_typed(types[name]), parameter.default, helps.get(name, "")
        items = _as_typed(_list_of(kind))
        if _is_settings(kind):
            add_settings(parser, kind, name)
        elif default is parameter.empty and items:
            parser.add_argument(name, type=items, help=help_text, nargs="+")
        elif default is parameter.empty:
            parser.add_argument(name, type=kind, help=help_text)
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            parser.add_argument(name, type=kind, help=help_text, nargs="?", default=default)
        elif default is False:
            parser.add_argument(f"--{name}", action="store_true", help=help_text)
        elif items:
            parser.add_argument(f"--{name}", type=items, nargs="+", default=default, help=help_text)
        else:
            parser.add_argument(f"--{name}", type=kind, default=default, help=help_text)


def _as_typed(kind: Any) -> Any:
    """How to read an argument of type `kind`: names and paths are taken as they were typed.

    jsonargparse would read them as YAML first, where `~` and nothing at all are null and bytes that are not UTF-8 an
    error.
    """
    if kind in (Path, Path | None):
        return path
    return text if kind in (str, str | None) else kind


def _is_settings(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _list_of(kind: Any) -> Any:
    """The item type of `list[T]` or `list[T] | None`, else None."""
    for option in (kind, *typing.get_args(kind)):
        if typing.get_origin(option) is list:
            return typing.get_args(option)[0]
    return None


def summary(function: Callable[..., Any]) -> str:
    """The docstring of `function` up to its sections."""
    text = (inspect.getdoc(function) or "").partition("Args:")[0].partition("Raises:")[0].partition("Returns:")[0]
    return text.strip()
