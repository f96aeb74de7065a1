"""What each way of distilling is worth: the same teacher, student, data and budget for all, on real speech.

    python benchmarks/distillation.py CORPUS [--budget reduced] [--seeds 3] [--at_once 2] [--rows tiny/none tiny/label]
    python benchmarks/distillation.py CORPUS --budget tuning

CORPUS is a folder of recordings with manifests. `comparison/plan.yaml` says what is compared, `comparison/speakers.csv`
who trains and who tests. Every run is trained once and its scores are kept, so that a second call goes on where the
first one stopped; results/distillation.csv is written anew after each run, and the table is printed at the end. With
the budget `tuning` the settings that the plan lists as tried are scored on the dev speakers, into
results/distillation-tuning.csv.
"""

from __future__ import annotations

import sys
from pathlib import Path

from at_once import run_jobs
from comparison.conditions import Conditions
from comparison.plan import Budget, Row, chosen_jobs, read_plan
from comparison.runs import Job, run_job
from comparison.summary import print_table, print_tuning, summarise
from parvox.cli.parsing import call
from parvox.corpora.prepare import PrepareSettings, prepare
from parvox.corpora.prepared import PreparedCorpus
from parvox.errors import ParvoxError
from rows import Rows

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "distillation.csv"
SPEAKERS = HERE / "comparison" / "speakers.csv"
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
) -> None:
    """Train, score and compare.

    Args:
        corpus: Folder of recordings with manifests.
        budget: How long each run trains; see comparison/plan.yaml.
        seeds: Runs of each row.
        headline_seeds: Runs of the rows that the page argues from; as many as of the others if unset.
        rows: Rows to run, as GROUP/ROW or GROUP; all unless given.
        at_once: Runs side by side, each with its share of the processors.
        work: Folder for the prepared corpus, runs and scores.
        out: CSV file to write.
    """
    tuning = budget == "tuning"
    out = out.with_name(f"{out.stem}-tuning.csv") if tuning else out
    split, only = ("dev", ("clean",)) if tuning else ("test", None)
    prepared = prepare_corpus(corpus, work / "prepared")
    results = Rows(out, KEY)
    teachers = work / ("reduced" if tuning else budget)

    def run(jobs: list[tuple[Row, int]]) -> None:
        waiting = [
            Job(row, seed, prepared.folder, work / budget, teachers, split, only)
            for row, seed in jobs
            if results.find(budget=budget, group=row.group, row=row.name, seed=seed, condition="clean") is None
        ]
        for count, (job, found) in enumerate(run_jobs(run_job, waiting, at_once), 1):
            for row in found:
                results.put({"budget": budget, **row})
            print(f"{count} of {len(waiting)}: {job.row.full_name}, seed {job.seed}", file=sys.stderr, flush=True)

    jobs = chosen_jobs(read_plan(budget), seeds, headline_seeds or seeds, rows)
    run([job for job in jobs if job[0].name == "teacher"])  # the others learn from them
    run([job for job in jobs if job[0].name != "teacher"])
    found = [row for row in results.rows if row["budget"] == budget]
    if tuning:
        print_tuning(found)
    else:
        print_table(summarise(found, Conditions(prepared, split), work / budget, split))


def prepare_corpus(root: Path, folder: Path) -> PreparedCorpus:
    """The corpus with the split that is fixed in the repository."""
    if not (folder / "corpus.json").is_file():
        settings = PrepareSettings(name="benchmark", split_file=SPEAKERS, trials_per_split=20_000)
        prepare("csv", root, folder, settings, overwrite=True)
    return PreparedCorpus.load(folder)


if __name__ == "__main__":
    try:
        call(benchmark, sys.argv[1:], prog="benchmarks/distillation.py")
    except ParvoxError as error:
        sys.exit(f"benchmarks/distillation.py: error: {error}")
