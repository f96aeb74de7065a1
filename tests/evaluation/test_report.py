"""The report as a page: well-formed, self-contained, and saying what was found."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.special import ndtri
from test_evaluate import made

from parvox.errors import OutputError
from parvox.evaluation.calibration import ReliabilityPoint, fit_calibration
from parvox.evaluation.groups import group_trials
from parvox.evaluation.plots import (
    Bar,
    DetLine,
    breakdown_plot,
    det_plot,
    histogram_plot,
    nice_ticks,
    reliability_plot,
)
from parvox.evaluation.report import render_report, write_folder, write_report
from parvox.evaluation.resampling import Interval
from parvox.evaluation.results import Evaluation
from parvox.evaluation.score_evaluation import About, MeasureSettings, Tuned, choose_thresholds, evaluate_scores
from parvox.evaluation.style import standalone
from parvox.evaluation.trials import TrialIndex

VOID = {"meta", "link", "br", "hr", "img", "input"}
SVG = "{http://www.w3.org/2000/svg}"


class Page(HTMLParser):
    """Checks that tags nest, and collects text and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def evaluation(*, synthetic: bool = False, systems: int = 2, replicates: int = 200) -> Evaluation:
    _, trials, speakers = made(0.8, 1)
    names = ["big <teacher>", "small & quick", "third"][:systems]
    scores = {name: made(0.5 + 0.4 * number, number)[0] for number, name in enumerate(names)}
    about = About(corpus="voices", split="test", synthetic=synthetic)
    return evaluate_scores(scores, trials, speakers, MeasureSettings(replicates=replicates, seed=11), about=about)


def test_the_page_is_whole_and_asks_for_nothing() -> None:
    text = render_report(evaluation())
    page = Page(text)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for _, attributes in page.tags:
        assert not {"src", "href", "srcset", "action"} & attributes.keys()
    assert "url(" not in text
    assert "@import" not in text
    assert set(re.findall(r"https?://[^\"' <)]+", text)) == {"http://www.w3.org/2000/svg"}
    policy = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_names_cannot_break_the_page() -> None:
    page = Page(render_report(evaluation()))
    assert "big <teacher>" in page.text
    assert "small & quick" in page.text
    assert "teacher" not in {tag for tag, _ in page.tags}


def test_it_says_what_was_found_and_from_what() -> None:
    found = evaluation()
    text = Page(render_report(found, notes=["One thread."])).text
    for system in found.systems:
        interval = system.eer.interval
        assert interval is not None
        assert f"{100 * system.eer.value:.2f} %" in text
        assert f"[{100 * interval.low:.2f}, {100 * interval.high:.2f}]" in text
    assert found.trials_sha256 in text
    assert "200 bootstrap replicates by speaker, seed 11" in text
    assert "One thread." in text
    assert "The lowest equal error rate is that of “big <teacher>”" in text
    assert found.environment["hardware"] in text


def test_without_intervals_nobody_leads() -> None:
    found = evaluation(replicates=0)
    assert "Whether its lead is more than chance is unknown" in Page(render_report(found)).text
    (line,) = (line for line in found.summary().splitlines() if " minus " in line)
    assert line.endswith("points")
    assert "(differs)" in evaluation().summary()


def test_synthetic_speech_is_labelled_everywhere() -> None:
    page = render_report(evaluation(synthetic=True), title="Mine")
    assert "<title>Mine (SYNTHETIC)</title>" in page
    assert "SYNTHETIC speech: these voices were made by a program" in page
    assert "voices (SYNTHETIC)" in page
    assert "SYNTHETIC" not in render_report(evaluation())


def test_a_table_from_elsewhere_is_joined() -> None:
    rows = [
        {"model": "small & quick", "parameters": "0.89 M", "EER [95 %]": "99 %", "minDCF": "9.999"},
        {"model": "not evaluated", "parameters": "1.23 M", "EER [95 %]": "", "minDCF": ""},
    ]
    page = render_report(evaluation(), table=rows)
    text = Page(page).text
    assert "0.89 M" in text
    assert "not evaluated" in text
    assert "99 %" not in text
    assert "9.999" not in text
    header = page[page.index("<thead>") : page.index("</thead>")]
    assert header.count("<th>") == 6
    for row in re.findall(r"<tr><th>.*?</tr>", page[page.index("<tbody>") : page.index("</tbody>")]):
        assert row.count("<td>") == 5


def test_several_evaluations_have_a_section_each() -> None:
    page = render_report([evaluation(), evaluation(systems=1)])
    assert page.count("<section>") == 2
    assert page.count("<h2>voices, test</h2>") == 2
    assert page.count("Is the difference real?") == 1  # one system alone differs from nothing


