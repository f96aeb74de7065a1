"""What the commands that take a recipe share."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from shlex import quote
from typing import Any

from parvox.errors import RecipeError
from parvox.files import refuse_overwrite
from parvox.settings import Parser


def run_recipe(argv: list[str], *, prog: str, description: str, distil: bool) -> None:
    """Train from a recipe and say what came out.

    Args:
        argv: A recipe file first, then options.
        prog: How the command is called.
        description: For ``--help``.
        distil: Whether the recipe must have a distillation section (or must not).
    """
    from parvox.training.recipe import build_recipe
    from parvox.training.recipe_parsing import parse_recipe

    path = Path(argv[0]) if argv and not argv[0].startswith("-") else None
    options = argv[1:] if path else argv

    def extend(parser: Parser) -> None:
        parser.add_argument("--out", type=str, default="", help="Run folder to write; by default runs/RECIPE.")
        parser.add_argument("--resume", action="store_true", help="Continue the run in --out where it stopped.")
        parser.add_argument("--overwrite", action="store_true", help="Replace a run in --out.")
        parser.add_argument("--json", action="store_true", help="Print the run's summary as JSON.")
        if distil:
            parser.add_argument(
                "--unlabelled",
                type=str,
                default="",
                help="In place of --corpus: any folder of recordings, of which nobody need know who speaks.",
            )

    defaults = {"distillation": None} if distil else {}
    values = parse_recipe(path, options, prog, description, extend, defaults)
    own: dict[str, Any] = {name: values.pop(name) for name in ("out", "resume", "overwrite", "json")}
    if own["resume"] and own["overwrite"]:
        raise RecipeError("--resume and --overwrite given; expected one of the two: go on with the run, or replace it")
    out = Path(own["out"] or Path("runs") / (path.stem if path else "default"))
    recordings = values.pop("unlabelled", "")
    if recordings:
        _take_recordings(values, recordings, out)
    if not values["corpus"]:
        raise RecipeError("corpus: nothing given; expected the folder of a prepared corpus: --corpus FOLDER")
    recipe = build_recipe(values)
    if distil and recipe.distillation is None:
        raise RecipeError("distillation: nothing given; expected --distillation.teacher RUN and a method's weight")
    if not distil and recipe.distillation is not None:
        raise RecipeError("the recipe has a distillation section; use parvox distill, or take the section out")

    from lightning_fabric.utilities.rank_zero import rank_zero_only

    from parvox.training.trainer import train

    if recordings:
        from parvox.training.unlabelled import prepare_unlabelled

        if not own["resume"]:
            refuse_overwrite(out, own["overwrite"])
        prepare_unlabelled(recipe, Path(recordings), resume=own["resume"], overwrite=own["overwrite"])
    run = train(recipe, out, resume=own["resume"], overwrite=own["overwrite"])
    if getattr(rank_zero_only, "rank", 0) != 0:  # several processes train, one speaks
        return
    if own["json"]:
        print(json.dumps({"run": str(out), **run.summary}))
        return
    summary = run.summary
    eer = summary["best_dev_eer"]
    heard = "no dev trials" if eer is None else f"dev EER {100 * eer:.2f} %"
    print(f"{out}: {summary['parameters'] / 1e6:.2f} M parameters, {heard}, {summary['seconds']:.0f} s")
    hint = "" if distil else f" or parvox distill RECIPE.yaml --distillation.teacher {quote(str(out))}"
    print(f"next: parvox export {quote(str(out))} {quote(f'{out}.onnx')}{hint}", file=sys.stderr)


def _take_recordings(values: dict[str, Any], recordings: str, out: Path) -> None:
    """Have the corpus be what a folder of recordings will be prepared to."""
    from parvox.training.unlabelled import corpus_beside

    if values["corpus"]:
        raise RecipeError(f"corpus {values['corpus']} and unlabelled {recordings} given; expected one of the two")
    values["corpus"] = str(corpus_beside(out))
