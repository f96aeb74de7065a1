"""Typed settings from recipes and command lines: jsonargparse does the work, this keeps its errors to one line."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import shutil
import typing
import warnings
from pathlib import Path
from typing import Any, NoReturn

import docstring_parser
import jsonargparse

from parvox.errors import ParvoxError, nearest


class UsageError(ParvoxError):
    """A command line that does not fit the command."""


class Parser(jsonargparse.ArgumentParser):
    """jsonargparse's parser, with one-line errors that name the nearest valid option."""

    def __init__(self, prog: str, description: str = "", usage: str | None = None, **kwargs: Any) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            formatter_class=HelpFormatter,
            allow_abbrev=False,
            exit_on_error=False,
            **kwargs,
        )

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise `UsageError` instead of printing usage and exiting."""
        see = f" (see {self.prog} --help)" if self.prog.startswith("parvox ") else ""
        raise UsageError(one_line(message, self.known_keys()) + see) from ex

    def format_help(self, formatter: Any = None) -> str:
        """The help text; of what is unset by default the description says what that means."""
        return re.sub(r",\s+default:\s+null(?=\))|\s+\|\s+null\b", "", super().format_help(formatter))

    def known_keys(self) -> list[str]:
        """Every option and recipe key, dotted."""
        names = [action.dest for action in self._actions if action.dest]
        return [name for name in names if name != "help" and not name.startswith("print_")]


def one_line(message: str, known: list[str]) -> str:
    """What jsonargparse says, on one line, in words of the trade, with the nearest valid key where one was wrong.

    Args:
        message: The library's message.
        known: Every valid dotted key.
    """
    text = " ".join(message.split())
    unknown = re.search(r"unrecognized arguments: (\S+)", text)
    if unknown:
        key = unknown[1].lstrip("-").split("=")[0]
        if not unknown[1].startswith("-"):
            return f"unexpected argument {unknown[1]!r}"
        return f"unknown option '--{key}': {_near(key, known)}"
    group = re.search(r"(?:Group '([\w.]+)'|group '([\w.]+)') does not accept option '([\w.]+)'", text)
    if group:
        key = f"{group[1] or group[2]}.{group[3]}"
        return f"unknown field {key!r}: {_near(key, known)}"
    stray = re.search(r"(?:Key|key|option) [\"']([\w.]+)[\"'] is not expected", text) or re.search(
        r"[Nn]o action for (?:destination )?key [\"']([\w.]+)[\"']", text
    )
    if stray:
        return f"unknown field {stray[1]!r}: {_near(stray[1], known)}"
    wrong = re.search(r"Parser key \"([\w.]+)\"(?: element \d+)?: ?(.*)", text) or re.search(
        r"^argument (?:--)?([\w.]+): (?!expected at least)(.*)", text
    )
    if wrong:
        return f"{wrong[1]}: {_plain_types(wrong[2])}"
    return _plain_types(text)


def text(given: str) -> str:
    """An argument as it was typed."""
    return given


def path(given: str) -> Path:
    """A path as it was typed, which need not be UTF-8; never nothing, which `Path` would take for this folder."""
    if not given:
        raise argparse.ArgumentTypeError("'' given; expected a path")
    return Path(given)


def _near(key: str, known: list[str]) -> str:
    """The nearest of the keys that stand beside `key`; of the sections, where `key` names none that exists."""
    section, _, field = key.rpartition(".")
    elsewhere = [name for name in known if "." in name and name.rpartition(".")[2] == field]
    if not section and len(elsewhere) == 1:  # known by its last name
        return f"did you mean {elsewhere[0]!r}?"
    sections = {name.rpartition(".")[0] for name in known if "." in name}
    if not section or not sections:
        return nearest(key, {name.partition(".")[0] for name in known})
    beside = [name for name in known if name.rpartition(".")[0] == section]
    if not beside:
        return nearest(section, sections)
    return nearest(key, beside)


def _plain_types(text: str) -> str:
    """Types as a user of recipes would name them."""
    text = re.sub(r"<class '([\w.]+)'>", lambda match: match[1].rpartition(".")[2], text)
    text = re.sub(r"typing\.Literal\[(.*?)\]", lambda match: match[1].replace("'", ""), text)
    if "surrogates not allowed" in text:
        return "text that is not UTF-8 given; rename it"
    union = re.search(r"Subtypes: \[(.*)\] Errors: .*Given value:(.*)", text)
    if union:
        kinds = union[1].replace(", NoneType", "")
        return f"expected {'one of ' if ',' in kinds else ''}{kinds}; got {union[2].strip() or 'nothing'}"
    text = re.sub(r"Expected an? ([\w, ]+)\.", r"expected \1;", text)
    text = re.sub(r"expected ([^;]*,[^;]*);", r"expected one of \1;", text)
    text = text.replace("expected tuple;", "expected a list such as [1,2];")
    return re.sub(r"Got value:(.*)", lambda match: f"got {match[1].strip() or 'nothing'}", text)


def parse(parser: Parser, argv: list[str]) -> jsonargparse.Namespace:
    """Parse `argv`, turning every complaint into a `UsageError`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return parser.parse_args(argv)
        except jsonargparse.ArgumentError as error:
            parser.error(str(error), error)


