"""Where and when a result was made."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path

from parvox import __version__


def environment() -> dict[str, str]:
    """Parvox's version, its commit where it runs from a checkout, the machine and the date."""
    return {
        "parvox_version": __version__,
        "commit": _commit(),
        "hardware": f"{_processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            for line in info:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of the checkout that this file belongs to, with "+changes" if it is not as committed; else empty."""
    here = Path(__file__).resolve()
    root = here.parents[3]
    if not (root / ".git").exists():
        return ""
    git = ["git", "-C", str(root)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", "--", "src"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit.stdout.strip()[:12] + ("+changes" if changed.stdout.strip() else "")
