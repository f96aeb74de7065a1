"""A results file that grows row by row, so that a benchmark can be stopped and continued."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from parvox.errors import ParvoxError
from parvox.files import atomic_file


class Rows:
    """The rows of a CSV file, each known by some of its columns.

    Args:
        path: The file; it need not exist.
        key: Names of the columns that tell rows apart.

    Raises:
        ParvoxError: the file lacks one of those columns.
    """

    def __init__(self, path: Path, key: Sequence[str]) -> None:
        self.path, self.key = path, tuple(key)
        self.rows: list[dict[str, str]] = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = list(csv.DictReader(file))
        lacking = [name for name in self.key if self.rows and name not in self.rows[0]]
        if lacking:
            raise ParvoxError(f"{path} has no column {', '.join(lacking)}; move it away, or give another --out")

    def find(self, **key: object) -> dict[str, str] | None:
        """The row of that key, or None."""
        wanted = tuple(str(key[name]) for name in self.key)
        return next((row for row in self.rows if tuple(row[name] for name in self.key) == wanted), None)

    def put(self, row: Mapping[str, object]) -> None:
        """Add a row, in the place of one with the same key, and write the file, whole or not at all."""
        text = {name: "" if value is None else str(value) for name, value in row.items()}
        old = self.find(**{name: text[name] for name in self.key})
        if old is None:
            self.rows.append(text)
        else:
            self.rows[self.rows.index(old)] = text
        columns = dict.fromkeys(name for each in self.rows for name in each)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic_file(self.path, overwrite=True) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a page; all columns but the first are set flush right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
