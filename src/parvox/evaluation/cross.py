"""Cross products too large for a list: scored block by block, only their scores are kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parvox.errors import TrialError
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.normalisation import CohortStatistics
from parvox.progress import progress

_BLOCK_BYTES = 32 << 20


def cross_scores(
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    left_speaker: ArrayLike,
    right_speaker: ArrayLike,
    *,
    each_pair_once: bool = False,
    statistics: tuple[CohortStatistics, CohortStatistics] | None = None,
) -> ScoreSet:
    """Score every row of one matrix with every row of another, four bytes a pair.

    Args:
        left: (n, dim) enrolment sides.
        right: (m, dim) test sides.
        left_speaker: (n,) whole numbers.
        right_speaker: (m,) whole numbers.
        each_pair_once: Both matrices are the same utterances; pairs of i and j are taken where i < j.
        statistics: Of both sides, for S-norm or AS-norm.

    Returns:
        All scores, ready for EER, minDCF and DET.

    Raises:
        TrialError: the sides do not go together, or there is no pair of one kind.
    """
    first, second = np.asarray(left_speaker), np.asarray(right_speaker)
    if len(first) != len(left) or len(second) != len(right) or left.shape[1:] != right.shape[1:]:
        raise TrialError(
            f"embeddings {left.shape} and {right.shape} of {len(first)} and {len(second)} speakers given; expected "
            "equal sizes and a speaker for each row"
        )
    if each_pair_once and len(left) != len(right):
        raise TrialError(f"each pair once of {len(left)} and {len(right)} utterances; expected the same on both sides")
    targets, pairs = _count(first, second, each_pair_once)
    target, nontarget = np.empty(targets, np.float32), np.empty(pairs - targets, np.float32)
    at, beside = 0, 0
    rows = max(1, _BLOCK_BYTES // (4 * max(len(right), 1)))
    other_way = np.ascontiguousarray(right.T)
    for start in progress(range(0, len(left), rows), "score all pairs", unit="block"):
        part = slice(start, min(start + rows, len(left)))
        scores = left[part] @ other_way
        if statistics is not None:
            one, other = statistics
            scores = (
                (scores - one.mean[part, None]) / one.std[part, None] + (scores - other.mean) / other.std
            ) / np.float32(2)
        same = first[part, None] == second
        if each_pair_once:
            wanted = np.arange(part.start, part.stop)[:, None] < np.arange(len(right))
            same, others = same & wanted, ~same & wanted
        else:
            others = ~same
        found, rest = scores[same], scores[others]
        target[at : at + len(found)] = found
        nontarget[beside : beside + len(rest)] = rest
        at, beside = at + len(found), beside + len(rest)
    return ScoreSet(target, nontarget, in_place=True)


def _count(first: NDArray[np.int64], second: NDArray[np.int64], once: bool) -> tuple[int, int]:
    """Target pairs, and all pairs."""
    speakers = np.union1d(first, second)
    left = np.bincount(np.searchsorted(speakers, first), minlength=len(speakers)).astype(np.int64)
    right = np.bincount(np.searchsorted(speakers, second), minlength=len(speakers)).astype(np.int64)
    if once:
        return int((left * (left - 1) // 2).sum()), len(first) * (len(first) - 1) // 2
    return int(left @ right), len(first) * len(second)
