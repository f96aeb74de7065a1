"""One HTML file that holds an evaluation: tables and pictures, no script, no request to anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from parvox.evaluation.plots import COLOURS, DetLine, det_plot, histogram_plot, key_line
from parvox.evaluation.results import Evaluation, signed_points, write_csv, write_json
from parvox.evaluation.style import STYLE
from parvox.files import atomic_file, atomic_folder

Table = Sequence[Mapping[str, str]]

_SYNTHETIC = (
    "SYNTHETIC speech: these voices were made by a program. The figures show that everything works; they say nothing "
    "about real voices."
)


def write_report(
    path: Path,
    evaluations: Evaluation | Sequence[Evaluation],
    *,
    title: str = "Speaker verification report",
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
        temporary.write_text(page, encoding="utf-8")


def write_folder(
    folder: Path, evaluation: Evaluation, *, title: str = "Speaker verification report", overwrite: bool = False
) -> None:
    """Write report.html, results.json and results.csv, all or none.

    Raises:
        OutputError: `folder` exists and `overwrite` is false, or it cannot be written.
    """
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        write_report(temporary / "report.html", evaluation, title=title)
        write_json(temporary / "results.json", evaluation)
        write_csv(temporary / "results.csv", evaluation)


def render_report(
    evaluations: Evaluation | Sequence[Evaluation],
    *,
    title: str = "Speaker verification report",
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
    level = f"{100 * evaluation.level:g} %"
    parts = [f"<section><h2>{escape(heading)}</h2>" if many else "<section>"]
    parts.append(f"<p>{escape(_lead(evaluation))}</p>")
    parts.append(_systems_table(evaluation, more))
    parts += [f'<p class="note">{escape(note)}</p>' for note in (*evaluation.notes, *notes)]
    parts.append("<h3>Misses against false accepts</h3>")
    lines = [
        DetLine(system.name, number % COLOURS, system.det, system.band, system.eer.value)
        for number, system in enumerate(evaluation.systems)
    ]
    parts.append(f'<figure class="det">{det_plot(lines, "DET curves")}<figcaption>')
    parts.append(_legend([(line.name, f"EER {100 * line.eer:.2f} %") for line in lines]))
    banded = any(line.band is not None for line in lines)
    shade = f" Shaded: where the miss rate lies with {level} confidence, by resampling speakers." if banded else ""
    parts.append(
        "Each point of a line is one threshold; lower and further left is better. The dots are the equal error rates."
        f"{shade}</figcaption></figure>"
    )
    if evaluation.differences:
        parts.append("<h3>Is the difference real?</h3>")
        parts.append(_differences_table(evaluation))
    parts.append('<h3>Scores</h3><div class="grid2">')
    for number, system in enumerate(evaluation.systems):
        picture = histogram_plot(
            system.histogram, number % COLOURS, system.eer_threshold, f"Scores of {system.name}, target and non-target"
        )
        parts.append(
            f"<figure><figcaption><b>{escape(system.name)}</b> <span class='key'>"
            f'<i class="swatch s{number % COLOURS}"></i>same speaker <i class="swatch other"></i>different speakers'
            f"</span></figcaption>{picture}</figure>"
        )
    parts.append("</div>")
    parts.append(_facts(evaluation))
    parts.append("</section>")
    return "".join(parts)


def _lead(evaluation: Evaluation) -> str:
    """What the table says, in words."""
    if not evaluation.systems:
        return ""
    best = min(evaluation.systems, key=lambda system: system.eer.value)
    words = (
        f"{evaluation.speakers:,} speakers, {evaluation.target_trials:,} trials of the same speaker and "
        f"{evaluation.nontarget_trials:,} of different ones. "
    )
    if len(evaluation.systems) == 1:
        return words + f"{best.name} has an equal error rate of {best.eer.percent()}."
    words += f"The lowest equal error rate is that of {best.name}, {best.eer.percent()}."
    others = [
        difference.other if difference.system == best.name else difference.system
        for difference in evaluation.differences
        if difference.measure == "EER" and best.name in (difference.system, difference.other)
        if not difference.significant
    ]
    if others:
        words += f" These speakers do not suffice to tell it from {_and(others)}."
    elif evaluation.differences:
        words += " Its lead over each other system is larger than chance explains."
    return words


def _systems_table(evaluation: Evaluation, more: Table) -> str:
    extra = {next(iter(row.values())): dict(list(row.items())[1:]) for row in more}
    columns = list(dict.fromkeys(column for cells in extra.values() for column in cells))
    columns = [column for column in columns if not column.startswith(("EER", "minDCF"))]
    level = f"{100 * evaluation.level:g} %"
    priors = list(evaluation.systems[0].min_dcf)
    header = ["System", f"EER [{level}]", *(f"minDCF({p:g}) [{level}]" for p in priors), "Threshold at EER"]
    sizes = any(system.parameters for system in evaluation.systems) and "parameters" not in map(str.lower, columns)
    header += ["Parameters"] * sizes
    rows = []
    for number, system in enumerate(evaluation.systems):
        badge = ' <span class="badge">trained on SYNTHETIC</span>' if system.synthetic else ""
        rows.append(
            [
                f'<i class="swatch s{number % COLOURS}"></i>{escape(system.name)}{badge}',
                _two_lines(system.eer.percent()),
                *(_two_lines(system.min_dcf[p].plain()) for p in priors),
                f"{system.eer_threshold:.3f}",
                *[_count(system.parameters)] * sizes,
                *(escape(extra.get(system.name, {}).get(column, "")) for column in columns),
            ]
        )
    for name in extra.keys() - {system.name for system in evaluation.systems}:
        cells = (escape(extra[name].get(column, "")) for column in columns)
        rows.append([escape(name), *[""] * (len(header) - 1), *cells])
    return html_table([*header, *columns], rows)


def _differences_table(evaluation: Evaluation) -> str:
    measures = list(dict.fromkeys(difference.measure for difference in evaluation.differences))
    rows: dict[str, list[str]] = {}
    for difference in evaluation.differences:
        pair = f"{escape(difference.system)}<small>minus {escape(difference.other)}</small>"
        shown = signed_points(difference.difference) if difference.measure == "EER" else difference.difference.signed()
        if difference.p_value is None:
            verdict = "unknown"
        else:
            verdict = f"{'beyond chance' if difference.significant else 'may be chance'}, p = {difference.p_value:.3f}"
        cell = f"{_two_lines(shown)}<small>{verdict}</small>"
        rows.setdefault(pair, []).append(f"<b>{cell}</b>" if difference.significant else cell)
    level = f"{100 * evaluation.level:g} %"
    return html_table(
        ["Systems", *(f"{measure} [{level}]" for measure in measures)], [[pair, *cells] for pair, cells in rows.items()]
    )


def _facts(evaluation: Evaluation) -> str:
    environment = evaluation.environment
    scoring = {system.scoring for system in evaluation.systems if system.scoring}
    facts = {
        "Corpus": evaluation.corpus + (" (SYNTHETIC)" if evaluation.synthetic else ""),
        "Corpus fingerprint": evaluation.corpus_fingerprint,
        "Split": evaluation.split,
        "Trials": evaluation.trials,
        "Trials SHA-256": evaluation.trials_sha256,
        "Speakers, utterances": f"{evaluation.speakers:,}, {evaluation.utterances:,}",
        "Scoring": "; ".join(sorted(scoring)),
        "Intervals": f"{evaluation.replicates:,} bootstrap replicates by speaker, seed {evaluation.seed}"
        if evaluation.replicates
        else "none",
        "Costs": f"miss {evaluation.c_miss:g}, false accept {evaluation.c_fa:g}",
        "Parvox": " ".join(filter(None, [environment.get("parvox_version"), environment.get("commit")])),
        "Hardware": environment.get("hardware", ""),
        "Made": environment.get("date", ""),
    }
    items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items() if value)
    return f"<h3>How this was made</h3><dl>{items}</dl>"


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls by itself where the page is narrow.

    Args:
        header: Plain text; what is in square brackets goes on a line of its own.
        rows: HTML of the cells.
    """
    head = "".join(f"<th>{_header(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{cell}</td>" if number else f"<th>{cell}</th>" for number, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="table">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    items = "".join(
        f"<li>{key_line(number % COLOURS)}<b>{escape(name)}</b> {escape(text)}</li>"
        for number, (name, text) in enumerate(entries)
    )
    return f'<ul class="legend">{items}</ul>'


def _two_lines(text: str) -> str:
    """An estimate with its interval below."""
    value, _, rest = text.partition(" [")
    interval, _, unit = rest.partition("]")
    return f"{escape(value)}{escape(unit)}<small>[{escape(interval)}]</small>"


def _header(text: str) -> str:
    name, bracket, rest = text.partition(" [")
    return f"{escape(name)}<small>[{escape(rest)}</small>" if bracket else escape(name)


def _count(number: int) -> str:
    if number >= 10**6:
        return f"{number / 1e6:.2f} M"
    return f"{number / 1e3:.0f} k" if number >= 10**4 else f"{number:,}"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
