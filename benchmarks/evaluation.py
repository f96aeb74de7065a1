"""How fast evaluation is, each figure a ratio of two things timed in the same run.

    python benchmarks/evaluation.py [--scale 1.0] [--repeats 3] [--only measures asnorm bootstrap]

- measures: EER, minDCF at two priors and the full DET against scikit-learn's `roc_curve` on 10^7 scores; and on 10^8
  scores the peak memory as a multiple of the scores' own.
- asnorm: AS-norm of 10^7 trials among 10^5 embeddings of 192 numbers, 10^4 cohort speakers, K = 300, against the bare
  product of the two matrices.
- bootstrap: 1,000 replicates by speaker of EER and minDCF over 10^6 trials of 1,000 speakers, against one evaluation.

Writes benchmarks/results/evaluation.csv. A scale below 1 makes everything smaller, to see that it runs.
"""

from __future__ import annotations

import csv
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from parvox.cli.parsing import call
from parvox.errors import ParvoxError
from parvox.evaluation.bootstrap import bootstrap
from parvox.evaluation.environment import environment
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.normalisation import cohort_statistics, normalise_scores
from parvox.evaluation.resampling import speaker_weights
from parvox.evaluation.scoring import pair_products
from parvox.files import atomic_file

RESULTS = Path(__file__).parent / "results" / "evaluation.csv"
Part = Literal["measures", "asnorm", "bootstrap"]


def benchmark(scale: float = 1.0, repeats: int = 3, only: list[Part] | None = None, out: Path = RESULTS) -> None:
    """Time evaluation and print the ratios.

    Args:
        scale: Of the number of scores, embeddings and trials.
        repeats: Runs of each; the fastest counts.
        only: Parts to run; all unless given.
        out: CSV file to write.
    """
    if not 0 < scale <= 1 or repeats < 1:
        raise ParvoxError(
            f"scale {scale} and {repeats} repeats given; expected a scale above 0 up to 1, 1 repeat or more"
        )
    parts: dict[Part, Callable[[float, int], list[dict[str, Any]]]] = {
        "measures": measures,
        "asnorm": asnorm,
        "bootstrap": bootstrap_by_speaker,
    }
    rows = []
    for name in only or list(parts):
        for row in parts[name](scale, repeats):
            rows.append(row)
            print(f"{row['what']:<58} {row['value']:>8.2f}  {row['unit']:<28} wanted: {row['wanted']}", flush=True)
    facts = environment()
    with atomic_file(out, overwrite=True) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], *facts])
        writer.writeheader()
        writer.writerows(row | facts for row in rows)
    print(f"\n{facts['hardware']}, commit {facts['commit'] or 'unknown'}; written to {out}")


def measures(scale: float, repeats: int) -> list[dict[str, Any]]:
    """The classic measures against scikit-learn, and their memory."""
    from sklearn.metrics import roc_curve

    count = int(1e7 * scale)
    scores, labels = made_scores(count)
    theirs = fastest(lambda: roc_curve(labels, scores), repeats)
    ours = fastest(lambda: whole_det(scores, labels), repeats)
    del scores, labels
    many = int(1e8 * scale)
    scores, labels = made_scores(many)
    gc.collect()
    before = reset_peak()
    started = time.perf_counter()
    whole_det(scores, labels)
    seconds = time.perf_counter() - started
    grown = peak_bytes() - before
    return [
        row(f"roc_curve / all measures, {count:.0e} scores", theirs / ours, "times faster", "5 or more", theirs, ours),
        row(
            f"peak memory, {many:.0e} scores",
            1 + grown / scores.nbytes,
            "× the scores, they included",
            "3 or less",
            seconds,
            float(grown),
        ),
    ]


