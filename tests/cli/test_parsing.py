import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from parvox.cli.parsing import call
from parvox.settings import UsageError


@dataclass(frozen=True, kw_only=True)
class Size:
    """How big."""

    width: int = 3
    """Across."""
    range_s: tuple[float, float] = (1.0, 2.0)
    """From and to, in seconds."""


def greet(
    name: str,
    others: list[str],
    *,
    times: int = 1,
    loud: bool = False,
    extra: list[str] | None = None,
    size: Size = Size(),
):
    """Greet people.

    And then some.

    Args:
        name: Whom first.
        others: Whom next.
        times: How often.
        loud: Whether to shout.
        extra: More of them.
        size: How big.
    """
    return name, others, times, loud, extra, size


def test_arguments_become_typed_parameters():
    argv = ["a", "b", "c", "--times", "2", "--loud", "--extra", "d", "e", "--size.width=5", "--size.range_s", "[2, 3]"]
    result = call(greet, argv, "parvox greet")
    assert result == ("a", ["b", "c"], 2, True, ["d", "e"], Size(width=5, range_s=(2.0, 3.0)))


def test_defaults():
    assert call(greet, ["a", "b"], "parvox greet") == ("a", ["b"], 1, False, None, Size())


def take(path: Path, more: list[Path], *, out: Path | None = None, name: str | None = None):
    """Take paths.

    Args:
        path: One.
        more: Others.
        out: Another.
        name: A name.
    """
    return path, more, out, name


@pytest.mark.parametrize("typed", ["~", "null", "# 1", "a: b", "[x]", "1e3", "a b", os.fsdecode(b"\xff")])
def test_names_and_paths_are_taken_as_typed(typed):
    given = call(take, [typed, typed, f"--out={typed}", f"--name={typed}"], "parvox take")
    assert given == (Path(typed), [Path(typed)], Path(typed), typed)


def test_an_empty_path_is_not_this_folder():
    for argv, name in ((["", "a"], "path"), (["a", ""], "more"), (["a", "b", "--out", ""], "out")):
        with pytest.raises(UsageError, match=f"^{name}: '' given; expected a path"):
            call(take, argv, "parvox take")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["a"], "required: others"),
        (["a", "b", "--timse", "2"], "did you mean 'times'"),
        (["a", "b", "--time", "2"], "unknown option '--time'"),  # no abbreviations: they break when options are added
        (["a", "b", "--times", "often"], "times: expected int"),
        (["a", "b", "--size.widht", "2"], "did you mean 'size.width'"),
        (["a", "b", "--times"], "expected one argument"),
    ],
)
def test_errors_are_one_line_and_name_the_nearest(argv, says):
    with pytest.raises(UsageError) as caught:
        call(greet, argv, "parvox greet")
    message = str(caught.value)
    assert says in message
    assert "\n" not in message
    assert "parvox greet --help" in message


def test_help_shows_docstrings_types_and_defaults(capsys):
    with pytest.raises(SystemExit) as stop:
        call(greet, ["--help"], "parvox greet")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for part in ("Greet people.", "And then some.", "Whom first.", "How often.", "default: 1", "Across.", "How big"):
        assert part in text
    assert "Args:" not in text
