"""Error rates with speakers drawn anew: kept beside the results they belong to, and set against each other.

An interval of one rate needs them once; an interval of a ratio needs those of both rates, which may be measured on
another day and another machine. So they lie in the repository: in a CSV file, each draw as a 16-bit whole number.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parvox.evaluation.estimate import Estimate
from parvox.evaluation.resampling import interval
from rows import Rows

_FULL, _NONE = 65534, 65535  # a rate of 1, the next smaller one being 0.000015 below; and none at all


class Draws:
    """Draws of rates between 0 and 1, in the file beside a results file.

    Args:
        results: The results file; that of the draws is named after it.
        key: Columns that tell its rows apart.
        rates: Names of the rates.
    """

    def __init__(self, results: Path, key: Sequence[str], rates: Sequence[str]) -> None:
        self._rows = Rows(results.with_name(f"{results.stem}-draws.csv"), key)
        self._rates = tuple(rates)

    def has(self, **key: object) -> bool:
        """Whether there are draws for that key."""
        return self._rows.find(**key) is not None

    def put(self, key: Mapping[str, object], draws: NDArray[np.float64]) -> None:
        """Keep `draws` (rates, replicates), in the place of those with the same key."""
        whole = np.where(np.isnan(draws), _NONE, np.rint(np.nan_to_num(draws) * _FULL)).astype("<u2")
        text = [base64.b64encode(each.tobytes()).decode() for each in whole]
        self._rows.put({**key, **dict(zip(self._rates, text, strict=True))})

    def get(self, **key: object) -> NDArray[np.float64] | None:
        """(rates, replicates), or None where there are none for that key."""
        row = self._rows.find(**key)
        if row is None:
            return None
        whole = np.stack([np.frombuffer(base64.b64decode(row[rate]), "<u2") for rate in self._rates])
        return np.where(whole == _NONE, np.nan, whole / _FULL)


class Rate(NamedTuple):
    """A rate of one run.

    Attributes:
        found: On all speakers.
        drawn: (replicates,) with speakers drawn anew, alike for all runs on the same trials; NaN where there are none.
    """

    found: float
    drawn: NDArray[np.float64]


def mean(rates: Sequence[Rate]) -> Estimate:
    """Their mean, with an interval where all have draws."""
    return Estimate(float(np.mean([rate.found for rate in rates])), interval(_mean_draw(rates)))


def ratio(above: Mapping[int, Rate], below: Mapping[int, Rate]) -> Estimate | None:
    """The ratio of means over the seeds that both have; None without one.

    Args:
        above: Rates by seed.
        below: Rates by seed, on the same trials.
    """
    seeds = sorted(above.keys() & below.keys())
    if not seeds:
        return None
    upper, lower = ([rates[seed] for seed in seeds] for rates in (above, below))
    divisor = float(np.mean([rate.found for rate in lower]))
    value = float(np.mean([rate.found for rate in upper])) / divisor if divisor else float("nan")
    with np.errstate(divide="ignore", invalid="ignore"):
        return Estimate(value, interval(_mean_draw(upper) / _mean_draw(lower)))


def _mean_draw(rates: Sequence[Rate]) -> NDArray[np.float64]:
    drawn: NDArray[np.float64] = np.mean([rate.drawn for rate in rates], axis=0)
    return drawn
