"""What each way of distilling is worth: the same teacher, student, data and budget for all, on real speech.

    python benchmarks/distillation.py CORPUS [--budget reduced] [--seeds 3] [--at_once 2] [--rows tiny/none tiny/label]
    python benchmarks/distillation.py CORPUS --budget tuning

CORPUS is a folder of recordings with manifests. `comparison/plan.yaml` says what is compared, `comparison/speakers.csv`
who trains and who tests. Each seed has a teacher of its own, from which all rows of its group learn.

results/distillation.csv is written anew after each run, with what intervals need in results/distillation-draws.csv;
table and pictures are made at the end. A second call, on another machine too, goes on with what is not there yet. With
the budget `tuning` the settings that the plan lists as tried are scored on the dev speakers, into
results/distillation-tuning.csv.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from at_once import run_jobs
from comparison.conditions import ALL, CLEAN, RATES
from comparison.pictures import draw
from comparison.plan import Budget, Row, chosen_jobs, read_expected, read_plan
from comparison.runs import Job, run_job
from comparison.summary import Line, format_expected, format_lines, format_tuning, runs_of, summarise
from draws import Draws
from parvox.cli.parsing import call
from parvox.corpora.prepared import PreparedCorpus
from parvox.errors import ParvoxError
from rows import Rows
from speech import Speech, prepare_speech

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "distillation.csv"
PICTURES = HERE.parent / "docs" / "pictures"
FIRST = {"words": CLEAN, "digits": ALL}
KEY = ("budget", "group", "row", "seed", "condition")


def benchmark(
    corpus: Path,
    *,
    budget: Budget = "reduced",
    seeds: int = 1,
    headline_seeds: int | None = None,
    rows: list[str] | None = None,
    at_once: int = 1,
    work: Path = Path("runs/distillation"),
    out: Path = RESULTS,
    pictures: Path = PICTURES,
) -> None:
    """Train, score and compare.

    Args:
        corpus: Folder of recordings with manifests.
        budget: How long each run trains; see comparison/plan.yaml.
        seeds: Runs of each row.
        headline_seeds: Runs of the rows that the page argues from; as many as of the others if unset.
        rows: Rows to run, as GROUP/ROW or GROUP; all unless given.
        at_once: Runs side by side, each with its share of the processors.
        work: Folder for the prepared corpus and runs.
        out: CSV file to write.
        pictures: Folder for a picture of each group.
    """
    tuning = budget == "tuning"
    out = out.with_name(f"{out.stem}-tuning.csv") if tuning else out
    split, only = ("dev", (CLEAN, ALL)) if tuning else ("test", None)
    plan = read_plan(budget)

    @functools.cache
    def prepared(kind: Speech, seed: int) -> PreparedCorpus:
        return prepare_speech(corpus, work, kind, seed)

    results, draws = Rows(out, KEY), Draws(out, KEY, RATES)
    teachers = work / ("reduced" if tuning else budget)

    def run(jobs: list[tuple[Row, int]]) -> None:
        waiting = [
            Job(row, seed, prepared(row.corpus, seed if row.dealt else 0).folder, work / budget, teachers, split, only)
            for row, seed in jobs
            if not draws.has(budget=budget, group=row.group, row=row.name, seed=seed, condition=FIRST[row.corpus])
        ]
        for count, (job, found) in enumerate(run_jobs(run_job, waiting, at_once), 1):
            for figures, _ in found:
                results.put({"budget": budget, **figures})
            for figures, drawn in reversed(found):  # with the draws of the first condition the run counts as done
                draws.put({"budget": budget, **{name: figures[name] for name in KEY if name in figures}}, drawn)
            print(f"{count} of {len(waiting)}: {job.row.full_name}, seed {job.seed}", file=sys.stderr, flush=True)

    jobs = chosen_jobs(plan, seeds, headline_seeds or seeds, rows)
    run([job for job in jobs if job[0].name == "teacher"])  # the others learn from them
    run([job for job in jobs if job[0].name != "teacher"])
    if tuning:
        print(format_tuning(of_budget(results, budget)))
        return
    lines, text = summary(results, draws, budget)
    print(text)
    for path in draw(lines, pictures):
        print(f"drawn: {path}", file=sys.stderr)


def summary(results: Rows, draws: Draws, budget: Budget) -> tuple[list[Line], str]:
    """All that has been run, and the same as Markdown."""
    runs = runs_of(of_budget(results, budget), lambda row: draws.get(**{name: row[name] for name in KEY}))
    lines = summarise(runs)
    return lines, f"{format_lines(lines)}\n\n{format_expected(read_expected(), runs)}"


def of_budget(results: Rows, budget: Budget) -> list[dict[str, str]]:
    """The rows of a budget."""
    return [row for row in results.rows if row["budget"] == budget]


if __name__ == "__main__":
    try:
        call(benchmark, sys.argv[1:], prog="benchmarks/distillation.py")
    except ParvoxError as error:
        sys.exit(f"benchmarks/distillation.py: error: {error}")
