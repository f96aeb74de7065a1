"""A measure with its confidence interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from parvox.evaluation.resampling import Interval


@dataclass(frozen=True)
class Estimate:
    """A measure and its confidence interval; None where it is unknown."""

    value: float
    interval: Interval | None

    def percent(self) -> str:
        """As a percentage, with the interval: ``2.31 % [1.80, 2.95]``."""
        return _with_interval(f"{100 * self.value:.2f} %", self.interval, lambda x: f"{100 * x:.2f}")

    def plain(self, digits: int = 3) -> str:
        """As a number, with the interval: ``0.231 [0.180, 0.295]``."""
        return _with_interval(f"{self.value:.{digits}f}", self.interval, lambda x: f"{x:.{digits}f}")

    def signed(self) -> str:
        """As a difference, with the interval: ``+0.031 [-0.020, +0.082]``."""
        return _with_interval(f"{self.value:+.3f}", self.interval, lambda x: f"{x:+.3f}")

    def points(self) -> str:
        """As a difference of rates in percentage points, with the interval: ``-0.42 [-0.80, -0.11] points``."""
        return _with_interval(f"{100 * self.value:+.2f}", self.interval, lambda x: f"{100 * x:+.2f}") + " points"

    def to_dict(self) -> dict[str, float | None]:
        """For JSON: value, low and high."""
        low, high = (None, None) if self.interval is None else (self.interval.low, self.interval.high)
        return {"value": self.value, "low": low, "high": high}


def _with_interval(value: str, found: Interval | None, show: Callable[[float], str]) -> str:
    return f"{value} [unknown]" if found is None else f"{value} [{show(found.low)}, {show(found.high)}]"
