"""How many processors there are to use."""

from __future__ import annotations

import os


def available_processors() -> int:
    """Those that this process may run on, where the system tells; all of the machine's otherwise."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
