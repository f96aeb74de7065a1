"""Pictures as inline SVG: no script, no font, colours from the page's style sheet.

Lines take their colour from the classes ``s0`` to ``s7``, text and axes from ``currentColor``, so that one picture
serves light and dark pages. They are drawn for a width of 420 units: readable on a phone, and scaled up elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from parvox.evaluation.calibration import ReliabilityPoint
from parvox.evaluation.measures import DetCurve
from parvox.evaluation.resampling import Interval
from parvox.evaluation.results import DetBand, Histogram

COLOURS = 8
WIDTH = 420

_CHARACTER = 6.2  # width of one, about
_BAR = 11  # height of a rate in a breakdown
_RATES = (1e-6, 1e-5, 1e-4, 5e-4, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Frame:
    """The area of a plot and how values fall on it.

    Attributes:
        left: Units left of the area.
        top: Units above it.
        width: Of the area.
        height: Of the area.
        x: Lower and upper end of the horizontal axis, in plotted values.
        y: Lower and upper end of the vertical axis.
    """

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    def across(self, values: ArrayLike) -> NDArray[np.float64]:
        """Horizontal places of values, kept inside the area."""
        part = (np.asarray(values, np.float64) - self.x[0]) / (self.x[1] - self.x[0])
        return self.left + self.width * np.clip(part, 0, 1)

    def down(self, values: ArrayLike) -> NDArray[np.float64]:
        """Vertical places of values, kept inside the area."""
        part = (np.asarray(values, np.float64) - self.y[0]) / (self.y[1] - self.y[0])
        return self.top + self.height * (1 - np.clip(part, 0, 1))

    def axes(
        self,
        x_ticks: Sequence[tuple[float, str]],
        y_ticks: Sequence[tuple[float, str]],
        x_label: str,
        y_label: str,
    ) -> str:
        """Border, grid, tick labels and axis labels."""
        right, bottom = self.left + self.width, self.top + self.height
        parts = []
        free = -np.inf  # where the next label may begin
        for value, text in x_ticks:
            at, half = float(self.across(value)), _CHARACTER * len(text) / 2
            parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{self.top}" y2="{bottom}"/>')
            if at - half >= free:
                parts.append(f'<text x="{at:.1f}" y="{bottom + 14}" text-anchor="middle">{escape(text)}</text>')
                free = at + half + _CHARACTER
        for value, text in y_ticks:
            at = float(self.down(value))
            parts.append(f'<line class="grid" x1="{self.left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text x="{self.left - 5}" y="{at + 4:.1f}" text-anchor="end">{escape(text)}</text>')
        parts.append(
            f'<rect class="frame" x="{self.left}" y="{self.top}" width="{self.width}" height="{self.height}"/>'
        )
        middle = self.left + self.width / 2
        if x_label:
            parts.append(
                f'<text class="label" x="{middle}" y="{bottom + 31}" text-anchor="middle">{escape(x_label)}</text>'
            )
        if y_label:
            middle = self.top + self.height / 2
            parts.append(
                f'<text class="label" transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">'
                f"{escape(y_label)}</text>"
            )
        return "".join(parts)


@dataclass(frozen=True, eq=False)
class DetLine:
    """One system of a DET plot.

    Attributes:
        name: Of the system.
        colour: 0 to 7.
        curve: Its operating points.
        band: Its confidence band, or None.
        eer: Marked with a dot on the diagonal.
    """

    name: str
    colour: int
    curve: DetCurve
    band: DetBand | None
    eer: float


@dataclass(frozen=True)
class Bar:
    """One rate of a breakdown.

    Attributes:
        system: Whose.
        what: Of which errors.
        colour: 0 to 7.
        filled: Whether its dot is.
        rate: The rate.
        interval: Of the rate; None where unknown.
    """

    system: str
    what: str
    colour: int
    filled: bool
    rate: float
    interval: Interval | None


def det_plot(lines: Sequence[DetLine], title: str, *, legend: bool = False) -> str:
    """DET curves on probit axes, with their bands and a dot at each EER.

    Args:
        lines: The systems.
        title: For those who cannot see the picture.
        legend: Name the systems within the picture; else the page does.
    """
    low, high = _det_range(lines)
    side, ends = WIDTH - 66, (float(ndtri(low)), float(ndtri(high)))
    frame = Frame(52, 8, side, side, ends, ends)
    ticks = [(float(ndtri(rate)), f"{100 * rate:g}") for rate in _RATES if low <= rate <= high]
    parts = [frame.axes(ticks, ticks, "false accepts, % of non-target trials", "misses, % of target trials")]
    first, last = frame.across(frame.x), frame.down(frame.y)
    parts.append(f'<line class="grid" x1="{first[0]:.1f}" y1="{last[0]:.1f}" x2="{first[1]:.1f}" y2="{last[1]:.1f}"/>')

    def probit(rates: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(ndtri(np.clip(rates, low / 10, 1 - 1e-9)))

    for line in lines:
        if line.band is not None:
            across = frame.across(probit(line.band.false_accept_rates))
            upper, lower = frame.down(probit(line.band.high)), frame.down(probit(line.band.low))
            outline = [*zip(across, upper, strict=True), *zip(across[::-1], lower[::-1], strict=True)]
            parts.append(f'<polygon class="band s{line.colour}" points="{_points(outline)}"/>')
    for line in lines:
        # A staircase: between two thresholds first one rate changes, then the other.
        across, down = probit(line.curve.false_accept_rates), probit(line.curve.miss_rates)
        stairs = _visible(frame, np.repeat(across, 2)[1:], np.repeat(down, 2)[:-1])
        parts.append(f'<polyline class="line s{line.colour}" points="{_points(stairs)}"/>')
    for line in lines:
        at = float(probit(line.eer))
        parts.append(
            f'<circle class="dot s{line.colour}" cx="{float(frame.across(at)):.1f}" cy="{float(frame.down(at)):.1f}" '
            f'r="4"><title>{escape(line.name)}: EER {100 * line.eer:.2f} %</title></circle>'
        )
    told = [f"{line.name}: EER {100 * line.eer:.2f} %" for line in lines]
    height = side + 48.0
    if legend:
        key, height = _legend(
            [(f"line s{line.colour}", words) for line, words in zip(lines, told, strict=True)], height
        )
        parts += key
    return svg(parts, WIDTH, height, f"{title}: {', '.join(told)}")


def histogram_plot(histogram: Histogram, colour: int, threshold: float, title: str) -> str:
    """Target scores in the system's colour, non-target scores in grey, and the threshold at the EER."""
    top = max(float(histogram.target.max()), float(histogram.nontarget.max()))
    edges = histogram.edges
    frame = Frame(14, 18, WIDTH - 28, 130, (float(edges[0]), float(edges[-1])), (0.0, 1.05 * top))
    parts = [frame.axes([(value, f"{value:g}") for value in nice_ticks(edges[0], edges[-1])], [], "score", "")]
    for shares, style in ((histogram.nontarget, "bars other"), (histogram.target, f"bars s{colour}")):
        across, down = frame.across(np.repeat(edges, 2)), frame.down(np.concatenate([[0], np.repeat(shares, 2), [0]]))
        parts.append(f'<polygon class="{style}" points="{_points(zip(across, down, strict=True))}"/>')
    at = float(frame.across(threshold))
    anchor = "start" if at < WIDTH / 2 else "end"
    parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{frame.top}" y2="{frame.top + frame.height}"/>')
    parts.append(f'<text x="{at:.1f}" y="12" text-anchor="{anchor}">threshold at EER {threshold:.3f}</text>')
    return svg(parts, WIDTH, 184, title)


