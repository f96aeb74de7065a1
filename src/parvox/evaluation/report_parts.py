"""The parts of the report: each makes the HTML of one table or picture with its words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from parvox.evaluation.estimate import Estimate
from parvox.evaluation.plots import (
    COLOURS,
    Bar,
    DetLine,
    breakdown_plot,
    det_plot,
    histogram_plot,
    key_line,
    reliability_plot,
)
from parvox.evaluation.rates import ErrorRates
from parvox.evaluation.results import Difference, Evaluation, SystemResult

Table = Sequence[Mapping[str, str]]


def systems_table(evaluation: Evaluation, more: Table) -> str:
    """One row a system, with the columns of a table from elsewhere joined to it."""
    extra = {next(iter(row.values())): dict(list(row.items())[1:]) for row in more}
    columns = list(dict.fromkeys(column for cells in extra.values() for column in cells))
    columns = [column for column in columns if not column.startswith(("EER", "minDCF"))]
    level = _level(evaluation)
    priors = list(evaluation.systems[0].min_dcf)
    header = ["System", f"EER [{level}]", *(f"minDCF({p:g}) [{level}]" for p in priors), "Threshold at EER"]
    sizes = any(system.parameters for system in evaluation.systems) and "parameters" not in map(str.lower, columns)
    header += ["Parameters"] * sizes
    rows = []
    for number, system in enumerate(evaluation.systems):
        badge = ' <span class="badge">trained on SYNTHETIC</span>' if system.synthetic else ""
        rows.append(
            [
                f"{_swatch(number)}{escape(system.name)}{badge}",
                two_lines(system.eer.percent()),
                *(two_lines(system.min_dcf[p].plain()) for p in priors),
                f"{system.eer_threshold:.4f}",
                *[_count(system.parameters)] * sizes,
                *(escape(extra.get(system.name, {}).get(column, "")) for column in columns),
            ]
        )
    for name in extra.keys() - {system.name for system in evaluation.systems}:
        cells = (escape(extra[name].get(column, "")) for column in columns)
        rows.append([escape(name), *[""] * (len(header) - 1), *cells])
    return html_table([*header, *columns], rows)


def det_lines(evaluation: Evaluation) -> list[DetLine]:
    """The DET curves of all systems, each in its colour."""
    return [
        DetLine(system.name, number % COLOURS, system.det, system.band, system.eer.value)
        for number, system in enumerate(evaluation.systems)
    ]


def det(evaluation: Evaluation) -> str:
    """DET curves of all systems."""
    lines = det_lines(evaluation)
    items = "".join(
        f"<li>{key_line(line.colour)}<b>{escape(line.name)}</b> EER {100 * line.eer:.2f} %</li>" for line in lines
    )
    shade = ""
    if any(line.band is not None for line in lines):
        shade = (
            f" Shaded: where the miss rate lies with {_level(evaluation)} confidence, by resampling speakers. Whether "
            "systems with overlapping shades differ is told below."
        )
    return (
        f'<h3>Misses against false accepts</h3><figure class="det">{det_plot(lines, "DET curves")}<figcaption>'
        f'<ul class="legend">{items}</ul>Each point of a line is one threshold; lower and further left is better. '
        f"The dots are the equal error rates.{shade}</figcaption></figure>"
    )


def differences(evaluation: Evaluation) -> str:
    """Whether systems differ, pair by pair."""
    if not evaluation.differences:
        return ""
    measures = list(dict.fromkeys(difference.measure for difference in evaluation.differences))
    rows: dict[str, list[str]] = {}
    for difference in evaluation.differences:
        pair = f"{escape(difference.system)}<small>minus {escape(difference.other)}</small>"
        cells = rows.setdefault(pair, [])
        cells.append(_difference(difference))
        if len(cells) == len(measures):
            cells.append(f"{difference.wins:,} : {difference.losses:,}")
    level = _level(evaluation)
    header = ["Systems", *(f"{measure} [{level}]" for measure in measures), "Alone right [trials]"]
    return (
        "<h3>Is the difference real?</h3>"
        + html_table(header, [[pair, *cells] for pair, cells in rows.items()])
        + '<p class="note">Both systems meet the same resampled speakers. Alone right: trials that only the first, and '
        "that only the other system decides rightly, each at its threshold of equal error rates.</p>"
    )


def _difference(difference: Difference) -> str:
    shown = difference.difference.points() if difference.measure == "EER" else difference.difference.signed()
    if difference.p_value is None:
        verdict = "unknown"
    else:
        verdict = f"{'beyond chance' if difference.significant else 'may be chance'}, p = {difference.p_value:.3f}"
    cell = f"{two_lines(shown)}<small>{verdict}</small>"
    return f"<b>{cell}</b>" if difference.significant else cell


def histograms(evaluation: Evaluation) -> str:
    """Target and non-target scores of each system."""
    parts = []
    for number, system in enumerate(evaluation.systems):
        picture = histogram_plot(
            system.histogram, number % COLOURS, system.eer_threshold, f"Scores of {system.name}, target and non-target"
        )
        parts.append(
            f"<figure><figcaption><b>{escape(system.name)}</b> <span class='key'>"
            f'{_swatch(number)}same speaker <i class="swatch other"></i>different speakers'
            f"</span></figcaption>{picture}</figure>"
        )
    return f'<h3>Scores</h3><div class="grid2">{"".join(parts)}</div>'


def thresholds(evaluation: Evaluation) -> str:
    """Thresholds for each purpose, and what happens at them."""
    if not any(system.thresholds for system in evaluation.systems):
        return ""
    parts = ["<h3>Thresholds</h3>"]
    chosen = sorted({each.chosen_on for system in evaluation.systems for each in system.thresholds})
    where = "the same trials, so expect a little worse elsewhere"
    if chosen != [evaluation.trials]:
        where = "other trials, those of this report"
    parts.append(
        f'<p class="note">Chosen on {escape("; ".join(chosen))}; the rates are what happened at them on {where}.</p>'
    )
    rows = []
    for number, system in enumerate(evaluation.systems):
        for each in system.thresholds:
            place = f"{_swatch(number)}{escape(system.name)}"
            if each.threshold is None:
                rows.append([place, escape(each.purpose), "unknown", "", "", f"<em>{escape(each.advice)}</em>"])
                continue
            span = "" if each.interval is None else f" [{each.interval.low:.4f}, {each.interval.high:.4f}]"
            rows.append(
                [
                    place,
                    escape(each.purpose),
                    two_lines(f"{each.threshold:.4f}{span}"),
                    *_rate_cells(each.rates),
                    escape(each.advice),
                ]
            )
    level = _level(evaluation)
    header = ["System", "Wanted", f"Threshold [{level}]", f"False accepts [{level}]", f"Misses [{level}]", "Mind"]
    return "".join(parts) + html_table(header, rows, wrap=True)


def calibration(evaluation: Evaluation) -> str:
    """How far scores can be believed."""
    judged = [(n, system, system.calibration) for n, system in enumerate(evaluation.systems) if system.calibration]
    if not judged:
        return ""
    level = _level(evaluation)
    priors = list(judged[0][2].act_dcf)
    header = ["System", f"Cllr, bits [{level}]", "minCllr"]
    header += [f"actDCF({p:g}) [{level}]" for p in priors]
    rows, pictures = [], []
    for number, system, result in judged:
        actual = [
            f"{two_lines(result.act_dcf[p].plain())}<small>at best {system.min_dcf[p].value:.3f}</small>"
            for p in priors
        ]
        name = f"{_swatch(number)}{escape(system.name)}"
        rows.append([name, two_lines(result.cllr.plain()), f"{result.min_cllr:.3f}", *actual])
        picture = reliability_plot(result.points, number % COLOURS, f"Claimed and observed evidence of {system.name}")
        pictures.append(f"<figure><figcaption><b>{escape(system.name)}</b></figcaption>{picture}</figure>")
    rows += [
        [f"{_swatch(number)}{escape(system.name)}", *["unknown"] * (len(header) - 1)]
        for number, system in enumerate(evaluation.systems)
        if system.uncalibrated
    ]
    fitted = "; ".join(sorted({result.calibration.fitted_on for _, _, result in judged}))
    return (
        "<h3>Can scores be believed?</h3>"
        f'<p class="note">Scores are log-likelihood ratios, fitted on {escape(fitted)}. Cllr is what they cost in bits '
        "(0 is perfect, 1 is knowing nothing), minCllr what they would cost with the best possible map; actDCF is the "
        "cost at the threshold that prior and costs dictate. In the pictures, points on the diagonal claim as much "
        "evidence as there is; below it on the right, or above it on the left, they claim too much.</p>"
        + html_table(header, rows)
        + f'<div class="grid2">{"".join(pictures)}</div>'
    )


def breakdowns(evaluation: Evaluation) -> str:
    """Error rates by group, the worst named."""
    parts = []
    key = " ".join(
        f'<span class="key">{_swatch(number)}{escape(system.name)}</span>'
        for number, system in enumerate(evaluation.systems)
    )
    columns = [each.column for each in evaluation.systems[0].breakdowns]
    for place, column in enumerate(columns):
        found = [system.breakdowns[place] for system in evaluation.systems]
        header = [column, "Speakers", "Trials [same : different]"]
        header += [f"{system.name} [misses, false accepts]" for system in evaluation.systems]
        rows = []
        for number, group in enumerate(found[0].groups):
            cells = [_rates_stacked(each.groups[number].rates) for each in found]
            count = f"{group.rates.target_trials:,} : {group.rates.nontarget_trials:,}"
            rows.append([escape(group.name), f"{group.speakers:,}", count, *cells])
        parts.append(html_table(header, rows))
        parts.append(
            f'<figure class="groups"><figcaption>{key}</figcaption>{breakdown_picture(evaluation, place)}</figure>'
        )
        for system, each in zip(evaluation.systems, found, strict=True):
            words = " ".join(worst.sentence() for worst in each.worst)
            if words:
                parts.append(f'<p class="note"><b>{escape(system.name)}</b>: {escape(words)}</p>')
        if found[0].left_out:
            parts.append(f'<p class="note">{found[0].left_out:,} trials belong to no group.</p>')
    if not parts:
        return ""
    return (
        '<h3>For whom is it worse?</h3><p class="note">All groups at one threshold, that of equal error rates over all '
        "trials, for in use there is only one. In the pictures, full dots are misses, hollow ones false accepts.</p>"
        + "".join(parts)
    )


def breakdown_picture(evaluation: Evaluation, place: int, *, legend: bool = False) -> str:
    """The rates of all groups of one column, as an SVG.

    Args:
        evaluation: Where they are.
        place: Which of its breakdowns.
        legend: Name the systems within the picture.
    """
    found = [system.breakdowns[place] for system in evaluation.systems]
    bars = []
    for number in range(len(found[0].groups)):
        bars.append(
            [
                Bar(system.name, what, place % COLOURS, what == "misses", estimate.value, estimate.interval)
                for place, (system, each) in enumerate(zip(evaluation.systems, found, strict=True))
                for what, estimate in (
                    ("misses", each.groups[number].rates.miss_rate),
                    ("false accepts", each.groups[number].rates.false_accept_rate),
                )
                if estimate is not None
            ]
        )
    groups = [group.name for group in found[0].groups]
    return breakdown_plot(groups, bars, f"Errors by {found[0].column}", legend=legend)


def kinds(evaluation: Evaluation) -> str:
    """Text-dependent trials by kind."""
    if not any(system.kinds for system in evaluation.systems):
        return ""
    names = [kind.kind for kind in evaluation.systems[0].kinds]
    rows = [
        [f"{_swatch(number)}{escape(system.name)}", *(two_lines(kind.eer.percent()) for kind in system.kinds)]
        for number, system in enumerate(evaluation.systems)
    ]
    trials = {kind.kind: kind.trials for kind in evaluation.systems[0].kinds}
    header = ["EER against target-correct", *(f"{name} [{trials[name]:,} trials]" for name in names)]
    return f"<h3>Right voice, wrong words</h3>{html_table(header, rows)}"


def hardest(evaluation: Evaluation) -> str:
    """The trials to listen to, folded away for each system."""
    parts = []
    for number, system in enumerate(evaluation.systems):
        if not system.hardest:
            continue
        rows = [
            [
                "same" if trial.target else "different",
                f"{trial.score:.3f}{'' if trial.error else '<small>decided rightly</small>'}",
                f"{escape(trial.enrol)}<small>{escape(trial.enrol_path)}</small>",
                f"{escape(trial.test)}<small>{escape(trial.test_path)}</small>",
            ]
            for trial in system.hardest
        ]
        inner = html_table(["Speakers", "Score", "Enrolment", "Test"], rows, wrap=True)
        parts.append(f"<details><summary>{_swatch(number)}{escape(system.name)}</summary>{inner}</details>")
    if not parts:
        return ""
    return (
        '<h3>The hardest trials</h3><p class="note">The lowest scores of one speaker and the highest of two: listen to '
        f"them, some may be labelled wrongly.</p>{''.join(parts)}"
    )


def facts(evaluation: Evaluation) -> str:
    """What the numbers rest on."""
    environment = evaluation.environment
    scoring = {system.scoring for system in evaluation.systems if system.scoring}
    replicates = f"{evaluation.replicates:,} bootstrap replicates by speaker, seed {evaluation.seed}"
    found = {
        "Corpus": evaluation.corpus + (" (SYNTHETIC)" if evaluation.synthetic else ""),
        "Corpus fingerprint": evaluation.corpus_fingerprint,
        "Split": evaluation.split,
        "Trials": evaluation.trials,
        "Trials SHA-256": evaluation.trials_sha256,
        "Speakers, utterances": f"{evaluation.speakers:,}, {evaluation.utterances:,}",
        "Scoring": "; ".join(sorted(scoring)),
        "Intervals": replicates if evaluation.replicates else "none",
        "Costs": f"miss {evaluation.c_miss:g}, false accept {evaluation.c_fa:g}",
        "Parvox": " ".join(filter(None, [environment.get("parvox_version"), environment.get("commit")])),
        "Hardware": environment.get("hardware", ""),
        "Made": environment.get("date", ""),
    }
    items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in found.items() if value)
    return f"<h3>How this was made</h3><dl>{items}</dl>"


PARTS: tuple[Callable[[Evaluation], str], ...] = (
    det,
    differences,
    thresholds,
    kinds,
    breakdowns,
    calibration,
    histograms,
    hardest,
    facts,
)
"""In the order of the page, after the table of systems."""


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, wrap: bool = False) -> str:
    """A table that scrolls by itself where the page is narrow.

    Args:
        header: Plain text; what is in square brackets goes on a line of its own.
        rows: HTML of the cells.
        wrap: Let the text of cells wrap.
    """
    head = "".join(f"<th>{_header(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{cell}</td>" if place else f"<th>{cell}</th>" for place, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll{" wrap" if wrap else ""}" tabindex="0" role="region" aria-label="table">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def two_lines(text: str) -> str:
    """An estimate with its interval below."""
    value, bracket, rest = text.partition(" [")
    interval, _, unit = rest.partition("]")
    return f'{escape(value)}{escape(unit)}<small class="span">[{escape(interval)}]</small>' if bracket else escape(text)


def lowest_eer(evaluation: Evaluation) -> SystemResult:
    """The system with the lowest EER."""
    return min(evaluation.systems, key=lambda system: system.eer.value)


def _rate_cells(rates: ErrorRates | None) -> list[str]:
    if rates is None:
        return ["", ""]
    return [_percent(rates.false_accept_rate), _percent(rates.miss_rate)]


def _rates_stacked(rates: ErrorRates) -> str:
    lines = [
        "–" if estimate is None else escape(estimate.percent().replace(" [unknown]", ""))
        for estimate in (rates.miss_rate, rates.false_accept_rate)
    ]
    return "<br>".join(lines)


def _percent(estimate: Estimate | None) -> str:
    return "–" if estimate is None else two_lines(estimate.percent())


def _swatch(number: int) -> str:
    return f'<i class="swatch s{number % COLOURS}"></i>'


def _level(evaluation: Evaluation) -> str:
    return f"{100 * evaluation.level:g} %"


def _header(text: str) -> str:
    name, bracket, rest = text.partition(" [")
    return f"{escape(name)}<small>[{escape(rest)}</small>" if bracket else escape(name)


def _count(number: int) -> str:
    if number >= 10**6:
        return f"{number / 1e6:.2f} M"
    return f"{number / 1e3:.0f} k" if number >= 10**4 else f"{number:,}"
