"""Progress bars that keep quiet when nobody watches."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], what: str, *, total: int | None = None, unit: str = "it") -> Iterable[T]:
    """Iterate over `items` with a bar on standard error; silent when that is not a terminal.

    Of the processes that torchrun starts, only the first has one.

    Args:
        items: What to iterate over.
        what: Shown before the bar.
        total: How many there are, where `items` has no length.
        unit: What one item is called.
    """
    bar: Iterable[T] = tqdm(
        items,
        desc=what,
        total=total,
        unit=unit,
        disable=not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0",
        leave=False,
        dynamic_ncols=True,
    )
    return bar