def asnorm(scale: float, repeats: int) -> list[dict[str, Any]]:
    """AS-norm against the matrix product in it."""
    rng = np.random.default_rng(0)
    size, members, trials = int(1e5 * scale), max(400, int(1e4 * scale)), int(1e7 * scale)
    embeddings, cohort = unit(rng, size), unit(rng, members)
    enrol, test = (rng.integers(size, size=trials, dtype=np.int32) for _ in range(2))
    block = np.empty((min(size, 1000), members), np.float32)
    other_way = np.ascontiguousarray(cohort.T)

    def product() -> None:
        for start in range(0, size, len(block)):
            part = embeddings[start : start + len(block)]
            np.matmul(part, other_way, out=block[: len(part)])

    def whole() -> None:
        scores = pair_products(embeddings, embeddings, enrol, test)
        statistics = cohort_statistics(embeddings, cohort, 300)
        normalise_scores(scores, enrol, test, statistics, statistics, "asnorm")

    bare = fastest(product, repeats)
    gc.collect()
    reset_peak()
    ours = fastest(whole, repeats)
    peak = peak_bytes()
    what = f"{trials:.0e} trials, {size:.0e} × {members:.0e}"
    return [
        row(f"matrix product / AS-norm, {what}", bare / ours, "of its speed", "0.33 or more", bare, ours),
        row(f"peak memory of the process, {what}", peak / 1e9, "GB", "2 or less", ours, float(peak)),
    ]


def bootstrap_by_speaker(scale: float, repeats: int) -> list[dict[str, Any]]:
    """A thousand replicates against one evaluation."""
    rng = np.random.default_rng(0)
    count, speakers, replicates = int(1e6 * scale), 1000, 1000
    rows = []
    for share in (0.5, 0.02):
        enrol, test = (rng.integers(speakers, size=count) for _ in range(2))
        chosen = rng.random(count) < share
        test[chosen] = enrol[chosen]
        target = enrol == test
        scores = (rng.standard_normal(count) + 4 * target).astype(np.float32)
        weights = speaker_weights(speakers, replicates)
        once = fastest(lambda t=target, s=scores: one_evaluation(s, t), max(repeats, 5))  # type: ignore[misc]
        columns = scores, target, enrol, test, weights
        all_of_them = fastest(lambda c=columns: bootstrap(*c), repeats)  # type: ignore[misc]
        what = f"{replicates} replicates / one evaluation, {count:.0e} trials, {100 * share:g} % targets"
        rows.append(row(what, all_of_them / once, "times its time", "60 or less", all_of_them, once))
    return rows


def whole_det(scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> None:
    """EER, minDCF at two priors and every corner of the DET curve."""
    found = ScoreSet.from_labels(scores, labels)
    found.eer()
    found.min_dcf(0.01)
    found.min_dcf(0.05)
    found.false_accept_counts()


def one_evaluation(scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> None:
    """What each replicate gives: EER and minDCF at two priors."""
    found = ScoreSet.from_labels(scores, labels)
    found.eer()
    found.min_dcf(0.01)
    found.min_dcf(0.05)


def made_scores(count: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Overlapping scores, half of them of targets: the split that needs the most memory."""
    rng = np.random.default_rng(0)
    scores = rng.standard_normal(count, dtype=np.float32)
    labels = rng.integers(0, 2, count, dtype=np.uint8).view(bool)
    for start in range(0, count, 1 << 20):
        scores[start : start + (1 << 20)][labels[start : start + (1 << 20)]] += 3
    return scores, labels


def unit(rng: np.random.Generator, count: int, dim: int = 192) -> NDArray[np.float32]:
    """Random directions."""
    matrix = rng.standard_normal((count, dim), dtype=np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix


def fastest(work: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of several runs."""
    times = []
    for _ in range(repeats):
        gc.collect()
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def reset_peak() -> int:
    """Forget the process's peak of resident memory, where the system can; the memory it takes now, in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        print("note: this system cannot reset the peak of memory; it counts from the start of the process")
    return status_bytes("VmRSS")


def peak_bytes() -> int:
    """The process's peak of resident memory."""
    return status_bytes("VmHWM")


def status_bytes(field: str) -> int:
    """A figure of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ParvoxError(f"/proc/self/status has no {field}; run this benchmark on Linux")


def row(what: str, value: float, unit: str, wanted: str, first: float, second: float) -> dict[str, Any]:
    """One line of the table."""
    return {
        "what": what,
        "value": round(value, 4),
        "unit": unit,
        "wanted": wanted,
        "first": round(first, 6),
        "second": round(second, 6),
    }


if __name__ == "__main__":
    try:
        call(benchmark, sys.argv[1:], prog="benchmarks/evaluation.py")
    except ParvoxError as error:
        sys.exit(f"benchmarks/evaluation.py: error: {error}")
