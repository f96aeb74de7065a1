"""The demo's table over several seeds: the split, the weights and every draw change with the seed.

    python benchmarks/demo.py CORPUS [--seeds 3] [--work runs/benchmark] [--size full]

Writes benchmarks/results/demo.csv, one row per model and seed and one per model over the seeds.
"""

from __future__ import annotations

import csv
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from parvox.cli.parsing import call
from parvox.demo import Row, run_demo
from parvox.training.engine import hardware

RESULTS = Path(__file__).parent / "results" / "demo.csv"


def benchmark(
    corpus: Path, *, seeds: int = 3, work: Path = Path("runs/benchmark"), size: Literal["full", "small"] = "full"
) -> None:
    """Run the demo with several seeds and print the mean table.

    Args:
        corpus: Folder of recordings with manifests.
        seeds: How many.
        work: Folder for the demos; one that is there is continued.
        size: Of each demo.
    """
    rows = {seed: run_demo(work / f"seed-{seed}", corpus=corpus, size=size, seed=seed) for seed in range(1, seeds + 1)}
    facts = {"hardware": hardware(), "commit": commit(), "corpus": corpus.resolve().name}
    table = [{"seed": str(seed), **asdict(row), **facts} for seed, made in rows.items() for row in made]
    table += [{"seed": "mean", **summary, **facts} for summary in over_seeds(list(rows.values()))]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in table for name in row)))
        writer.writeheader()
        writer.writerows(table)
    print(f"\n{seeds} seeds, {facts['hardware']}, commit {facts['commit']}")
    print("| model | parameters | MACs, 1 s | file | 3 s, one core | EER, mean of seeds [each] | minDCF |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for summary in over_seeds(list(rows.values())):
        name = summary["name"]
        each = ", ".join(f"{100 * row.eer:.2f}" for made in rows.values() for row in made if row.name == name)
        print(
            f"| {name} | {summary['parameters'] / 1e6:.2f} M | {summary['macs_1s'] / 1e6:.0f} M | "
            f"{summary['file_bytes'] / 1e3:.0f} kB | {summary['ms_3s']:.1f} ms | "
            f"{100 * summary['eer']:.2f} % [{each}] | {summary['min_dcf']:.3f} |"
        )


def over_seeds(tables: list[list[Row]]) -> list[dict[str, Any]]:
    """Each model's figures, averaged over the tables."""
    summaries = []
    for rows in zip(*tables, strict=True):
        means = {
            name: float(np.mean([getattr(row, name) for row in rows]))
            for name in ("parameters", "macs_1s", "file_bytes", "ms_3s", "eer", "min_dcf")
        }
        summaries.append({"name": rows[0].name, **means})
    return summaries


def commit() -> str:
    """The checkout's commit, with a mark where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    return (
        subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip() or "unknown"
    )


if __name__ == "__main__":
    import sys

    from parvox.errors import ParvoxError

    try:
        call(benchmark, sys.argv[1:], prog="benchmarks/demo.py")
    except ParvoxError as error:
        sys.exit(f"error: {error}")
