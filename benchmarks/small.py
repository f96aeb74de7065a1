"""How accurate every model is on little real speech: the recipes of `recipes/small`, over several seeds.

    python benchmarks/small.py CORPUS [--seeds 3] [--at_once 2] [--only bc_cmt text-dependent/class_token]

CORPUS is a folder of recordings with manifests (see docs/corpora.md). Every recipe is trained with every seed, exported
to fp32 and evaluated on the test speakers, whom no choice is made on: the best epoch is picked on the dev speakers.
Recipes of `text-dependent` learn phrases of four digits, of speakers that each seed deals anew; all others
train and test on the speakers of benchmarks/comparison/speakers.csv. What a recipe starts from is made first, with the
same seed: the run that its `init` names, or the frame classifier of phonetic positions.

Writes benchmarks/results/small.csv after each run, with what intervals of ratios need in small-draws.csv, draws
docs/pictures/small.svg, and prints the tables. What is there is not done again, on another machine neither; a run that
was stopped, by whatever, goes on where it stood. A recipe that changed is trained anew.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from at_once import run_jobs
from draws import Draws
from parvox.cli.parsing import call
from parvox.corpora.phrases import REORDERED
from parvox.corpora.prepared import PreparedCorpus
from parvox.errors import ParvoxError, nearest
from parvox.evaluation.environment import environment
from parvox.evaluation.evaluate import evaluate
from parvox.evaluation.results import SystemResult
from parvox.export import export_model
from parvox.export.speed import milliseconds
from parvox.processors import available_processors
from parvox.runtime.model_file import read_contract
from parvox.training.fit_frames import fit_frames
from parvox.training.recipe import load_recipe
from parvox.training.recipe_parsing import read_yaml
from parvox.training.run import Run
from parvox.training.trainer import train
from picture import Point, draw
from ratios import ALL, draws_of, format_ratios
from rows import Rows, markdown
from speech import prepare_speech

HERE = Path(__file__).parent
RECIPES = HERE.parent / "recipes" / "small"
RESULTS = HERE / "results" / "small.csv"
PICTURE = HERE.parent / "docs" / "pictures" / "small.svg"
TEXT_DEPENDENT = "text-dependent"
P_TARGET = 0.01
KEY = ("recipe", "seed")
DRAWS_KEY = (*KEY, "trials")


class Job(NamedTuple):
    """One row.

    Attributes:
        name: Of the recipe: its path below `recipes/small`, without the suffix.
        seed: Of the training and, for text-dependent recipes, of the deal of the speakers.
    """

    name: str
    seed: int

    @property
    def slug(self) -> str:
        """For folders."""
        return f"{self.name.replace('/', '-')}-seed{self.seed}"

    @property
    def recipe(self) -> Path:
        """The file."""
        return RECIPES / f"{self.name}.yaml"

    @property
    def start(self) -> Job | None:
        """The job whose run it starts from, if it does."""
        init = read_yaml(self.recipe).get("init")
        return Job(Path(init).name, self.seed) if init else None


class Waiting(NamedTuple):
    """A job to do.

    Attributes:
        job: What.
        corpus: Folder of its prepared corpus.
        overrides: Recipe fields on the command line.
        settings: Letters that stand for what the recipe file and the caller say.
    """

    job: Job
    corpus: Path
    overrides: list[str]
    settings: str


def benchmark(
    corpus: Path,
    *,
    seeds: int = 3,
    only: list[str] | None = None,
    at_once: int = 1,
    work: Path = Path("runs/small"),
    out: Path = RESULTS,
    picture: Path = PICTURE,
    options: list[str] | None = None,
) -> None:
    """Train, export and evaluate what is not done yet, and print the tables.

    Args:
        corpus: Folder of recordings with manifests.
        seeds: Runs of each recipe.
        only: Recipes to run, by their paths below recipes/small without the suffix; all unless given.
        at_once: Runs side by side, each with its share of the processors.
        work: Folder for prepared corpora, runs and exported files.
        out: CSV file to write.
        picture: SVG file to draw.
        options: Recipe fields as training.epochs=1, for all recipes, to see that everything runs; their figures are
            others', so that `out` and `picture` are to be given too.
    """
    if options and (out == RESULTS or picture == PICTURE):
        raise ParvoxError("--options would put figures of other recipes among the results; give --out and --picture")
    if seeds < 1:
        raise ParvoxError(f"--seeds {seeds} given; expected 1 or more")
    names = recipe_names()
    for name in only or []:
        if name not in names:
            raise ParvoxError(f"--only: unknown recipe {name!r}: {nearest(name, names)}")
    overrides = [f"--{option}" for option in options or []]
    rows, draws = Rows(out, KEY), Draws(out, DRAWS_KEY, ("eer",))
    chosen = [name for name in names if not only or name in only]
    waiting: list[Waiting] = []
    for job in (Job(name, seed) for seed in range(1, seeds + 1) for name in chosen):
        settings = digest([*(read_yaml(each.recipe) for each in (job, job.start) if each), overrides])
        row = rows.find(recipe=job.name, seed=job.seed)
        drawn_before = draws.has(recipe=job.name, seed=job.seed, trials=ALL)
        if row is None or row["settings"] != settings or not drawn_before:
            prepared = prepare_corpus(corpus, work, job)
            fields = [*overrides, *frame_classifier(job, prepared, work)]
            waiting.append(Waiting(job, prepared.folder, fields, settings))
    work_on = functools.partial(run_job, work=work, threads=max(1, available_processors() // at_once))
    rounds = [[each for each in waiting if (each.job.start is None) == alone] for alone in (True, False)]
    done_now = itertools.chain.from_iterable(run_jobs(work_on, each, at_once) for each in rounds)
    for count, ((job, *_), (row, drawn)) in enumerate(done_now, 1):
        for trials, each in drawn.items():
            draws.put({"recipe": job.name, "seed": job.seed, "trials": trials}, each)
        rows.put(row)  # last: with it the job counts as done
        print(f"{count} of {len(waiting)}: {job.name}, seed {job.seed}", file=sys.stderr, flush=True)
    hardware = environment()["hardware"]
    for row in list(rows.rows):  # with nothing beside it
        file = work / "files" / row.get("file", "")
        if not row.get("ms_3s") and row.get("hardware") == hardware and file.is_file():
            rows.put({**row, "ms_3s": round(milliseconds(file, seconds=3.0, threads=1), 3)})
    done = by_recipe(rows)
    print(summary(done, rows, draws))
    points = [
        Point(
            name,
            mean(found, "macs_1s") / 1e6,
            100 * mean(found, "eer"),
            100 * mean(found, "eer_low"),
            100 * mean(found, "eer_high"),
        )
        for name, found in done.items()
        if not name.startswith(TEXT_DEPENDENT)
    ]
    if points:
        draw(points, picture)


def by_recipe(rows: Rows) -> dict[str, list[dict[str, str]]]:
    """The rows of each recipe that there still is, by seed: they lie in the order in which runs ended."""
    ordered = sorted(rows.rows, key=lambda row: int(row["seed"]))
    done = {name: [row for row in ordered if row["recipe"] == name] for name in recipe_names()}
    return {name: found for name, found in done.items() if found}


def summary(done: dict[str, list[dict[str, str]]], rows: Rows, draws: Draws) -> str:
    """All that has been run, as Markdown."""
    speakers = {name: found for name, found in done.items() if not name.startswith(TEXT_DEPENDENT)}
    phrases = {name: found for name, found in done.items() if name.startswith(TEXT_DEPENDENT)}
    return "\n".join([accuracy_table(speakers), kinds_table(phrases), format_ratios(rows, draws)])


def recipe_names() -> list[str]:
    """Their paths below `recipes/small`, without the suffix."""
    return sorted(str(path.relative_to(RECIPES).with_suffix("")) for path in recipe_files())


def recipe_files() -> Iterator[Path]:
    """The recipes of single models; distillation has a benchmark of its own."""
    for path in (*RECIPES.glob("*.yaml"), *(RECIPES / TEXT_DEPENDENT).glob("*.yaml")):
        if "distillation" not in read_yaml(path):
            yield path


def prepare_corpus(root: Path, work: Path, job: Job) -> PreparedCorpus:
    """The prepared corpus of a job, made if it is not there yet."""
    return prepare_speech(root, work, "digits" if job.name.startswith(TEXT_DEPENDENT) else "words", job.seed)


def digest(settings: Any) -> str:
    """A few letters that stand for plain data."""
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:12]


def frame_classifier(job: Job, corpus: PreparedCorpus, work: Path) -> list[str]:
    """Recipe fields that name the frame classifier of a recipe that wants one, fitted if it is not there yet."""
    if not read_yaml(job.recipe).get("model", {}).get("frame_classifier"):
        return []
    file = work / "frames" / f"{corpus.folder.name}.safetensors"
    if not file.is_file():
        fit_frames(corpus, file, seed=job.seed)
    return [f"--model.frame_classifier={file}"]


def run_of(job: Job, corpus: Path, overrides: list[str], work: Path) -> Run:
    """The finished run of a job, trained if it is not there yet, as is the run that it starts from."""
    given = ["--corpus", str(corpus), "--seed", str(job.seed), *overrides]
    if job.start is not None:
        given += ["--init", str(run_of(job.start, corpus, overrides, work).folder)]
    recipe = load_recipe(job.recipe, given)
    return train(recipe, work / "runs" / f"{job.slug}-{digest(recipe.to_dict())}", resume=True)


def run_job(waiting: Waiting, work: Path, threads: int) -> tuple[dict[str, Any], dict[str, NDArray[np.float64]]]:
    """Train, export, evaluate; a step whose result is there is not done again.

    Args:
        waiting: What to do.
        work: Folder for runs and files.
        threads: To evaluate with.

    Returns:
        The row, and draws of its EERs by the trials that count.
    """
    job, corpus, overrides, settings = waiting
    prepared = PreparedCorpus.load(corpus)
    run = run_of(job, corpus, overrides, work)
    file = work / "files" / f"{run.folder.name}.onnx"
    if not file.is_file():
        export_model(run, file, corpus=prepared, name=job.name)
    cache = work / "embeddings" / job.slug
    system = evaluate([file], prepared, names=[job.name], cache=cache, threads=threads).systems[0]
    shutil.rmtree(cache, ignore_errors=True)
    found = {**figures(run, file, system), "file": file.name, "settings": settings, **environment()}
    return {"recipe": job.name, "seed": job.seed, **found}, draws_of(prepared, system.scores)


def figures(run: Run, file: Path, system: SystemResult) -> dict[str, Any]:
    """What the row says."""
    interval = system.eer.interval
    contract, summary = read_contract(file), run.summary
    return {
        "eer": system.eer.value,
        "eer_low": interval.low if interval else None,
        "eer_high": interval.high if interval else None,
        "min_dcf": system.min_dcf[P_TARGET].value,
        "dev_eer": summary["best_dev_eer"],
        **{f"eer_{kind.kind}": kind.eer.value for kind in system.kinds},
        "parameters": contract.parameters,
        "macs_1s": contract.macs_1s,
        "file_bytes": file.stat().st_size,
        "train_s": summary["seconds"],
        "steps": summary["steps"],
        "precision": summary["precision"],
    }


def mean(rows: list[dict[str, str]], column: str) -> float:
    """Over the seeds that have it; NaN where none has."""
    found = [float(row[column]) for row in rows if row.get(column)]
    return float(np.mean(found)) if found else float("nan")


def accuracy_table(done: dict[str, list[dict[str, str]]]) -> str:
    """Means over the seeds. The interval's ends are means too: no narrower than the interval of the mean."""
    head = ["recipe", "parameters", "MACs, 1 s", "3 s, one core", "EER [95 %]", "each seed", "minDCF", "training"]
    lines = [
        [
            f"`{name}`",
            f"{mean(rows, 'parameters') / 1e6:.2f} M",
            f"{mean(rows, 'macs_1s') / 1e6:,.0f} M",
            f"{mean(rows, 'ms_3s'):.1f} ms" if any(row.get("ms_3s") for row in rows) else "–",
            f"{100 * mean(rows, 'eer'):.2f} % [{100 * mean(rows, 'eer_low'):.1f}, {100 * mean(rows, 'eer_high'):.1f}]",
            ", ".join(f"{100 * float(row['eer']):.2f}" for row in rows),
            f"{mean(rows, 'min_dcf'):.3f}",
            f"{mean(rows, 'train_s') / 60:.1f} min",
        ]
        for name, rows in done.items()
    ]
    return "\n".join(["", "Speakers alone:", "", markdown(head, lines)]) if lines else ""


def kinds_table(done: dict[str, list[dict[str, str]]]) -> str:
    """EER of each kind of trial against target-correct, means over the seeds."""
    kinds = [REORDERED, "target-wrong", "impostor-correct", "impostor-wrong"]
    lines = [
        [
            f"`{name}`",
            *(f"{100 * mean(rows, f'eer_{kind}'):.2f} %" for kind in kinds),
            f"{100 * mean(rows, 'eer'):.2f} %",
            ", ".join(f"{100 * float(row[f'eer_{REORDERED}']):.2f}" for row in rows),
        ]
        for name, rows in done.items()
    ]
    head = ["recipe", *kinds, "all", f"{REORDERED}, each seed"]
    return "\n".join(["", "Speaker and phrase, EER:", "", markdown(head, lines)]) if lines else ""


if __name__ == "__main__":
    try:
        call(benchmark, sys.argv[1:], prog="benchmarks/small.py")
    except ParvoxError as error:
        sys.exit(f"benchmarks/small.py: error: {error}")