def test_files_are_written_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", evaluation())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "report.html",
        "results.csv",
        "results.json",
    ]
    with pytest.raises(OutputError, match="exists already"):
        write_folder(tmp_path / "out", evaluation())
    with pytest.raises(OutputError, match="exists already"):
        write_report(tmp_path / "out" / "report.html", evaluation())


def test_det_curves_lie_where_the_rates_are() -> None:
    system = evaluation(systems=1).systems[0]
    root = ElementTree.fromstring(det_plot([DetLine("a", 0, system.det, system.band, system.eer.value)], "DET"))
    frame = next(each for each in root.iter(f"{SVG}rect") if each.get("class") == "frame")
    left, top, side = (float(frame.get(key, "")) for key in ("x", "y", "width"))
    dot = root.find(f"{SVG}circle")
    assert dot is not None
    ticks = {
        each.text: float(each.get("x", ""))
        for each in root.iter(f"{SVG}text")
        if each.get("text-anchor") == "middle" and each.get("transform") is None
    }
    # Probit axes: distances on the page are distances in ndtri.
    scale = (ticks["40"] - ticks["5"]) / (ndtri(0.4) - ndtri(0.05))
    assert float(dot.get("cx", "")) == pytest.approx(
        ticks["5"] + scale * (ndtri(system.eer.value) - ndtri(0.05)), abs=0.2
    )
    assert float(dot.get("cx", "")) - left == pytest.approx(top + side - float(dot.get("cy", "")), abs=0.2)
    line = next(each for each in root.iter(f"{SVG}polyline"))
    points = np.array([pair.split(",") for pair in line.get("points", "").split()], float)
    assert ((points[:, 0] >= left - 0.1) & (points[:, 0] <= left + side + 0.1)).all()
    steps = np.diff(points, axis=0)
    order = np.sign(points[-1, 0] - points[0, 0])
    assert (steps[:, 0] * order >= 0).all()
    assert (steps[:, 1] * order >= 0).all()  # fewer false accepts, more misses: left is up
    distance = np.abs(points[:, 0] - left - (top + side - points[:, 1]))  # from the diagonal
    assert distance.min() < 10


def test_histograms_are_pictures_with_a_threshold() -> None:
    system = evaluation(systems=1).systems[0]
    root = ElementTree.fromstring(histogram_plot(system.histogram, 0, system.eer_threshold, "scores"))
    assert root.get("aria-label") == "scores"
    assert len(list(root.iter(f"{SVG}polygon"))) == 2
    assert any(f"{system.eer_threshold:.3f}" in (text.text or "") for text in root.iter(f"{SVG}text"))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-1, 1, [-1, -0.5, 0, 0.5, 1]), (0, 6, [0, 1, 2, 3, 4, 5, 6]), (0.31, 0.33, [0.31, 0.315, 0.32, 0.325, 0.33])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(expected)


def everything() -> Evaluation:
    """Two systems with thresholds, a calibration, a breakdown and kinds."""
    scores, trials, speakers = made(0.8, 1)
    speakers = dataclasses.replace(speakers, same_text=np.arange(len(trials)) % 3 > 0)
    columns = trials.enrol, trials.test, trials.target & speakers.same_text
    trials = TrialIndex(trials.ids, *columns, name="other.trials", sha256="0" * 64)
    calibration = fit_calibration(scores, trials.target, fitted_on="dev <trials>")
    llr = calibration.apply(scores).astype(np.float32)
    settings = MeasureSettings(replicates=100, false_accept_rates=(0.1, 1e-5))
    weights = settings.weights(len(speakers.names))
    chosen = choose_thresholds(llr, trials, speakers, settings, weights)
    chosen = [dataclasses.replace(each, chosen_on="dev.trials") for each in chosen]
    values = {name: "fm"[int(name[1:3]) % 2] for name in trials.ids}
    return evaluate_scores(
        {"one & only": llr, "worse": (llr + 3 * np.random.default_rng(0).standard_normal(len(llr))).astype(np.float32)},
        trials,
        speakers,
        settings,
        about=About(paths={name: f"/audio/{name}.wav" for name in trials.ids}),
        groups=[group_trials(trials, values, "gender")],
        tuned={name: Tuned("dev", calibration, chosen) for name in ("one & only", "worse")},
    )


