"""`parvox train`."""

from __future__ import annotations

from parvox.cli.recipes import run_recipe

DESCRIPTION = """Train a speaker model from a recipe.

parvox train RECIPE.yaml --corpus PREPARED --out runs/teacher [--model.channels 256 ...]

The recipe comes first; every field of it can be overridden after it. Without a recipe the defaults are used.
--init RUN starts from the weights of a finished run, as recipes/voxceleb/large_margin.yaml does.
The run folder gets weights, resolved recipe, metrics.csv and TensorBoard logs. For several GPUs start it with
torchrun, for several machines with torchrun or SLURM and --training.nodes."""


def main(argv: list[str]) -> None:
    """Parse the arguments and train."""
    run_recipe(argv, prog="parvox train", description=DESCRIPTION, distil=False)
