"""The comparison as pictures: each row's EER with its interval, a panel for each condition."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from comparison.summary import Line
from parvox.files import atomic_file

matplotlib.use("svg")
import matplotlib.pyplot as plt

_BLUE, _GREY = "#0a66c2", "#57606a"


def draw(lines: Sequence[Line], folder: Path) -> list[Path]:
    """One SVG file a group: rows below one another, conditions side by side, a line where the teacher is.

    Args:
        lines: From `summarise`.
        folder: Where the files go; those of the same name are replaced.

    Returns:
        The files.
    """
    written = []
    for group in dict.fromkeys(line.group for line in lines):
        path = folder / f"distillation-{group.replace('+', 'p')}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, overwrite=True) as temporary:
            temporary.write_text(_group([line for line in lines if line.group == group]), encoding="utf-8")
        written.append(path)
    return written


def _group(lines: Sequence[Line]) -> str:
    rows = list(dict.fromkeys(line.row for line in lines if line.row != "teacher"))[::-1]
    conditions = list(dict.fromkeys(line.condition for line in lines))
    style: Any = {"svg.hashsalt": "parvox", "svg.fonttype": "none", "font.size": 9, "axes.edgecolor": _GREY}
    with plt.rc_context(style):
        size = (2.2 + 2.2 * len(conditions), 1.1 + 0.27 * len(rows))
        figure, axes = plt.subplots(1, len(conditions), sharey=True, squeeze=False, figsize=size, layout="constrained")
        for axis, condition in zip(axes[0], conditions, strict=True):
            for line in (each for each in lines if each.condition == condition):
                if line.row == "teacher":
                    axis.axvline(100 * line.eer.value, color=_GREY, linestyle="--", linewidth=1)
                    continue
                place = rows.index(line.row)
                if line.eer.interval is not None:
                    ends = [100 * line.eer.interval.low, 100 * line.eer.interval.high]
                    axis.plot(ends, [place, place], color=_BLUE, alpha=0.35, linewidth=2, solid_capstyle="butt")
                axis.plot([100 * line.eer.value], [place], "o", color=_BLUE, markersize=5)
            axis.set_title(condition, color="#1b1f24")
            axis.set_xlabel("EER, %", color=_GREY)
            axis.set_yticks(range(len(rows)), rows, color="#1b1f24")
            axis.tick_params(colors=_GREY, labelcolor="#1b1f24")
            axis.grid(axis="x", color="#d8dee4", linewidth=0.6)
            axis.spines[["top", "right"]].set_visible(False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
        plt.close(figure)
    return text.getvalue()
