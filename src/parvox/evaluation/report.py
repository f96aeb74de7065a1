"""One HTML file that holds an evaluation: tables and pictures, no script, no request to anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from parvox.errors import OutputError
from parvox.evaluation.report_parts import PARTS, Table, lowest_eer, systems_table
from parvox.evaluation.result_files import write_csv, write_json
from parvox.evaluation.results import Evaluation, conjoined, quoted
from parvox.evaluation.style import STYLE
from parvox.files import atomic_file, atomic_folder, refuse_overwrite

REPORT, RESULTS, TABLE = "report.html", "results.json", "results.csv"
_TITLE = "Speaker verification report"
_SYNTHETIC = (
    "SYNTHETIC speech: these voices were made by a program. The figures show that everything works; they say nothing "
    "about real voices."
)


def write_report(
    path: Path,
    evaluations: Evaluation | Sequence[Evaluation],
    *,
    title: str = _TITLE,
    table: Table = (),
    notes: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Write a report.

    Args:
        path: The HTML file.
        evaluations: One section each; in most cases there is one.
        title: Of the page.
        table: More to say of each system: rows of column to text, the first column being the system's name. It is
            joined to the table of systems; columns that begin with EER or minDCF are in there already and left out.
        notes: Sentences to stand under the table.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OutputError: `path` exists and `overwrite` is false, or it cannot be written.
    """
    page = render_report(evaluations, title=title, table=table, notes=notes)
    with atomic_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")  # file names need not be text


def write_folder(folder: Path, evaluation: Evaluation, *, title: str = _TITLE, overwrite: bool = False) -> None:
    """Write report.html, results.json and results.csv, all or none.

    Raises:
        OutputError: `folder` exists and `overwrite` is false, or it cannot be written.
    """
    refuse_folder(folder, overwrite)
    with atomic_folder(folder, overwrite=overwrite, holds=RESULTS) as temporary:
        write_report(temporary / REPORT, evaluation, title=title)
        write_json(temporary / RESULTS, evaluation)
        write_csv(temporary / TABLE, evaluation)


def refuse_folder(folder: Path, overwrite: bool) -> None:
    """Raise `OutputError` if a report's folder cannot be written, or holds what no report put there."""
    refuse_overwrite(folder, overwrite, holds=RESULTS)
    if folder.is_dir():
        foreign = sorted(path.name for path in folder.iterdir() if path.name not in (REPORT, RESULTS, TABLE))
        if foreign:
            raise OutputError(
                f"{folder} holds {foreign[0]!r}, which is no part of a report and would be lost; move it away, or "
                "choose another folder"
            )


def render_report(
    evaluations: Evaluation | Sequence[Evaluation],
    *,
    title: str = _TITLE,
    table: Table = (),
    notes: Sequence[str] = (),
) -> str:
    """The page of `write_report`."""
    given = [evaluations] if isinstance(evaluations, Evaluation) else list(evaluations)
    synthetic = any(evaluation.synthetic for evaluation in given)
    shown = f"{title} (SYNTHETIC)" if synthetic else title
    sections = "".join(
        _section(evaluation, table, notes if number == 0 else (), many=len(given) > 1)
        for number, evaluation in enumerate(given)
    )
    banner = f'<p class="banner" role="note">{escape(_SYNTHETIC)}</p>' if synthetic else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(shown)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{escape(title)}</h1>{banner}{sections}</main></body></html>\n"
    )


def _section(evaluation: Evaluation, more: Table, notes: Sequence[str], *, many: bool) -> str:
    heading = f"{evaluation.corpus}, {evaluation.split}".strip(", ") or "Results"
    parts = [f"<section><h2>{escape(heading)}</h2>" if many else "<section>"]
    parts.append(f"<p>{escape(_lead(evaluation))}</p>")
    parts.append(systems_table(evaluation, more))
    parts += [f'<p class="note">{escape(note)}</p>' for note in (*evaluation.notes, *notes)]
    parts += [part(evaluation) for part in PARTS]
    return "".join(parts) + "</section>"


def _lead(evaluation: Evaluation) -> str:
    """What the table says, in words."""
    best = lowest_eer(evaluation)
    same, other = "the same speaker", "different ones"
    if evaluation.systems[0].kinds:
        same, other = "the same speaker with the same phrase", "another speaker or phrase"
    words = (
        f"{evaluation.speakers:,} speakers, {evaluation.target_trials:,} trials of {same} and "
        f"{evaluation.nontarget_trials:,} of {other}. "
    )
    if len(evaluation.systems) == 1:
        return words + f"{quoted(best.name)} has an equal error rate of {best.eer.percent()}."
    words += f"The lowest equal error rate is that of {quoted(best.name)}, {best.eer.percent()}."
    beside_best = [
        difference
        for difference in evaluation.differences
        if difference.measure == "EER" and best.name in (difference.system, difference.other)
    ]
    if not all(difference.known for difference in beside_best):
        return f"{words} Whether its lead is more than chance is unknown."
    others = [
        difference.other if difference.system == best.name else difference.system
        for difference in beside_best
        if not difference.significant
    ]
    if others:
        return f"{words} These speakers do not suffice to tell it from {conjoined(others)}."
    return f"{words} Its lead over each other system is larger than chance explains."