def reliability_plot(points: Sequence[ReliabilityPoint], colour: int, title: str) -> str:
    """Claimed against observed log-likelihood ratios, with intervals and the diagonal."""
    shown = [value for point in points for value in (point.claimed, point.observed)]
    most = max([3.0, *(abs(value) for value in shown)]) * 1.1
    frame = Frame(46, 8, WIDTH - 58, 260, (-most, most), (-most, most))
    ticks = [(value, f"{value:g}") for value in nice_ticks(-most, most)]
    parts = [frame.axes(ticks, ticks, "evidence claimed (log-likelihood ratio)", "evidence found")]
    ends = frame.across([-most, most]), frame.down([-most, most])
    parts.append(
        f'<line class="mark" x1="{ends[0][0]:.1f}" y1="{ends[1][0]:.1f}" x2="{ends[0][1]:.1f}" y2="{ends[1][1]:.1f}"/>'
    )
    for point in points:
        at, down = float(frame.across(point.claimed)), float(frame.down(point.observed))
        if point.interval is not None:
            low, high = float(frame.down(point.interval.low)), float(frame.down(point.interval.high))
            parts.append(
                f'<line class="line s{colour} solid" x1="{at:.1f}" x2="{at:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
            )
        words = f"claimed {point.claimed:.2f}, found {point.observed:.2f}, {point.targets}:{point.nontargets} trials"
        parts.append(
            f'<circle class="dot s{colour}" cx="{at:.1f}" cy="{down:.1f}" r="4"><title>{words}</title></circle>'
        )
    return svg(parts, WIDTH, 306, title)


