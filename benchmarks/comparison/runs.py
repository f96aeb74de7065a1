"""One run of the comparison: trained, and scored under every condition."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from comparison.conditions import RATES, conditions_of
from comparison.plan import Row
from parvox.corpora.prepared import PreparedCorpus
from parvox.distillation.contract import looks_inside
from parvox.evaluation.environment import environment
from parvox.evaluation.system import load_system
from parvox.files import atomic_file
from parvox.training.recipe import Recipe, load_recipe
from parvox.training.run import Run
from parvox.training.trainer import train


@dataclass(frozen=True)
class Job:
    """What one run needs.

    Attributes:
        row: Of the plan.
        seed: Of its training.
        corpus: Folder of the prepared corpus.
        work: Folder for runs.
        teachers: Folder of the groups' teachers.
        split: Whose trials it is scored on.
        only: Conditions; all if None.
    """

    row: Row
    seed: int
    corpus: Path
    work: Path
    teachers: Path
    split: str
    only: tuple[str, ...] | None = None


def run_job(job: Job) -> list[tuple[dict[str, Any], NDArray[np.float64]]]:
    """For each condition a row of the results and draws of its `RATES`; a finished run is not trained again."""
    prepared = PreparedCorpus.load(job.corpus)
    run = _trained(job, prepared)
    conditions = conditions_of(prepared, job.split, job.only)
    scores = conditions.scores(load_system(run.folder, device="cpu"))
    facts = environment()
    rows = []
    for condition, each in scores.items():
        row = {
            "group": job.row.group,
            "row": job.row.name,
            "seed": str(job.seed),
            "condition": condition,
            **dict(zip(RATES, conditions.rates(condition, each), strict=True)),
            "parameters": run.summary["parameters"],
            "parameters_added": run.summary["parameters_added_for_training"],
            "seconds": run.summary["seconds"],
            "steps": run.summary["steps"],
            **facts,
        }
        rows.append((row, conditions.replicates(condition, each)))
    return rows


def _trained(job: Job, corpus: PreparedCorpus) -> Run:
    """The finished run of a row; its group's teacher was trained before. Rows of one teacher share what it said."""
    row, sections = job.row, job.row.recipe
    options = ["--corpus", str(corpus.folder), "--seed", str(job.seed)]
    methods = sections.get("distillation", {})
    if methods:
        options += ["--distillation.teacher", str(job.teachers / f"{row.taught_by}-teacher-{job.seed}")]
    if _has_maps(methods.get("integrated")):
        options += ["--distillation.integrated.cache", str(job.teachers / "maps")]
    folder = job.teachers if row.name == "teacher" else job.work
    recipe = _recipe(folder / f"{row.slug}.yaml", sections, options)
    if recipe.distillation and not any(map(looks_inside, recipe.distillation.methods.values())):
        taught = dataclasses.replace(recipe.distillation, cache=str(job.teachers / "embeddings"))
        recipe = dataclasses.replace(recipe, distillation=taught)
    return train(recipe, folder / f"{row.slug}-{job.seed}", resume=True)


def _has_maps(settings: dict[str, Any] | None) -> bool:
    return settings is not None and settings.get("reading", "mask") in ("mask", "amplify")


def _recipe(path: Path, sections: dict[str, Any], options: list[str]) -> Recipe:
    """A row's recipe, also written down."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, overwrite=True) as temporary:
        temporary.write_text(yaml.safe_dump(sections, sort_keys=False), encoding="utf-8")
    return load_recipe(path, options)
