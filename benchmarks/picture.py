"""Accuracy against operations, as an SVG file that any browser and any diff can read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from parvox.files import atomic_file

WIDTH, HEIGHT = 720, 440
LEFT, TOP, RIGHT, BOTTOM = 58, 16, 16, 48
_CHARACTER, _LINE = 6.4, 13  # about the size of a letter of the labels


class Point(NamedTuple):
    """One model.

    Attributes:
        name: Its label.
        mmacs: Millions of multiply-accumulates for 1 s.
        eer: In per cent.
        low: Lower end of the interval, in per cent.
        high: Upper end.
    """

    name: str
    mmacs: float
    eer: float
    low: float
    high: float


def draw(points: Sequence[Point], path: Path) -> None:
    """Write the picture: millions of multiply-accumulates to the right, EER upwards, both as logarithms.

    Args:
        points: Models.
        path: The SVG file; replaced if it is there.
    """
    x_ends = min(point.mmacs for point in points) / 1.3, max(point.mmacs for point in points) * 1.6
    y_ends = min(point.low for point in points) / 1.05, max(point.high for point in points) * 1.05

    def across(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * _part(value, *x_ends)

    def down(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - _part(value, *y_ends))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="11" fill="#57606a">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for value in _ticks(*x_ends):
        x = across(value)
        parts.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#d8dee4"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>')
    for value in _ticks(*y_ends):
        y = down(value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#d8dee4"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g} %</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle:.1f}" y="{HEIGHT - 10}" text-anchor="middle">multiply-accumulates for 1 s of speech, '
        "millions</text>"
    )
    parts.append(f'<text x="14" y="{TOP + 10}">EER</text>')
    taken = [(across(p.mmacs) - 5, down(p.eer) - 5, across(p.mmacs) + 5, down(p.eer) + 5) for p in points]
    for point in sorted(points, key=lambda point: point.mmacs):
        x, y = across(point.mmacs), down(point.eer)
        bar = f"M{x:.1f} {down(point.low):.1f}V{down(point.high):.1f}"
        parts.append(f'<path d="{bar}" stroke="#0a66c2" stroke-opacity="0.35" stroke-width="2"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#0a66c2"/>')
        box = _place(x, y, len(point.name) * _CHARACTER, taken)
        taken.append(box)
        parts.append(f'<text x="{box[0]:.1f}" y="{box[3] - 3:.1f}" fill="#1b1f24">{escape(point.name)}</text>')
    parts.append("</svg>")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, overwrite=True) as temporary:
        temporary.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _part(value: float, low: float, high: float) -> float:
    return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two values: 1, 2 and 5 times powers of ten, and those between where that gives few."""
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), tuple(1 + tenth / 10 for tenth in range(90))):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [round(step * 10**power, 9) for power in powers for step in steps if low <= step * 10**power <= high]
        if len(found) >= 3:
            return found
    return [low, high]


Box = tuple[float, float, float, float]


def _place(x: float, y: float, width: float, taken: list[Box]) -> Box:
    """Where a label beside (x, y) covers least of what is there: left, top, right, bottom."""
    lefts = (x + 8, x - width - 8, x - width / 2)
    boxes = [
        (left, y + shift, left + width, y + shift + _LINE)
        for shift in (-_LINE / 2, -_LINE - 6, 6, -2 * _LINE - 4, _LINE + 6)
        for left in lefts
        if left >= LEFT and left + width <= WIDTH and y + shift > 0
    ]
    return min(boxes, key=lambda box: sum(_overlap(box, other) for other in taken))


def _overlap(one: Box, other: Box) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0) * max(down, 0)
