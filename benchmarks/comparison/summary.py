"""Rates over seeds, their intervals by speaker, and rows set against others, seed by seed and draw by draw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comparison.conditions import ALL, CLEAN, RATES, REPLICATES
from comparison.plan import Expected, compared_with, read_plan
from draws import Rate, mean, ratio
from parvox.evaluation.estimate import Estimate
from rows import markdown

PLAIN = ("label", "embedding")  # the conventional methods, the better of which is to be beaten
Key = tuple[str, str, str]  # group, row, condition


@dataclass(frozen=True, eq=False)
class Run:
    """One seed of a row under one condition.

    Attributes:
        eer: With its draws.
        min_dcf: With its draws.
        added: Parameters that the method adds for training.
    """

    eer: Rate
    min_dcf: Rate
    added: int = 0


Runs = dict[Key, dict[int, Run]]  # by seed


@dataclass(frozen=True)
class Line:
    """One row of a group under one condition; intervals are 95 %, by speaker.

    Attributes:
        group: Teacher, student and budget that it shares.
        row: What it is.
        condition: What was done to the test side.
        seeds: EER of each seed.
        eer: Mean over the seeds.
        min_dcf: Mean over the seeds.
        added: Parameters that the method adds for training.
        ratios: By the row it is set against, the ratio of EERs over the seeds that both have.
    """

    group: str
    row: str
    condition: str
    seeds: tuple[float, ...]
    eer: Estimate
    min_dcf: Estimate
    added: int
    ratios: dict[str, Estimate]


def runs_of(found: Iterable[dict[str, Any]], drawn: Callable[[dict[str, Any]], NDArray[np.float64] | None]) -> Runs:
    """The runs of a results file, with draws of speakers.

    Args:
        found: Rows of the file.
        drawn: The draws of EER and minDCF that belong to a row; None where there are none.
    """
    runs: Runs = {}
    for each in found:
        by_seed = runs.setdefault((each["group"], each["row"], each["condition"]), {})
        by_seed[int(each["seed"])] = _run(each, drawn(each))
    return dict(sorted(runs.items(), key=_place_in_plan()))


def summarise(runs: Runs) -> list[Line]:
    """A line for each group, row and condition, in the order of the plan."""
    return [
        Line(
            *key,
            seeds=tuple(run.eer.found for _, run in sorted(of.items())),
            eer=mean([run.eer for run in of.values()]),
            min_dcf=mean([run.min_dcf for run in of.values()]),
            added=next(iter(of.values())).added,
            ratios=_ratios(key, runs),
        )
        for key, of in runs.items()
    ]


def format_lines(lines: list[Line]) -> str:
    """Error rates and ratios as Markdown, one table a group; then minDCF and parameters of all."""
    parts, costs = [], []
    for group in dict.fromkeys(line.group for line in lines):
        ours = [line for line in lines if line.group == group]
        names = list(dict.fromkeys(line.condition for line in ours))
        cells = []
        for row in dict.fromkeys(line.row for line in ours):
            by_condition = {line.condition: line for line in ours if line.row == row}
            first = by_condition.get(CLEAN) or by_condition[ALL]
            ratios = [_ratio(first.ratios.get(name)) for name in ("none", "plain", "teacher")]
            seeds = ", ".join(f"{100 * eer:.1f}" for eer in first.seeds)
            cells.append([row, *(_rate(by_condition[name].eer) for name in names), seeds, *ratios])
            costs.append([f"{group}/{row}", first.min_dcf.plain(2), f"{first.added:,}"])
        parts.append(f"### {group}")
        parts.append(markdown(["row", *names, "each seed", "/ alone", "/ better plain", "/ teacher"], cells))
    parts.append(
        "EER in %, mean over the seeds [95 % by speaker]. Ratios are of EERs clean, or of all kinds, seed by seed."
    )
    parts.append(markdown(["row", "minDCF", "parameters added"], costs))
    return "\n\n".join(parts)


def format_expected(expected: Iterable[Expected], runs: Runs) -> str:
    """What papers lead one to expect, and what was found, as Markdown."""
    cells = []
    for each in expected:
        first = ALL if (*each.row, ALL) in runs else CLEAN
        above = (*each.row, first)
        below = best_of([(*row, first) for row in each.against], runs)
        if above in runs and below is not None:
            seeds = runs[above].keys() & runs[below].keys()
            cells.append([each.what, each.ratio, _ratio(_eer_ratio(runs[above], runs[below])), str(len(seeds))])
    return markdown(["ratio of EER", "expected", "found [95 %]", "seeds"], cells)


def format_tuning(found: Iterable[dict[str, Any]]) -> str:
    """What was tried on the dev speakers, as Markdown."""
    cells = [[f"{each['group']}/{each['row']}", f"{100 * float(each['eer']):.2f}"] for each in found]
    return markdown(["row", "EER clean, dev"], cells)


def _run(row: dict[str, Any], draws: NDArray[np.float64] | None) -> Run:
    """A run with its draws of speakers; NaN, and so no interval, where there are none."""
    both = np.full((2, REPLICATES), np.nan) if draws is None else draws
    eer, min_dcf = (Rate(float(row[name]), drawn) for name, drawn in zip(RATES, both, strict=True))
    return Run(eer, min_dcf, int(row["parameters_added"]))


def _place_in_plan() -> Callable[[tuple[Key, Any]], tuple[int, int]]:
    """Where a row stands in the plan; what the plan no longer has comes last. Conditions stay in their order."""
    places = {(row.group, row.name): place for place, row in enumerate(read_plan("reduced"))}
    groups = {row.group: place for place, row in reversed(list(enumerate(read_plan("reduced"))))}
    return lambda item: (groups.get(item[0][0], len(places)), places.get(item[0][:2], len(places)))


def _ratios(key: Key, runs: Runs) -> dict[str, Estimate]:
    group, _, condition = key
    against = {name: [kin] for name, kin in compared_with()[group].items()}
    against["plain"] = [(group, name) for name in PLAIN]
    found = {}
    for name, others in against.items():
        other = best_of([(*row, condition) for row in others], runs)
        if other is not None and other != key:
            estimate = _eer_ratio(runs[key], runs[other])
            if estimate is not None:
                found[name] = estimate
    return found


def best_of(keys: Iterable[Key], runs: Runs) -> Key | None:
    """The one with the lowest mean EER among those that have been run."""
    there = [key for key in keys if key in runs]
    return min(there, key=lambda key: float(np.mean([run.eer.found for run in runs[key].values()])), default=None)


def _eer_ratio(above: Mapping[int, Run], below: Mapping[int, Run]) -> Estimate | None:
    upper, lower = ({seed: run.eer for seed, run in runs.items()} for runs in (above, below))
    return ratio(upper, lower)


def _rate(estimate: Estimate) -> str:
    text, spread = f"{100 * estimate.value:.2f}", estimate.interval
    return text if spread is None else f"{text} [{100 * spread.low:.1f}, {100 * spread.high:.1f}]"


def _ratio(estimate: Estimate | None) -> str:
    return "" if estimate is None else estimate.plain(2)