def test_every_part_says_its_piece() -> None:
    found = everything()
    page = Page(render_report(found))
    text = page.text
    system = found.systems[0]
    assert "of the same speaker with the same phrase and" in text
    assert "Chosen on dev.trials; the rates are what happened at them on other trials" in text
    assert "false accepts at most 10 %" in text
    assert "Unknown: " in text
    assert "pairs are needed for 0.001 %" in text
    assert "fitted on dev <trials>" in text
    assert system.calibration is not None
    assert f"{system.calibration.cllr.value:.3f}" in text
    assert f"at best {system.min_dcf[0.01].value:.3f}" in text
    assert "Most misses: " in text
    assert [word for word in ("f", "f / m", "m") if word not in page.words] == []
    assert "target-wrong" in text
    assert f"{100 * system.kinds[0].eer.value:.2f} %" in text
    assert f"{found.differences[0].wins:,} : {found.differences[0].losses:,}" in text
    hard = system.hardest[0]
    assert f"{hard.score:.3f}" in text
    assert f"/audio/{hard.enrol}.wav" in text
    assert sum(tag == "details" for tag, _ in page.tags) == 2


def test_parts_without_content_are_left_out() -> None:
    text = Page(render_report(evaluation())).text
    for heading in ("Can scores be believed?", "For whom is it worse?", "Right voice, wrong words"):
        assert heading not in text
    assert "on the same trials, so expect a little worse elsewhere" in text


def test_reliability_points_lie_where_they_claim() -> None:
    points = [ReliabilityPoint(-2.0, -2.0, None, 5, 50), ReliabilityPoint(3.0, 1.0, Interval(0.5, 2.0), 50, 5)]
    root = ElementTree.fromstring(reliability_plot(points, 1, "evidence"))
    dots = list(root.iter(f"{SVG}circle"))
    diagonal = next(each for each in root.iter(f"{SVG}line") if each.get("class") == "mark")
    x1, y1, x2, y2 = (float(diagonal.get(key, "")) for key in ("x1", "y1", "x2", "y2"))

    def height(x: float) -> float:
        return y1 + (x - x1) / (x2 - x1) * (y2 - y1)

    assert float(dots[0].get("cy", "")) == pytest.approx(height(float(dots[0].get("cx", ""))), abs=0.2)  # on the line
    assert float(dots[1].get("cy", "")) > height(float(dots[1].get("cx", ""))) + 5  # below it: claims too much
    whisker = next(each for each in root.iter(f"{SVG}line") if "solid" in (each.get("class") or ""))
    assert float(whisker.get("y2", "")) < float(dots[1].get("cy", "")) < float(whisker.get("y1", ""))


def test_rates_of_groups_stand_where_they_belong() -> None:
    """Dots from left to right as the rates rise, one line for each interval, hollow for false accepts."""
    bars = [
        [Bar("a", "misses", 0, True, 0.0, Interval(0.0, 0.1)), Bar("a", "false accepts", 0, False, 0.2, None)],
        [Bar("a", "misses", 0, True, 0.1, Interval(0.05, 0.4)), Bar("a", "false accepts", 0, False, 0.05, None)],
    ]
    root = ElementTree.fromstring(breakdown_plot(["f & m", "m"], bars, "Errors"))
    dots = root.findall(f"{SVG}circle")
    at = [float(dot.attrib["cx"]) for dot in dots]
    down = [float(dot.attrib["cy"]) for dot in dots]
    assert sorted(down) == down
    frame = root.find(f"{SVG}rect")
    assert frame is not None
    left, width = float(frame.attrib["x"]), float(frame.attrib["width"])
    shown = [0.0, 0.2, 0.1, 0.05]
    assert at == pytest.approx([left + width * rate / (1.04 * 0.4) for rate in shown], abs=0.06)
    assert [("hollow" in dot.attrib["class"]) for dot in dots] == [False, True, False, True]
    spans = [line for line in root.findall(f"{SVG}line") if "solid" in line.attrib["class"]]
    assert float(spans[1].attrib["x2"]) == pytest.approx(left + width * 0.4 / (1.04 * 0.4), abs=0.06)
    assert len(spans) == 2
    assert "f & m" in [text.text for text in root.findall(f"{SVG}text")]
    assert dots[1][0].text == "a, f & m: false accepts 20.00 %"


def test_a_picture_of_its_own_needs_no_page() -> None:
    system = evaluation(systems=1).systems[0]
    lines = [DetLine("a <b>", 0, system.det, system.band, system.eer.value)]
    text = standalone(det_plot(lines, "DET curves", legend=True))
    root = ElementTree.fromstring(text)
    assert "prefers-color-scheme:dark" in "".join(style.text or "" for style in root.findall(f"{SVG}style"))
    size = root.attrib["viewBox"].split()[2:]
    assert [root.attrib["width"], root.attrib["height"]] == size
    words = [each.text for each in root.findall(f"{SVG}text")]
    assert f"a <b>: EER {100 * system.eer.value:.2f} %" in words
    lowest = max(float(each.attrib["y"]) for each in root.findall(f"{SVG}text") if "y" in each.attrib)
    assert lowest < float(size[1])
