"""Processes of a pool do not outlive the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from parvox.processors import available_processors

POOL = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from parvox.processors import end_with_parent

def process():
    return os.getpid()

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent)
    print(pool.submit(process).result(), flush=True)
    pool.submit(time.sleep, 600)
    time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for a process in /proc")
def test_a_worker_at_work_ends_with_its_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = Path("/proc") / parent.stdout.readline().strip() / "stat"
        assert not ended(worker)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        end = time.monotonic() + 60
        while not ended(worker) and time.monotonic() < end:
            time.sleep(0.05)
    assert ended(worker)


def ended(stat: Path) -> bool:
    """Whether a process is gone, or only waits for somebody to ask how it ended."""
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_there_is_a_processor() -> None:
    assert 1 <= available_processors() <= (os.cpu_count() or 1)
