"""Plain tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows as lines of columns, two spaces apart.

    Args:
        rows: Cells of each row; a row may have fewer than others.
        right: Numbers of the columns that are set flush right.
    """
    columns = max(map(len, rows), default=0)
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(columns)]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    ]


def millions(count: int) -> str:
    """A count in millions."""
    return f"{count / 1e6:,.1f} M"