def breakdown_plot(groups: Sequence[str], bars: Sequence[Sequence[Bar]], title: str, *, legend: bool = False) -> str:
    """Rates of misses (filled) and false accepts (hollow) of each group, with their intervals.

    Args:
        groups: Their names, from top to bottom.
        bars: For each group, its rates, system by system.
        title: For those who cannot see the picture.
        legend: Name the systems within the picture; else the page does.
    """
    shown = [bar for each in bars for bar in each]
    ends = [bar.rate if bar.interval is None else bar.interval.high for bar in shown]
    most = max([0.01, *ends])
    left = min(150.0, 18 + _CHARACTER * max(map(len, groups), default=0))
    heights = [_BAR * len(each) + 8 for each in bars]
    frame = Frame(left, 8, WIDTH - left - 14, float(sum(heights)), (0.0, 1.04 * most), (0.0, 1.0))
    ticks = [(value, f"{100 * value:g}") for value in nice_ticks(0.0, 1.04 * most)]
    parts = [frame.axes(ticks, [], "errors, % of trials", "")]
    top = frame.top
    for name, each, height in zip(groups, bars, heights, strict=True):
        if top > frame.top:
            parts.append(f'<line class="grid" x1="{left}" x2="{WIDTH - 14}" y1="{top:.1f}" y2="{top:.1f}"/>')
        parts.append(f'<text x="{left - 9:g}" y="{top + height / 2 + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        for number, bar in enumerate(each):
            down, at = top + 4 + _BAR * (number + 0.5), float(frame.across(bar.rate))
            if bar.interval is not None:
                low, high = frame.across([bar.interval.low, bar.interval.high])
                parts.append(
                    f'<line class="line s{bar.colour} solid" x1="{low:.1f}" x2="{high:.1f}" '
                    f'y1="{down:.1f}" y2="{down:.1f}"/>'
                )
            words = f"{bar.system}, {name}: {bar.what} {100 * bar.rate:.2f} %"
            parts.append(
                f'<circle class="dot s{bar.colour}{"" if bar.filled else " hollow"}" cx="{at:.1f}" cy="{down:.1f}" '
                f'r="3.5"><title>{escape(words)}</title></circle>'
            )
        top += height
    bottom = frame.top + frame.height + 40
    if legend:
        systems = dict.fromkeys((bar.system, bar.colour) for bar in shown)
        key, bottom = _legend([(f"line solid s{colour}", name) for name, colour in systems], bottom)
        parts += key
    return svg(parts, WIDTH, bottom, title)


def _legend(entries: Sequence[tuple[str, str]], top: float) -> tuple[list[str], float]:
    """Pieces of line with words beside them, below each other, and where they end."""
    parts, top = [], top + 8
    for style, words in entries:
        parts.append(f'<line class="{style}" x1="52" x2="80" y1="{top:g}" y2="{top:g}"/>')
        parts.append(f'<text class="label" x="88" y="{top + 4:g}">{escape(words)}</text>')
        top += 17
    return parts, top


def key_line(colour: int) -> str:
    """A piece of a system's line, for legends."""
    return (
        '<svg class="key" viewBox="0 0 26 8" aria-hidden="true">'
        f'<line class="line s{colour}" x1="0" x2="26" y1="4" y2="4"/></svg>'
    )


def nice_ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round values between two ends."""
    step = (high - low) / about
    size = 10.0 ** np.floor(np.log10(step)) if step > 0 else 1.0
    step = next(size * times for times in (1, 2, 5, 10) if size * times >= step)
    return [round(step * k, 10) for k in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]


def svg(parts: Iterable[str], width: float, height: float, title: str) -> str:
    """A picture with a title for those who cannot see it."""
    text = escape(title, quote=True)
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{text}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _det_range(lines: Sequence[DetLine]) -> tuple[float, float]:
    """Ends of both axes: from where single trials count to one half, or to beyond the worst EER."""
    smallest = min(
        float(rates[rates > 0].min())
        for line in lines
        for rates in (line.curve.miss_rates, line.curve.false_accept_rates)
    )
    worst = max(line.eer for line in lines)
    high = min((rate for rate in _RATES if rate >= max(0.4, min(1.3 * worst, 0.99))), default=_RATES[-1])
    # No lower than the curves come within the picture.
    entered = []
    for line in lines:
        misses, accepts = line.curve.miss_rates, line.curve.false_accept_rates
        inside = (misses <= high) & (accepts <= high)
        entered += [float(misses[inside].min(initial=high)), float(accepts[inside].min(initial=high))]
    low = max((rate for rate in _RATES if rate <= max(smallest, 0.5 * min(entered))), default=_RATES[0])
    return min(low, 0.02), high


def _visible(frame: Frame, x: NDArray[np.float64], y: NDArray[np.float64]) -> list[tuple[float, float]]:
    """The points inside the area with one neighbour on each side, runs along a straight line reduced to its ends."""
    inside = (x >= frame.x[0]) & (x <= frame.x[1]) & (y >= frame.y[0]) & (y <= frame.y[1])
    shown = np.flatnonzero(inside)
    if not len(shown):
        return []
    part = slice(max(shown[0] - 1, 0), min(shown[-1] + 2, len(x)))
    across, down = np.round(frame.across(x[part]), 1), np.round(frame.down(y[part]), 1)
    kept: list[tuple[float, float]] = []
    for point in zip(across.tolist(), down.tolist(), strict=True):
        if kept and point == kept[-1]:
            continue
        straight = len(kept) > 1 and (kept[-1][0] == kept[-2][0] == point[0] or kept[-1][1] == kept[-2][1] == point[1])
        if straight:
            kept[-1] = point
        else:
            kept.append(point)
    return kept


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