def add_settings(parser: Parser, settings: type, prefix: str, title: str | None = None) -> None:
    """Give `parser` an option ``--PREFIX.FIELD`` for each field of a settings dataclass.

    Args:
        parser: Where to add.
        settings: A dataclass whose fields have types, defaults and a docstring each.
        prefix: Dotted path of the section in a recipe.
        title: Heading in the help text; the first line of the dataclass's docstring by default.
    """
    helps = descriptions(settings)
    types = typing.get_type_hints(settings)
    heading = title or (settings.__doc__ or "").strip().splitlines()[0]
    group = parser.add_argument_group(f"{prefix}: {heading.rstrip('.')}")
    for field in dataclasses.fields(settings):
        default: Any = field.default
        factory: Any = field.default_factory
        if default is dataclasses.MISSING and factory is not dataclasses.MISSING:
            default = factory()
        name, kind, text = f"--{prefix}.{field.name}", types[field.name], helps.get(field.name, "")
        if default is dataclasses.MISSING:
            group.add_argument(name, type=kind, help=text, required=True)
        else:
            group.add_argument(name, type=kind, help=text, default=default)


def build_settings(settings: type, values: dict[str, Any] | Any) -> Any:
    """The settings dataclass filled with parsed values; lists become tuples where the field is one."""
    values = values if isinstance(values, dict) else vars(values)
    types = typing.get_type_hints(settings)
    return settings(
        **{
            name: tuple(value) if isinstance(value, list) and "tuple" in str(types[name]) else value
            for name, value in values.items()
        }
    )


def descriptions(documented: Any) -> dict[str, str]:
    """Parameter or field descriptions from a docstring (Google style, or a string under each field).

    A dataclass brings those of the dataclasses it inherits from.
    """
    if inspect.isclass(documented):
        line = list(reversed(documented.__mro__))
        family: list[type] = [kind for kind in line if dataclasses.is_dataclass(kind)] or [documented]
        params = [param for kind in family for param in docstring_parser.parse_from_object(kind).params]
    else:
        google = docstring_parser.DocstringStyle.GOOGLE
        params = docstring_parser.parse(inspect.getdoc(documented) or "", google).params
    return {param.arg_name: " ".join((param.description or "").split()) for param in params}


class HelpFormatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Descriptions as they were written, and room for dotted names and their help on one line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=min(110, shutil.get_terminal_size().columns))

    def _expand_help(self, action: argparse.Action) -> str:
        text = re.sub(
            r"<(?:class '(?:\w+\.)*|function )(\w+)(?:'| at 0x\w+)>", r"\1", str(super()._expand_help(action))
        )
        return text.replace(", default: )", ")").replace(" (default: False)", "")
