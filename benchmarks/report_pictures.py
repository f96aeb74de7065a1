"""The pictures of docs/evaluation.md, from the models of a demo.

    parvox demo --out demo
    python benchmarks/report_pictures.py demo docs/pictures

Evaluates the demo's four models on its test speakers, thresholds and calibration chosen on its dev speakers, and
writes one SVG each for DET curves, scores, calibration and errors by group, light or dark as the reader prefers. Prints
what they show. The whole report is written beside them with --report FOLDER.
"""

from __future__ import annotations

import sys
from pathlib import Path

from parvox.cli.parsing import call
from parvox.corpora.prepared import PreparedCorpus
from parvox.errors import ParvoxError
from parvox.evaluation.evaluate import evaluate
from parvox.evaluation.plots import COLOURS, det_plot, histogram_plot, reliability_plot
from parvox.evaluation.report import write_folder
from parvox.evaluation.report_parts import breakdown_picture, det_lines
from parvox.evaluation.results import Evaluation
from parvox.evaluation.style import standalone
from parvox.files import atomic_file

MODELS = {
    "teacher": "teacher.onnx",
    "student, alone": "student.onnx",
    "student, distilled": "distilled.onnx",
    "student, distilled, int8": "distilled-int8.onnx",
}
SHOWN = "student, distilled"  # whose scores and calibration are drawn


def pictures(demo: Path, out: Path, cache: Path | None = None, processes: int = 1, report: Path | None = None) -> None:
    """Draw what an evaluation of the demo's models shows.

    Args:
        demo: Folder written by parvox demo.
        out: Folder for the pictures.
        cache: Folder of embeddings; the demo's own by default.
        processes: Processes that embed.
        report: Folder for the whole report, if it is wanted.
    """
    corpus = PreparedCorpus.load(demo / "prepared")
    evaluation = evaluate(
        [demo / name for name in MODELS.values()],
        corpus,
        names=list(MODELS),
        tune="dev",
        calibrate=True,
        side=["duration"],
        cache=cache or demo / "embeddings",
        processes=processes,
    )
    for name, picture in drawn(evaluation).items():
        with atomic_file(out / f"evaluation-{name}.svg", overwrite=True) as temporary:
            temporary.write_text(standalone(picture), encoding="utf-8")
            print(out / f"evaluation-{name}.svg")
    if report is not None:
        write_folder(report, evaluation, overwrite=True)
    print(f"\n{words(evaluation)}")


def drawn(evaluation: Evaluation) -> dict[str, str]:
    """The pictures, by name."""
    number, system = next((n, each) for n, each in enumerate(evaluation.systems) if each.name == SHOWN)
    colour = number % COLOURS
    found = {
        "det": det_plot(det_lines(evaluation), "DET curves", legend=True),
        "scores": histogram_plot(system.histogram, colour, system.eer_threshold, f"Scores of {system.name}"),
    }
    if system.calibration is not None:
        found["calibration"] = reliability_plot(system.calibration.points, colour, "Claimed and observed evidence")
    for place, breakdown in enumerate(system.breakdowns):
        found[f"by-{breakdown.column}"] = breakdown_picture(evaluation, place, legend=True)
    return found


def words(evaluation: Evaluation) -> str:
    """What the pictures show."""
    lines = [evaluation.summary(), ""]
    for system in evaluation.systems:
        lines.append(f"{system.name}:")
        if system.calibration is not None:
            judged = system.calibration
            costs = ", ".join(
                f"actDCF({p:g}) {cost.plain()} at best {system.min_dcf[p].value:.3f}"
                for p, cost in judged.act_dcf.items()
            )
            lines.append(f"  Cllr {judged.cllr.plain()} bits, minCllr {judged.min_cllr:.3f}; {costs}")
        for each in system.thresholds:
            if each.threshold is None or each.rates is None:
                lines.append(f"  {each.purpose}: {each.advice}")
                continue
            accepts, misses = each.rates.false_accept_rate, each.rates.miss_rate
            shown = [estimate.percent() for estimate in (accepts, misses) if estimate is not None]
            lines.append(f"  {each.purpose}: threshold {each.threshold:.3f}; false accepts, misses: {', '.join(shown)}")
        for breakdown in system.breakdowns:
            lines += [f"  by {breakdown.column}: {worst.sentence()}" for worst in breakdown.worst]
    facts = evaluation.environment
    return "\n".join([*lines, "", f"{facts['hardware']}, commit {facts['commit'] or 'unknown'}"])


if __name__ == "__main__":
    try:
        call(pictures, sys.argv[1:], prog="benchmarks/report_pictures.py")
    except ParvoxError as error:
        sys.exit(f"benchmarks/report_pictures.py: error: {error}")
