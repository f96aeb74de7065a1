"""Lines of the text files that people write and corpora bring: lists of trials, phrases, speakers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from parvox.errors import ParvoxError


def numbered_lines(path: Path, *, what: str, expected: str, error: type[ParvoxError]) -> Iterator[tuple[int, str]]:
    """Read a file line by line, so that it may be larger than memory.

    Args:
        path: A text file in UTF-8; a byte order mark is no part of its first line.
        what: What it is, for errors, such as ``trial list``.
        expected: What it should hold, for errors, or what to do about it, such as ``expected lines 'a b'``.
        error: The kind of error to raise.

    Yields:
        The number of each line that is not blank, from 1, and the line without the white space around it.
    """
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if stripped := line.strip():
                    yield number, stripped
    except UnicodeDecodeError as problem:
        raise error(f"{what} {path} is not a text file in UTF-8; {expected}") from problem
    except OSError as problem:
        raise error(f"cannot read {what} {path}: {problem.strerror or problem}; {expected}") from problem
