"""`parvox fit-head`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from shlex import quote
from typing import Any

from parvox.errors import RecipeError
from parvox.settings import Parser, add_settings, build_settings, parse, text

DESCRIPTION = """Give a teacher a speaker classifier, so that label-level methods can learn from it.

parvox fit-head TEACHER --corpus PREPARED --out FOLDER [--loss.name aam_softmax] [--head.passes 3] ...

TEACHER is whatever --distillation.teacher takes: a run folder, MODEL.onnx, or hf:FOLDER of the transformers library.
It stays as it is; a margin head is trained on its embeddings of the corpus's training speakers. FOLDER is then a
teacher with that head: parvox distill --distillation.teacher FOLDER. Give both commands the same
--data.speed_perturbation, for each speed makes every speaker a new class."""


def main(argv: list[str]) -> None:
    """Parse the arguments and fit."""
    from parvox.data import AugmentationSettings, DataSettings
    from parvox.losses import LOSSES
    from parvox.training.fit_head import HeadRecipe, HeadSettings, fit_head
    from parvox.training.recipe_parsing import DEFAULT_LOSS, add_choice, chosen
    from parvox.training.teacher_settings import TEACHER_SECTIONS, TeacherOptions

    kinds = {name: TEACHER_SECTIONS[name] for name in ("onnx", "transformers")}
    loss = LOSSES[chosen(argv, "loss.name", {}, DEFAULT_LOSS)]
    parser = Parser(prog="parvox fit-head", description=DESCRIPTION, usage="parvox fit-head TEACHER [options]")
    parser.add_argument("teacher", type=text, help="The teacher.")
    parser.add_argument("--corpus", type=text, default="", help="Folder of a prepared corpus.")
    parser.add_argument("--out", type=text, default="", help="Folder to write.")
    parser.add_argument("--seed", type=int, default=1, help="Decides the order of utterances and every draw.")
    parser.add_argument("--device", type=text, default="", help="As PyTorch names it; a GPU if there is one.")
    parser.add_argument("--overwrite", action="store_true", help="Replace a head in --out.")
    parser.add_argument("--json", action="store_true", help="Print the summary as JSON.")
    sections = {"head": HeadSettings, "data": DataSettings, "augmentation": AugmentationSettings, **kinds}
    add_choice(parser, LOSSES, loss.name, "loss", loss.settings)
    for name, settings in sections.items():
        add_settings(parser, settings, name)
    values: dict[str, Any] = parse(parser, argv).as_dict()
    for name, what in (("corpus", "the folder of a prepared corpus"), ("out", "the folder to write")):
        if not values[name]:
            raise RecipeError(f"{name}: nothing given; expected {what}: --{name} FOLDER")
    built = {name: build_settings(settings, values[name]) for name, settings in sections.items()}
    of_loss = {name: value for name, value in values["loss"].items() if name != "name"}
    recipe = HeadRecipe(
        teacher=values["teacher"],
        corpus=values["corpus"],
        seed=values["seed"],
        loss=build_settings(loss.settings, of_loss),
        options=TeacherOptions(**{name: built.pop(name) for name in kinds}),
        **built,
    )
    summary = fit_head(recipe, Path(values["out"]), device=values["device"] or None, overwrite=values["overwrite"])
    if values["json"]:
        print(json.dumps({"head": values["out"], **summary}))
        return
    if summary["teacher_note"]:
        print(f"teacher {summary['teacher_note']}", file=sys.stderr)
    eer = summary["teacher_dev_eer"]
    heard = "no dev trials" if eer is None else f"the teacher's dev EER {100 * eer:.2f} %"
    print(
        f"{values['out']}: {summary['classes']} classes, {100 * summary['training_accuracy']:.2f} % of "
        f"{summary['embeddings']} training embeddings right, {heard}, {summary['seconds']:.0f} s"
    )
    print(f"next: parvox distill RECIPE.yaml --distillation.teacher {quote(values['out'])}", file=sys.stderr)
