"""Rates over seeds, their intervals by speaker, and differences between rows, replicate by replicate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comparison.conditions import ALL, CLEAN, REPLICATES, Conditions, Kinds
from comparison.plan import compared_with
from parvox.evaluation.resampling import Interval, interval

PLAIN = ("label", "embedding")  # the conventional methods, the better of which is to be beaten


@dataclass(frozen=True, eq=False)
class Line:
    """One row of a group under one condition.

    Attributes:
        group: Teacher, student and budget that it shares.
        row: What it is.
        condition: What was done to the test side.
        seeds: How many runs.
        eer: Mean over the seeds.
        spread: Lowest and highest of the seeds.
        interval: Of the mean, 95 %, by speaker.
        min_dcf: Mean over the seeds.
        added: Parameters that the method adds for training.
        minutes: Of training, on whatever was at hand.
        replicates: (replicates,) EER, the mean over the seeds.
        ratios: By the row it is set against, the ratio of EERs and its interval.
    """

    group: str
    row: str
    condition: str
    seeds: int
    eer: float
    spread: tuple[float, float]
    interval: Interval | None
    min_dcf: float
    added: int
    minutes: float
    replicates: NDArray[np.float64]
    ratios: dict[str, tuple[float, Interval | None]]


def summarise(
    found: Iterable[dict[str, Any]], conditions: Callable[[str, int], Conditions | Kinds], work: Path, split: str
) -> list[Line]:
    """A line for each group, row and condition.

    Args:
        found: Rows of the results file.
        conditions: By group and seed, the trials that they were scored on.
        work: Where the scores are kept.
        split: Whose.
    """
    runs: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for each in found:
        runs.setdefault((each["group"], each["row"], each["condition"]), []).append(each)
    lines: dict[tuple[str, str, str], Line] = {}
    relatives = compared_with()
    for key, rows in runs.items():
        replicates = np.mean([_replicates(each, conditions, work, split) for each in rows], axis=0)
        eers = [float(each["eer"]) for each in rows]
        lines[key] = Line(
            *key,
            seeds=len(rows),
            eer=float(np.mean(eers)),
            spread=(min(eers), max(eers)),
            interval=interval(replicates),
            min_dcf=float(np.mean([float(each["min_dcf"]) for each in rows])),
            added=int(rows[0]["parameters_added"]),
            minutes=float(np.mean([float(each["seconds"]) for each in rows])) / 60,
            replicates=replicates,
            ratios={},
        )
    for (group, _, condition), line in lines.items():
        against = {name: lines.get((*kin, condition)) for name, kin in relatives[group].items()}
        plain = [lines[key] for name in PLAIN if (key := (group, name, condition)) in lines]
        if plain:
            against["plain"] = min(plain, key=lambda each: each.eer)
        for name, other in against.items():
            if other is not None and other is not line:
                ratio = line.replicates / other.replicates
                line.ratios[name] = (line.eer / other.eer, interval(ratio))
    return list(lines.values())


def _replicates(
    run: dict[str, Any], conditions: Callable[[str, int], Conditions | Kinds], work: Path, split: str
) -> NDArray[np.float64]:
    """EERs of a run with speakers drawn anew; NaN, and so no interval, where its scores were not kept."""
    slug = f"{run['group']}-{run['row']}".replace(" ", "-")
    kept = work / f"{slug}-{run['seed']}-{split}.npz"
    if not kept.is_file():
        return np.full(REPLICATES, np.nan)
    with np.load(kept, allow_pickle=False) as scores:
        asked = conditions(run["group"], int(run["seed"]))
        return asked.replicates(run["condition"], scores[run["condition"]])


def print_table(lines: list[Line]) -> None:
    """The comparison as Markdown, one table a group."""
    for group in dict.fromkeys(line.group for line in lines):
        ours = [line for line in lines if line.group == group]
        names = list(dict.fromkeys(line.condition for line in ours))
        heads = ["row", "seeds", *(f"EER {name}" for name in names), "/ none", "/ better plain", "/ teacher"]
        heads += ["minDCF", "added", "minutes"]
        print(f"\n### {group}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        for row in dict.fromkeys(line.row for line in ours):
            by_condition = {line.condition: line for line in ours if line.row == row}
            clean = by_condition.get(CLEAN) or by_condition[ALL]
            cells = [row, str(clean.seeds), *(_rate(by_condition[name]) for name in names)]
            cells += [_ratio(clean.ratios.get(name)) for name in ("none", "plain", "teacher")]
            cells += [f"{clean.min_dcf:.3f}", f"{clean.added:,}", f"{clean.minutes:.1f}"]
            print(f"| {' | '.join(cells)} |")
    print("\nEER in %, mean over the seeds [95 % by speaker]. Ratios are of EERs clean, or of all kinds.")


def print_tuning(found: Iterable[dict[str, Any]]) -> None:
    """What was tried on the dev speakers, as Markdown."""
    print("| row | EER clean, dev |\n|---|---:|")
    for each in found:
        print(f"| {each['group']}/{each['row']} | {100 * float(each['eer']):.2f} |")


def _rate(line: Line) -> str:
    text = f"{100 * line.eer:.2f}"
    return text if line.interval is None else f"{text} [{100 * line.interval.low:.1f}, {100 * line.interval.high:.1f}]"


def _ratio(ratio: tuple[float, Interval | None] | None) -> str:
    if ratio is None:
        return ""
    value, spread = ratio
    return f"{value:.2f}" if spread is None else f"{value:.2f} [{spread.low:.2f}, {spread.high:.2f}]"
