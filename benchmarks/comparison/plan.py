"""What is compared: the rows of plan.yaml, and the settings that were tried for them on the dev speakers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from parvox.errors import ParvoxError
from speech import Speech

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
        corpus: What it learns and is tested on: words, or digits, whose speakers every seed deals anew.
        taught_by: The group whose teacher it has.
        tried_for: The full name of the row that it is another setting of; empty elsewhere.
        longer: How many times the passes of the others it has.
    """

    group: str
    name: str
    headline: bool
    recipe: dict[str, Any]
    corpus: Speech = "words"
    taught_by: str = ""
    tried_for: str = ""
    longer: int = 1

    @property
    def slug(self) -> str:
        """For folders."""
        return f"{self.group}-{self.name}".replace(" ", "-")

    @property
    def dealt(self) -> bool:
        """Whether its speakers depend on the seed."""
        return self.corpus == "digits"

    @property
    def full_name(self) -> str:
        """As users give it."""
        return f"{self.group}/{self.name}"


def read_plan(budget: Budget) -> list[Row]:
    """The rows of plan.yaml, each group's teacher first; for tuning, every setting that is tried is a row."""
    plan = yaml.safe_load(PLAN.read_text(encoding="utf-8"))
    rows = []
    for group, parts in plan["groups"].items():
        # Teachers are what the comparison has, whatever the budget for tuning.
        budgets = plan["budgets"][budget], plan["budgets"]["reduced" if budget == "tuning" else budget]
        common, of_teacher = (
            merged(plan["common"], {"training": training}, parts.get("common", {})) for training in budgets
        )
        corpus, teacher = parts.get("corpus", "words"), parts["teacher"]
        taught_by = teacher if isinstance(teacher, str) else group
        if taught_by == group:
            rows.append(Row(group, "teacher", False, merged(of_teacher, teacher), corpus))
        for name, own in parts["rows"].items():
            settings = {key: value for key, value in own.items() if key == "distillation"}
            recipe, longer = merged(common, parts["student"], settings), own.get("longer", 1)
            passes = {key: longer * recipe["training"][key] for key in ("epochs", "evaluate_every")}
            recipe = merged(recipe, {"training": passes})
            row = Row(group, name, own.get("headline", False), recipe, corpus, taught_by, longer=longer)
            if budget != "tuning":
                rows.append(row)
            elif "tried" in own:
                rows += [row, *_alternatives(row, own["tried"])]
    return rows


@dataclass(frozen=True)
class Expected:
    """A ratio of EERs that a paper, or the comparison itself, leads one to expect.

    Attributes:
        what: In words.
        row: Group and name of the row.
        against: Group and name of what it is set against; of several, the best.
        ratio: What is expected, in words.
    """

    what: str
    row: tuple[str, str]
    against: list[tuple[str, str]]
    ratio: str


def read_expected() -> list[Expected]:
    """What plan.yaml says of ratios."""

    def split(name: str) -> tuple[str, str]:
        group, row = name.split("/")
        return group, row

    return [
        Expected(each["what"], split(each["row"]), [split(name) for name in each["against"]], each["ratio"])
        for each in yaml.safe_load(PLAN.read_text(encoding="utf-8"))["expected"]
    ]


def compared_with() -> dict[str, dict[str, tuple[str, str]]]:
    """By group, the group and the row of its teacher, and of its student without one ("none")."""
    groups = yaml.safe_load(PLAN.read_text(encoding="utf-8"))["groups"]
    found = {}
    for name, parts in groups.items():
        taught_by = parts["teacher"] if isinstance(parts["teacher"], str) else name
        group, row = parts.get("alone", f"{name}/none").split("/")
        found[name] = {"teacher": (taught_by, "teacher"), "none": (group, row)}
    return found


def _alternatives(row: Row, tried: list[dict[str, Any]]) -> list[Row]:
    """The row with its method set otherwise; where it has several, what is tried names which."""
    methods = list(row.recipe["distillation"])
    rows = []
    for settings in tried:
        if len(methods) == 1:
            by_method, told = {methods[0]: settings}, settings
        else:
            by_method = settings
            told = {f"{method}.{key}": value for method in settings for key, value in settings[method].items()}
        name = " ".join([row.name, *(f"{key}={value}" for key, value in told.items())])
        recipe = merged(row.recipe, {"distillation": by_method})
        rows.append(dataclasses.replace(row, name=name, headline=False, recipe=recipe, tried_for=row.full_name))
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
    asked = [row for row in rows if not only or {row.group, row.full_name, row.tried_for} & set(only)]
    teachers = {row.taught_by for row in asked}
    chosen = [row for row in rows if row in asked or (row.name == "teacher" and row.group in teachers)]
    wanted = {row.slug: headline_seeds if row.headline else seeds for row in chosen}
    for row in chosen:
        if row.name == "teacher":
            wanted[row.slug] = max(wanted[each.slug] for each in chosen if each.taught_by == row.group)
    return [(row, seed) for seed in range(1, max(wanted.values()) + 1) for row in chosen if seed <= wanted[row.slug]]


def merged(*parts: dict[str, Any]) -> dict[str, Any]:
    """Nested mappings, later ones on top."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            mapping = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if mapping else value
    return result
