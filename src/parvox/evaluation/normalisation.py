"""Score normalisation against a cohort, computed once per embedding, never per trial.

A trial's score is compared with what each of its two sides scores against a cohort of other speakers:
``s' = ((s - mean_e) / std_e + (s - mean_t) / std_t) / 2``. S-norm takes mean and deviation over the whole cohort
(Shum et al., "Unsupervised speaker adaptation based on the cosine similarity for text-independent speaker
verification", Odyssey 2010), AS-norm over the K cohort members nearest to each side (Cumani et al., "Comparison of
speaker recognition approaches for real applications", Interspeech 2011; the variant called AS-norm1 in Matějka et al.,
"Analysis of score normalization in multilingual speaker recognition", Interspeech 2017). Z-norm and T-norm use one
side alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from parvox.errors import TrialError
from parvox.evaluation.embeddings import Embeddings
from parvox.evaluation.scoring import normalise
from parvox.evaluation.threads import in_blocks

Normalisation = Literal["none", "znorm", "tnorm", "snorm", "asnorm"]

MIN_COHORT = 10

_BLOCK_BYTES = 5 << 20  # of scores against the cohort at a time: about what a core's own cache holds


@dataclass(frozen=True, eq=False)
class CohortStatistics:
    """What embeddings score against a cohort.

    Attributes:
        mean: (utterances,) float32.
        std: (utterances,) float32, above zero.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]


def speaker_means(
    embeddings: Embeddings, speaker_of: Mapping[str, str], mean: NDArray[np.float32] | None = None
) -> Embeddings:
    """One embedding a speaker: the mean of the length-normalised ones, the usual cohort.

    Args:
        embeddings: Of the cohort's utterances.
        speaker_of: Their speakers.
        mean: (embedding_dim,) to subtract from every embedding first.

    Returns:
        Under the speakers' names, sorted; means already subtracted.
    """
    unit = normalise(embeddings, mean)
    names = sorted({speaker_of[utterance] for utterance in embeddings.ids})
    place = {name: row for row, name in enumerate(names)}
    rows = np.array([place[speaker_of[utterance]] for utterance in embeddings.ids])
    sums = np.zeros((len(names), unit.shape[1]))
    np.add.at(sums, rows, unit)
    counts = np.bincount(rows)[:, None]
    return Embeddings(names, (sums / counts).astype(np.float32), embeddings.fingerprint)


def check_cohort(cohort: Sequence[str], speakers: Sequence[str]) -> None:
    """Refuse a cohort that cannot serve.

    Args:
        cohort: Its speakers.
        speakers: Those of the trials.

    Raises:
        TrialError: it is too small, or shares speakers with the trials.
    """
    shared = sorted(set(cohort) & set(speakers))
    if shared:
        raise TrialError(
            f"{len(shared)} of {len(set(speakers))} speakers of the trials are in the cohort too, such as {shared[0]}: "
            "normalised scores would look better than they are; choose a cohort of other speakers"
        )
    if len(set(cohort)) < MIN_COHORT:
        raise TrialError(
            f"a cohort of {len(set(cohort))} speakers given; expected {MIN_COHORT} or more for score normalisation"
        )


def cohort_statistics(
    unit: NDArray[np.float32], cohort: NDArray[np.float32], top_k: int | None = 300
) -> CohortStatistics:
    """Mean and deviation of each embedding's cosine scores against a cohort.

    One matrix product in blocks, with a partial sort of each row while it is in the processor's cache; the memory
    taken does not depend on how many embeddings there are.

    Args:
        unit: (utterances, dim) of length one.
        cohort: (cohort, dim) of length one.
        top_k: How many of the highest scores count; all if None, or if the cohort has no more.

    Raises:
        TrialError: `top_k` is below 2, or an embedding scores the same against all of them.
    """
    if top_k is not None and top_k < 2:
        raise TrialError(f"top_k {top_k} given; expected 2 or more cohort members")
    size = len(cohort)
    kept = size if top_k is None else min(top_k, size)
    mean, std = np.empty(len(unit), np.float32), np.empty(len(unit), np.float32)
    other_way = np.ascontiguousarray(cohort.T)

    def moments(low: int, high: int) -> None:
        scores = unit[low:high] @ other_way
        if kept < size:
            scores.partition(size - kept, axis=1)
            scores = scores[:, size - kept :]
        centre = scores.mean(axis=1, keepdims=True)
        mean[low:high] = centre[:, 0]
        scores -= centre  # two passes: scores near one another would cancel in one
        std[low:high] = np.sqrt(np.einsum("ij,ij->i", scores, scores) / kept)

    in_blocks(moments, len(unit), max(1, _BLOCK_BYTES // (4 * size)), "cohort")
    flat = int(np.count_nonzero(~(std > 1e-6)))
    if flat:
        raise TrialError(
            f"{flat} embeddings score the same against the whole cohort: it holds one voice many times, or the model "
            "is broken"
        )
    return CohortStatistics(mean, std)


def normalise_scores(
    scores: NDArray[np.float32],
    enrol: NDArray[np.int32],
    test: NDArray[np.int32],
    enrol_statistics: CohortStatistics,
    test_statistics: CohortStatistics,
    kind: Normalisation = "asnorm",
) -> NDArray[np.float32]:
    """Normalise the scores of trials.

    Args:
        scores: (trials,)
        enrol: (trials,) row of each enrolment side in its statistics.
        test: (trials,) row of each test side in its statistics.
        enrol_statistics: Over the cohort, the whole of it or the nearest, as the kind wants.
        test_statistics: Likewise.
        kind: S-norm and AS-norm differ only in their statistics.

    Returns:
        (trials,) float32.
    """
    if kind == "none":
        return scores
    sides = []
    if kind != "tnorm":
        sides.append((enrol_statistics, enrol))
    if kind != "znorm":
        sides.append((test_statistics, test))
    total = np.zeros(len(scores), np.float32)
    for statistics, rows in sides:
        part = scores - statistics.mean[rows]
        part /= statistics.std[rows]
        total += part
    total /= len(sides)
    return total
