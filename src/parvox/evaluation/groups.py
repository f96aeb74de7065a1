"""Which group each trial belongs to: by duration, gender, session or any column of a manifest."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from parvox.errors import TrialError, nearest
from parvox.evaluation.trials import TrialIndex

if TYPE_CHECKING:
    from lhotse.cut import Cut

DURATION = "duration_s"

_DURATION_EDGES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
_BANDS = 4
_MOST_NAMES = 12
_SUPERVISION = ("speaker", "text", "language", "gender")


@dataclass(frozen=True, eq=False)
class Groups:
    """A partition of trials.

    Attributes:
        column: What they are grouped by.
        names: The groups.
        of_trial: (trials,) place in `names`, or -1 for a trial of no group.
    """

    column: str
    names: list[str]
    of_trial: NDArray[np.int32]


def columns(cuts: Iterable[Cut]) -> list[str]:
    """The columns that utterances can be grouped by: those that at least one of them has."""
    found = {DURATION}
    for cut in cuts:
        found |= _values(cut).keys()
    return sorted(found)


def column_values(cuts: Mapping[str, Cut], column: str) -> dict[str, Any]:
    """The value of a column for each utterance; absent where it is unknown.

    Args:
        cuts: By utterance id.
        column: ``duration_s``, a field of the supervision (speaker, text, language, gender), or one of its or the
            cut's custom fields.

    Raises:
        TrialError: no utterance has it.
    """
    if column == DURATION:
        return {name: cut.duration for name, cut in cuts.items()}
    found = {name: values[column] for name, cut in cuts.items() if column in (values := _values(cut))}
    if not found:
        raise TrialError(f"unknown column {column!r}: {nearest(column, columns(cuts.values()))}")
    return found


def group_trials(trials: TrialIndex, values: Mapping[str, Any], column: str) -> Groups:
    """Group trials by the values of their two utterances.

    Numbers are grouped into bands of the smaller one, for the worse side decides: durations at 1, 2, 4, 8 and 16 s,
    others into four bands of as many utterances each. Names are grouped as such where both sides agree; a trial whose
    sides differ belongs to the pair of names, or to "differing" where there would be many pairs.

    Args:
        trials: The trials.
        values: By utterance id; a trial with an utterance that is absent belongs to no group.
        column: What they are.
    """
    known = [values[utterance] for utterance in trials.ids if utterance in values]
    if known and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known):
        return _bands(trials, values, column)
    names = sorted({str(value) for value in known})
    place = {name: number for number, name in enumerate(names)}
    of_id = np.array([place[str(values[u])] if u in values else -1 for u in trials.ids], np.int64)
    first, second = of_id[trials.enrol], of_id[trials.test]
    low, high = np.minimum(first, second), np.maximum(first, second)
    unknown = low < 0
    few = len(names) * (len(names) + 1) // 2 <= _MOST_NAMES
    if few:
        key = low * len(names) + high
        pairs = itertools.combinations_with_replacement(range(len(names)), 2)
        labels = {a * len(names) + b: names[a] if a == b else f"{names[a]} / {names[b]}" for a, b in pairs}
    elif len(names) <= _MOST_NAMES:
        key = np.where(low == high, low, len(names))
        labels = dict(enumerate([*names, "differing"]))
    else:
        key = (low != high).astype(np.int64)
        labels = {0: f"same {column}", 1: f"other {column}"}
    return _compact(column, np.where(unknown, -1, key), labels)


def _bands(trials: TrialIndex, values: Mapping[str, Any], column: str) -> Groups:
    of_id = np.array([float(values.get(utterance, np.nan)) for utterance in trials.ids])
    smaller = np.minimum(of_id[trials.enrol], of_id[trials.test])  # NaN where one is unknown
    if column == DURATION:
        edges: Sequence[float] = _DURATION_EDGES
    else:
        edges = np.unique(np.quantile(of_id[np.isfinite(of_id)], np.linspace(0, 1, _BANDS + 1)[:-1])).tolist()
    unit = " s" if column == DURATION else ""
    labels = {number: f"{low:.4g} to {high:.4g}{unit}" for number, (low, high) in enumerate(itertools.pairwise(edges))}
    labels[len(edges) - 1] = f"{edges[-1]:.4g}{unit} and more"
    with np.errstate(invalid="ignore"):
        band = np.searchsorted(np.asarray(edges), smaller, "right") - 1
    return _compact(column, np.where(np.isfinite(smaller), np.maximum(band, 0), -1), labels)


def _compact(column: str, key: NDArray[Any], labels: Mapping[int, str]) -> Groups:
    """Groups numbered in order, those without trials left out."""
    used = np.unique(key[key >= 0])
    of_trial = np.where(key >= 0, np.searchsorted(used, key), -1).astype(np.int32)
    return Groups(column, [labels[int(number)] for number in used], of_trial)


def _values(cut: Cut) -> dict[str, Any]:
    """All that is known of an utterance: supervision, its custom fields, the cut's."""
    found: dict[str, Any] = dict(cut.custom or {})
    for supervision in cut.supervisions[:1]:
        found |= supervision.custom or {}
        found |= {name: getattr(supervision, name) for name in _SUPERVISION}
    return {name: value for name, value in found.items() if isinstance(value, (str, int, float)) and value != ""}
