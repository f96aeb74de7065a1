"""The text of a recipe, and overrides from the command line, become plain values, each checked for name and type.

A section that offers a choice (the model, its pooling, the loss, the distillation methods) is named first and
decides which fields follow. Nothing in a recipe can execute code: names are looked up in registries, values are data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from parvox.data.settings import AugmentationSettings, DataSettings
from parvox.distillation import METHODS
from parvox.errors import RecipeError
from parvox.losses import LOSSES
from parvox.models import ENCODERS, POOLINGS
from parvox.models.catalogue import SIZES
from parvox.models.frontend import FbankSettings
from parvox.models.speaker_model import HEADS
from parvox.registry import Registry
from parvox.settings import Parser, add_settings, one_line, parse
from parvox.training.settings import TrainingSettings
from parvox.training.start import laid_over, recipe_path
from parvox.training.teacher_settings import TEACHER_SECTIONS

DEFAULT_MODEL = "ecapa_tdnn"
DEFAULT_LOSS = "aam_softmax"
PAIR_FIELDS = ("teacher", "alongside", "cache", "speaker_weight")
"""Of the distillation section, what is said of the pair."""
_MOST_VALUES = 10_000  # of a recipe file; a long one has two hundred
_DEEPEST = 20  # sections within sections; a deep recipe has four
_LARGEST = 2**63 - 1
_RESERVED = (*PAIR_FIELDS, *TEACHER_SECTIONS)  # of the distillation section; all else there names a method


class _Loader(yaml.SafeLoader):
    """Plain data, and no key twice: YAML would take the last and say nothing."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        repeated = [key for key in keys if keys.count(key) > 1]
        if repeated:
            raise yaml.YAMLError(f"{repeated[0]} stands there twice, line {node.start_mark.line + 1} and after")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The plain data in a YAML file.

    Raises:
        RecipeError: it is missing, unreadable, or holds no mapping.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise RecipeError(
            f"cannot read recipe {path}: {error.strerror or error}; give the path of a YAML file"
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"recipe {path} is not a text file; give a YAML file") from error
    except RecursionError as error:
        raise RecipeError(f"recipe {path} is nested too deeply; expected sections with fields") from error
    except (yaml.YAMLError, ValueError, KeyError, AttributeError) as error:
        # the last three of values that the loader cannot make, such as the 45th of a month
        raise RecipeError(f"recipe {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if data is None:
        return {}
    _expect_plain_values(data, path)
    if not isinstance(data, dict):
        raise RecipeError(f"recipe {path} holds no sections; expected a mapping with model:, loss:, training: …")
    return data


def _expect_plain_values(data: Any, path: Path) -> None:
    """Values that a recipe has a use for, and not too many.

    A few lines of references to references can stand for more values than any memory holds, or for themselves.
    """
    waiting, values = [(data, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        values += 1
        if depth > _DEEPEST:
            raise RecipeError(f"recipe {path} is nested too deeply; expected sections with fields")
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise RecipeError(f"recipe {path} holds a whole number of more than 64 bits; expected a smaller one")
        if isinstance(value, str) and "\0" in value:
            raise RecipeError(f"recipe {path} holds a text with a zero character; expected none")
        if isinstance(value, bytes | set):
            raise RecipeError(f"recipe {path} holds a {type(value).__name__}; expected text, numbers, lists and fields")
        if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
            odd = next(key for key in value if not isinstance(key, str))
            raise RecipeError(f"recipe {path} has {str(odd)[:60]!r} for the name of a field; expected text")
        if values > _MOST_VALUES:
            raise RecipeError(
                f"recipe {path} holds more than {_MOST_VALUES} values, each counted wherever it is referred to; "
                "expected sections with fields"
            )
        below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting += [(each, depth + 1) for each in below]


def parse_recipe(
    path: Path | None,
    argv: list[str],
    prog: str,
    description: str = "",
    extend: Callable[[Parser], None] | None = None,
    defaults: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Parse a recipe file and overrides.

    The file and the overrides are looked at first for the names they choose; the parser is then made of exactly the
    fields that those names have, so that help and errors speak of nothing else.

    Args:
        path: Recipe file, or None for the defaults.
        argv: Overrides, later ones win.
        prog: How the command is called, for errors.
        description: For ``--help``.
        extend: Called with the parser, to add the command's own arguments.
        defaults: Sections to offer even where neither file nor overrides name them.

    Returns:
        The parsed values by section.
    """
    data = {**(defaults or {}), **(read_yaml(path) if path else {})}
    init = chosen(argv, "init", {"name": data["init"]} if data.get("init") else {}, "")
    if init and "model" not in data:  # what such a recipe leaves out is as in the run it starts from
        data, path = laid_over(read_yaml(recipe_path(init)), data), path or recipe_path(init)
    model = _section(data, "model")
    name = chosen(argv, "model.name", model, DEFAULT_MODEL)
    if name in SIZES:
        raise RecipeError(
            f"model.name: {name} given, which is a size of {SIZES[name].encoder}; parvox models {name} shows the model "
            "section that gives it"
        )
    encoder = ENCODERS[name]
    default_pooling = getattr(encoder.settings, "default_pooling")  # noqa: B009
    of_pooling, of_loss = _section(model, "pooling", "model."), _section(data, "loss")
    pooling = POOLINGS[chosen(argv, "model.pooling.name", of_pooling, default_pooling)]
    loss = LOSSES[chosen(argv, "loss.name", of_loss, DEFAULT_LOSS)]
    model = _of_choice(model, encoder.name, keep=("pooling", "embedding_dim", "head", "features"))
    if of_pooling:
        model = {**model, "pooling": _of_choice(of_pooling, pooling.name)}
    # what both losses have is said of both
    of_loss = _of_choice(of_loss, loss.name, keep=tuple(field.name for field in dataclasses.fields(loss.settings)))
    data |= {key: part for key, part in (("model", model), ("loss", of_loss)) if key in data}
    data, argv = _taken_out(data, argv)
    methods = _methods(data, argv)

    parser = Parser(prog=prog, description=description, usage=f"{prog} [RECIPE.yaml] [options]")
    if extend:
        extend(parser)
    parser.add_argument("--corpus", type=str, default="", help="Folder of a prepared corpus (parvox prepare).")
    parser.add_argument("--seed", type=int, default=1, help="Decides weights, order and every random draw.")
    parser.add_argument(
        "--init",
        type=str,
        default="",
        help="Finished run to start from: its weights and, unless the recipe has a model section, its recipe.",
    )
    add_choice(parser, ENCODERS, encoder.name, "model", encoder.settings)
    parser.add_argument(
        "--model.embedding_dim",
        type=int,
        default=encoder.settings.default_embedding_dim,  # type: ignore[attr-defined]
        help="Size of the embedding.",
    )
    parser.add_argument(
        "--model.head",
        type=str,
        default=encoder.settings.default_head,  # type: ignore[attr-defined]
        help=f"From pooled vector to embedding: {', '.join(HEADS)}.",
    )
    add_choice(parser, POOLINGS, pooling.name, "model.pooling", pooling.settings)
    add_settings(parser, FbankSettings, "model.features")
    add_choice(parser, LOSSES, loss.name, "loss", loss.settings)
    if methods or "distillation" in data:
        parser.add_argument(
            "--distillation.teacher",
            type=list[str] | str,
            default="",
            help="The teacher: a run folder, MODEL.onnx, hf:FOLDER of the transformers library, what fit-head wrote, "
            "self for the student's own moving average, or a team: [ONE, OTHER]",
        )
        parser.add_argument(
            "--distillation.alongside",
            type=str,
            default="",
            help="In place of a teacher: the recipe of one that is trained at the same time.",
        )
        parser.add_argument(
            "--distillation.cache",
            type=str,
            default="",
            help="Folder that keeps the teacher's embeddings, for other students that hear the same items.",
        )
        parser.add_argument(
            "--distillation.speaker_weight", type=float, default=1.0, help="Weight of the student's own speaker loss."
        )
        for name, settings in TEACHER_SECTIONS.items():
            add_settings(parser, settings, f"distillation.{name}")
    for name in methods:
        add_settings(parser, METHODS[name].settings, f"distillation.{name}")
    add_settings(parser, DataSettings, "data")
    add_settings(parser, AugmentationSettings, "augmentation")
    add_settings(parser, TrainingSettings, "training")
    file_options = as_options(data, parser, str(path))
    return parse(parser, file_options + argv).as_dict()


def _section(data: dict[str, Any], name: str, prefix: str = "") -> dict[str, Any]:
    section = data.get(name) or {}
    if not isinstance(section, dict):
        raise RecipeError(f"recipe field {prefix}{name}: {section!r} given; expected fields under it, such as name:")
    return section


def _of_choice(section: dict[str, Any], name: str, keep: tuple[str, ...] = ()) -> dict[str, Any]:
    """A section without the fields of the choice that it names, where an override names another; `keep` stay."""
    if section.get("name", name) == name:
        return section
    return {key: value for key, value in section.items() if key in keep}


def chosen(argv: list[str], key: str, section: dict[str, Any], default: str) -> str:
    """The name that `argv` or the recipe's section chooses."""
    for position in reversed(range(len(argv))):
        word = argv[position]
        if word.startswith(f"--{key}="):
            return word.partition("=")[2]
        if word == f"--{key}" and position + 1 < len(argv):
            return argv[position + 1]
    return str(section.get("name", default))


def _methods(data: dict[str, Any], argv: list[str]) -> list[str]:
    """Names of the distillation methods that the recipe or the overrides mention, each known."""
    names = [name for name in _section(data, "distillation") if name not in _RESERVED]
    for word in argv:
        if word.startswith("--distillation."):
            name = word.split(".")[1].partition("=")[0]
            if name not in (*names, *_RESERVED):
                names.append(name)
    return [METHODS[name].name for name in names]


def _taken_out(data: dict[str, Any], argv: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Recipe and overrides without the methods that ``--distillation.METHOD none`` takes out of the recipe."""
    section, kept = dict(_section(data, "distillation")), []
    words = iter(argv)
    for word in words:
        key, equals, value = word.partition("=")
        name = key.removeprefix("--distillation.")
        if name == key or name in _RESERVED or "." in name:
            kept.append(word)
            continue
        if (value if equals else next(words, "")) != "none":
            raise RecipeError(
                f"{word} given; expected --{key.lstrip('-')} none, which takes the method out of the recipe, or one of "
                f"its settings, such as --distillation.{name}.weight"
            )
        if any(each.startswith(f"{key}.") for each in kept):
            raise RecipeError(f"{key} none given after its settings; give one or the other")
        section.pop(METHODS[name].name, None)
    return ({**data, "distillation": section} if section else data), kept


def add_choice(parser: Parser, registry: Registry[Any], name: str, prefix: str, settings: type) -> None:
    """Give `parser` the name of a registered choice and the fields that go with it."""
    known = ", ".join(sorted(entry.name for entry in registry))
    parser.add_argument(f"--{prefix}.name", type=str, default=name, help=f"One of: {known}.")
    add_settings(parser, settings, prefix, title=f"{name}, {(settings.__doc__ or '').strip().splitlines()[0]}")


def as_options(data: dict[str, Any], parser: Parser, source: str) -> list[str]:
    """A recipe file's data as command-line words, so that file and overrides meet the same checks."""
    known = set(parser.known_keys())
    options = []

    def walk(section: dict[str, Any], prefix: str) -> None:
        for key, value in section.items():
            name = f"{prefix}{key}"
            if "." in str(key):
                raise RecipeError(
                    f"{source}: {name!r} given; expected {str(key).partition('.')[0]}: with its fields below it"
                )
            section_known = any(each.startswith(f"{name}.") for each in known)
            if section_known and name not in known and value is not None and not isinstance(value, dict):
                raise RecipeError(f"{source}: {name}: {str(value)[:60]!r} given; expected fields under it")
            if name in known and isinstance(value, dict):
                raise RecipeError(f"{source}: {name}: fields given; expected a value")
            if name not in known and isinstance(value, dict) and (value or section_known):
                walk(value, f"{name}.")
            elif name not in known and value is None and section_known:
                continue  # an empty section: all defaults
            elif value is None and isinstance(parser.get_default(name), str):
                continue  # else text would be the word "null"
            elif name not in known:
                raise RecipeError(f"{source}: {one_line(f'Key {name!r} is not expected', sorted(known))}")
            else:
                options.append(f"--{name}={_word(value)}")

    walk(data, "")
    return options


def _word(value: Any) -> str:
    """A YAML value as jsonargparse reads it back from a command line."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True).replace("\n...", "").strip()
