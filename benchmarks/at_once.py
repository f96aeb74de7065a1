"""Independent runs side by side, each with its share of the processors.

A small model's step is many short operations, which a second core hardly shortens: two trainings side by side, with a
core each, end well before the same two one after the other with both.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from parvox.processors import available_processors, end_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(work: Callable[[Job], Result], jobs: Iterable[Job], at_once: int) -> Iterator[tuple[Job, Result]]:
    """Each job with its result, as they end.

    Args:
        work: What is done; a function of a module, for other processes to find it.
        jobs: Whatever it takes.
        at_once: Processes; with 1 it is done here, in order.
    """
    if at_once == 1:
        for job in jobs:
            yield job, work(job)
        return
    threads = max(1, available_processors() // at_once)
    os.environ |= {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}  # the processes to come read it
    with ProcessPoolExecutor(at_once, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        futures = {pool.submit(work, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
