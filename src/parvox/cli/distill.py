"""`parvox distill`."""

from __future__ import annotations

from parvox.cli.recipes import run_recipe

DESCRIPTION = """Train a student that learns from a teacher.

parvox distill RECIPE.yaml --distillation.teacher runs/teacher --corpus PREPARED --out runs/student
               [--distillation.label.weight 1] [--distillation.embedding.weight 10] ...

As parvox train, with a distillation section: the teacher, and a weight and settings for each method. Methods add up;
name one to use it. The teacher is a run folder, MODEL.onnx, hf:FOLDER of the transformers library, or what parvox
fit-head wrote. With --unlabelled RECORDINGS in place of --corpus nobody need know who speaks there."""


def main(argv: list[str]) -> None:
    """Parse the arguments and distil."""
    run_recipe(argv, prog="parvox distill", description=DESCRIPTION, distil=True)
