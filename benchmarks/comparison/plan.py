"""What is compared: the rows of plan.yaml, and the settings that were tried for them on the dev speakers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from parvox.errors import ParvoxError

PLAN = Path(__file__).parent / "plan.yaml"
Budget = Literal["reduced", "full", "tuning"]


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    Attributes:
        group: Teacher, student and budget that it shares.
        name: What differs.
        headline: Whether it is to have more seeds than others.
        recipe: Sections of its recipe.
    """

    group: str
    name: str
    headline: bool
    recipe: dict[str, Any]

    @property
    def slug(self) -> str:
        """For folders."""
        return f"{self.group}-{self.name}".replace(" ", "-")

    @property
    def full_name(self) -> str:
        """As users give it."""
        return f"{self.group}/{self.name}"


def read_plan(budget: Budget) -> list[Row]:
    """The rows of plan.yaml, each group's teacher first; for tuning, every setting that is tried is a row."""
    plan = yaml.safe_load(PLAN.read_text(encoding="utf-8"))
    rows = []
    for group, parts in plan["groups"].items():
        common = merged(plan["common"], {"training": plan["budgets"][budget]})
        # Teachers are what the comparison has, whatever the budget for tuning.
        of_teacher = {"training": plan["budgets"]["reduced" if budget == "tuning" else budget]}
        rows.append(Row(group, "teacher", False, merged(plan["common"], of_teacher, parts["teacher"])))
        for name, own in parts["rows"].items():
            settings = {key: value for key, value in own.items() if key not in ("headline", "tried")}
            row = Row(group, name, own.get("headline", False), merged(common, parts["student"], settings))
            if budget != "tuning":
                rows.append(row)
            elif "tried" in own:
                rows += [row, *_alternatives(row, own["tried"])]
    return rows


def students_alone() -> dict[str, tuple[str, str]]:
    """By group, the group and the row of its student without a teacher."""
    groups = yaml.safe_load(PLAN.read_text(encoding="utf-8"))["groups"]
    return {name: tuple(parts["alone"].split("/")) for name, parts in groups.items()}


def _alternatives(row: Row, tried: list[dict[str, Any]]) -> list[Row]:
    """The row with its only method set otherwise."""
    (method,) = row.recipe["distillation"]
    rows = []
    for settings in tried:
        name = " ".join([row.name, *(f"{key}={value}" for key, value in settings.items())])
        rows.append(Row(row.group, name, False, merged(row.recipe, {"distillation": {method: settings}})))
    return rows


def chosen_jobs(rows: list[Row], seeds: int, headline_seeds: int, only: list[str] | None) -> list[tuple[Row, int]]:
    """What is to be run, in order: every row once before any is run twice.

    Raises:
        ParvoxError: `only` has a name that no row or group has.
    """
    for name in only or ():
        if not any(name in (row.group, row.full_name) for row in rows):
            known = ", ".join(row.full_name for row in rows)
            raise ParvoxError(f"row {name!r} given; expected one or more of {known}")
    groups = {name.split("/")[0] for name in only or ()}
    chosen = [
        row
        for row in rows
        if not only or {row.group, row.full_name} & set(only) or (row.name == "teacher" and row.group in groups)
    ]
    wanted = {row.slug: 1 if row.name == "teacher" else headline_seeds if row.headline else seeds for row in chosen}
    return [(row, seed) for seed in range(1, max(wanted.values()) + 1) for row in chosen if seed <= wanted[row.slug]]


def merged(*parts: dict[str, Any]) -> dict[str, Any]:
    """Nested mappings, later ones on top."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            mapping = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if mapping else value
    return result
