"""Progress on standard error: a bar in a terminal, and elsewhere a line a minute."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

_LINE_EVERY_S = 60.0
_LINE = "{desc}: {n_fmt} of {total_fmt}, {elapsed} so far, {remaining} to go{postfix}"


class Bar(tqdm):
    """A bar, or lines in a file that somebody reads later; of the processes of one job, the first has it.

    Args:
        items: What to iterate over; None for a bar that `update` moves.
        what: Shown before the bar.
        total: How many there are, where `items` has no length.
        unit: What one item is called.
        done: How many were done before.
        scaled: Whether numbers are shown in thousands and millions.
    """

    monitor_interval = 0  # no thread: it is for bars that look at the clock now and then, and these always do

    def __init__(
        self,
        items: Iterable[Any] | None,
        what: str,
        *,
        total: int | None = None,
        unit: str = "it",
        done: int = 0,
        scaled: bool = False,
    ) -> None:
        if sys.stderr.isatty():
            drawn: dict[str, Any] = {"dynamic_ncols": True}
        else:
            drawn = {"file": _Lines(), "bar_format": _LINE, "mininterval": _LINE_EVERY_S, "delay": _LINE_EVERY_S}
        super().__init__(
            items,
            desc=what,
            total=total,
            unit=unit,
            unit_scale=scaled,
            initial=done,
            miniters=1,
            disable=not _first_process(),
            leave=False,
            **drawn,
        )


def progress(items: Iterable[T], what: str, *, total: int | None = None, unit: str = "it") -> Iterable[T]:
    """Iterate over `items` with a `Bar`.

    Args:
        items: What to iterate over.
        what: Shown before the bar.
        total: How many there are, where `items` has no length.
        unit: What one item is called.
    """
    bar: Iterable[T] = Bar(items, what, total=total, unit=unit)
    return bar


def tell(line: str) -> None:
    """Write a line on standard error, above a bar if there is one; of the processes of one job, the first does."""
    if _first_process():
        tqdm.write(line, file=sys.stderr)


def _first_process() -> bool:
    """By what torchrun, Lightning Fabric and SLURM tell the processes that they start."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return next((os.environ[name] for name in names if name in os.environ), "0") == "0"


class _Lines:
    """Standard error, for a bar that would draw over itself."""

    def write(self, text: str) -> None:
        """Write what is to be seen of the bar, if anything, as a line."""
        if text.strip():
            sys.stderr.write(f"{text.strip()}\n")

    def flush(self) -> None:
        """As of a file."""
        sys.stderr.flush()
