"""What each way of distilling is worth: the same teacher, student, data and budget for all, on real speech.

    python benchmarks/distillation CORPUS [--budget reduced] [--seeds 3] [--rows tiny/none tiny/label …]

CORPUS is a folder of recordings with manifests. `plan.yaml` says what is compared, `speakers.csv` who trains and who
tests. Every run is trained once and its scores are kept, so that a second call goes on where the first one stopped;
results/distillation.csv is written anew after each run, and the table is printed at the end.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from summary import print_table, summarise
from tqdm import tqdm

from parvox.cli.parsing import call
from parvox.corpora.prepare import PrepareSettings, prepare
from parvox.corpora.prepared import PreparedCorpus
from parvox.errors import ParvoxError
from parvox.evaluation.environment import environment
from parvox.evaluation.system import load_system
from parvox.files import atomic_file
from parvox.training.recipe import Recipe, load_recipe
from parvox.training.run import Run
from parvox.training.trainer import train

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "distillation.csv"
TEACHER_SEED = 1
Budget = Literal["reduced", "full"]


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    Attributes:
        group: Teacher, student and budget that it shares.
        name: What differs.
        headline: Whether it is to have more seeds than others.
        recipe: Sections of its recipe; an empty one is the teacher itself.
    """

    group: str
    name: str
    headline: bool
    recipe: dict[str, Any]

    @property
    def slug(self) -> str:
        """For folders."""
        return f"{self.group}-{self.name}"


def benchmark(
    corpus: Path,
    *,
    budget: Budget = "reduced",
    seeds: int = 1,
    headline_seeds: int | None = None,
    rows: list[str] | None = None,
    tune: bool = False,
    work: Path = Path("runs/distillation"),
    out: Path = RESULTS,
) -> None:
    """Train, score and compare.

    Args:
        corpus: Folder of recordings with manifests.
        budget: How long each run trains; see plan.yaml.
        seeds: Runs of each row.
        headline_seeds: Runs of the rows that the page argues from; as many as of the others if unset.
        rows: Rows to run, as GROUP/ROW or GROUP; all unless given.
        tune: Score the dev speakers instead, to choose settings; written beside the other results.
        work: Folder for the prepared corpus, runs and scores.
        out: CSV file to write.
    """
    split = "dev" if tune else "test"
    out = out.with_name(f"{out.stem}-dev.csv") if tune else out
    prepared = prepare_corpus(corpus, work / "prepared")
    conditions = None
    found = read_results(out)
    for row, seed in jobs(read_plan(budget), seeds, headline_seeds or seeds, rows):
        key = (budget, row.group, row.name, str(seed))
        if any((r["budget"], r["group"], r["row"], r["seed"]) == key for r in found):
            continue
        print(f"\n{row.group}/{row.name}, seed {seed}", file=sys.stderr)
        run = trained(row, seed, prepared, work / budget)
        if conditions is None:
            from conditions import Conditions

            conditions = Conditions(prepared, split)
        scores = conditions.scores(load_system(run.folder, device="cpu"))
        kept = work / budget / f"{row.slug}-{seed}-{split}.npz"
        with atomic_file(kept, overwrite=True) as temporary, temporary.open("wb") as file:
            np.savez(file, **scores)  # type: ignore[arg-type]
        facts = environment()
        for name, each in scores.items():
            eer, min_dcf = conditions.rates(each)
            found.append(
                dict(zip(("budget", "group", "row", "seed"), key, strict=True))
                | {
                    "condition": name,
                    "eer": eer,
                    "min_dcf": min_dcf,
                    "parameters": run.summary["parameters"],
                    "parameters_added": run.summary["parameters_added_for_training"],
                    "seconds_per_step": run.summary["seconds"] / run.summary["steps"],
                    "steps": run.summary["steps"],
                    **facts,
                }
            )
        write_results(out, found)
    if conditions is None:
        from conditions import Conditions

        conditions = Conditions(prepared, split)
    print_table(summarise(found, budget, conditions, work / budget, split))


def prepare_corpus(root: Path, folder: Path) -> PreparedCorpus:
    """The corpus with the split that is fixed in the repository."""
    if not (folder / "corpus.json").is_file():
        settings = PrepareSettings(name="benchmark", split_file=HERE / "speakers.csv", trials_per_split=20_000)
        prepare("csv", root, folder, settings, overwrite=True)
    return PreparedCorpus.load(folder)


def read_plan(budget: Budget) -> list[Row]:
    """The rows of plan.yaml, each group's teacher first."""
    plan = yaml.safe_load((HERE / "plan.yaml").read_text(encoding="utf-8"))
    rows = []
    for group, parts in plan["groups"].items():
        common = merged(plan["common"], {"training": plan["budgets"][budget]})
        rows.append(Row(group, "teacher", False, merged(common, parts["teacher"])))
        for name, own in parts["rows"].items():
            settings = {key: value for key, value in own.items() if key != "headline"}
            rows.append(Row(group, name, own.get("headline", False), merged(common, parts["student"], settings)))
    return rows


def jobs(rows: list[Row], seeds: int, headline_seeds: int, only: list[str] | None) -> list[tuple[Row, int]]:
    """What is to be run, in order: every row once before any is run twice."""
    for name in only or ():
        if not any(name in (row.group, f"{row.group}/{row.name}") for row in rows):
            known = ", ".join(f"{row.group}/{row.name}" for row in rows)
            raise ParvoxError(f"row {name!r} given; expected one or more of {known}")
    chosen = [
        row for row in rows if not only or {row.group, f"{row.group}/{row.name}"} & set(only) or row.name == "teacher"
    ]
    wanted = {row.slug: 1 if row.name == "teacher" else headline_seeds if row.headline else seeds for row in chosen}
    return [(row, seed) for seed in range(1, max(wanted.values()) + 1) for row in chosen if seed <= wanted[row.slug]]


def trained(row: Row, seed: int, corpus: PreparedCorpus, work: Path) -> Run:
    """The finished run of a row; its group's teacher was trained before."""
    options = ["--corpus", str(corpus.folder), "--seed", str(seed)]
    if "distillation" in row.recipe and "alongside" not in row.recipe["distillation"]:
        options += ["--distillation.teacher", str(work / f"{row.group}-teacher-{TEACHER_SEED}")]
    return train(recipe(row, options, work), work / f"{row.slug}-{seed}", resume=True)


def recipe(row: Row, options: list[str], work: Path) -> Recipe:
    """A row's recipe, also written down."""
    path = work / f"{row.slug}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(row.recipe, sort_keys=False), encoding="utf-8")
    return load_recipe(path, options)


def merged(*parts: dict[str, Any]) -> dict[str, Any]:
    """Nested mappings, later ones on top."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            mapping = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if mapping else value
    return result


def read_results(path: Path) -> list[dict[str, Any]]:
    """What earlier calls found."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_results(path: Path, rows: list[dict[str, Any]]) -> None:
    """All that is known, in one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, overwrite=True) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    tqdm.write(f"written to {path}", file=sys.stderr)


if __name__ == "__main__":
    try:
        call(benchmark, sys.argv[1:], prog="benchmarks/distillation")
    except ParvoxError as error:
        sys.exit(f"benchmarks/distillation: error: {error}")
