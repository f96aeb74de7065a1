"""How many processors there are to use, and processes on them."""

from __future__ import annotations

import multiprocessing
import os
import threading


def available_processors() -> int:
    """Those that this process may run on, where the system tells; all of the machine's otherwise."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent() -> None:
    """Have this process of a pool end when the one that started it does, however that was ended.

    A pool's processes wait for tasks on a queue that they hold open themselves: after a parent that was killed they
    would work off what is queued, and then wait for ever with a model in memory.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)  # no clean-up: nobody is there for what this process would hand over

    threading.Thread(target=watch, name="end_with_parent", daemon=True).start()
