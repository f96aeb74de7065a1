"""Work on arrays shared between the processor's cores, a block each at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import threadpool_limits

from parvox.processors import available_processors
from parvox.progress import progress


def in_blocks(work: Callable[[int, int], None], count: int, block: int, what: str = "") -> None:
    """Do rows `low` to `high` for every block of rows, on all cores.

    Matrix products inside `work` run on one thread each: those of a product that all cores share would go on waiting
    for the next one on the cores that the rest of the work needs.

    Args:
        work: Takes `low` and `high`; NumPy releases the interpreter's lock in nearly all it does.
        count: How many rows there are.
        block: How many at a time.
        what: Shown before a progress bar; none if empty.
    """
    lows = range(0, count, block)
    highs = (min(low + block, count) for low in lows)
    if len(lows) <= 1 or available_processors() == 1:
        _watch(map(work, lows, highs), what, len(lows))
        return
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(available_processors()) as pool:
        _watch(pool.map(work, lows, highs), what, len(lows))


def _watch(blocks: Iterable[None], what: str, total: int) -> None:
    for _ in progress(blocks, what, total=total, unit="block") if what else blocks:
        pass
