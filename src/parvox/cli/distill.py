"""`parvox distill`."""

from __future__ import annotations

from parvox.cli.recipes import run_recipe

DESCRIPTION = """Train a student that learns from a teacher.

parvox distill RECIPE.yaml --distillation.teacher runs/teacher --corpus PREPARED --out runs/student
               [--distillation.label.weight 1] [--distillation.embedding.weight 10] ...

As parvox train, with a distillation section: the teacher's run folder, and a weight and settings for each method.
Methods add up; name one to use it."""


def main(argv: list[str]) -> None:
    """Parse the arguments and distil."""
    run_recipe(argv, prog="parvox distill", description=DESCRIPTION, distil=True)
