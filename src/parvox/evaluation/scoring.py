"""Embeddings and trials to scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from parvox.errors import TrialError
from parvox.evaluation.embeddings import Embeddings
from parvox.evaluation.threads import in_blocks
from parvox.evaluation.trials import TrialIndex

_BLOCK = 1 << 10  # trials scored together: their embeddings stay in a core's own cache
_SHARE = 1 << 17  # trials that a thread takes at a time


def normalise(embeddings: Embeddings, mean: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Embeddings freed of a mean and brought to length one.

    Args:
        embeddings: Of any lengths.
        mean: (embedding_dim,) to subtract first.

    Returns:
        (utterances, embedding_dim) float32.

    Raises:
        TrialError: an embedding is not finite or has no direction, or the mean is of another size.
    """
    matrix = embeddings.matrix
    if mean is not None:
        if mean.shape != matrix.shape[1:]:
            raise TrialError(
                f"embeddings of {matrix.shape[1]} numbers and a mean of {mean.shape} given; expected equal sizes: "
                "is the mean of another model?"
            )
        matrix = matrix - mean
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    bad = ~(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0))
    if bad.any():
        first = embeddings.ids[int(bad.argmax())]
        raise TrialError(
            f"{int(bad.sum())} embeddings are zero or not finite, such as that of {first}; the model is broken, "
            "or the recording is"
        )
    normal: NDArray[np.float32] = (matrix / norms).astype(np.float32, copy=False)
    return normal


def cosine_scores(
    embeddings: Embeddings, trials: TrialIndex, mean: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """The cosine between the two embeddings of each trial.

    Args:
        embeddings: Of all utterances of the trials, among others.
        trials: The trials.
        mean: (embedding_dim,) to subtract from every embedding first.

    Returns:
        (trials,) float32, -1 to 1.

    Raises:
        TrialError: an utterance has no embedding, or one that is zero or not finite.
    """
    unit = normalise(embeddings, mean)[embeddings.rows(trials.ids, trials.name)]
    return pair_products(unit, unit, trials.enrol, trials.test)


def pair_products(
    left: NDArray[np.float32], right: NDArray[np.float32], rows: NDArray[np.int32], columns: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Inner products of chosen pairs of rows, without the matrix of all pairs.

    Args:
        left: (n, dim)
        right: (m, dim)
        rows: (pairs,) rows of `left`.
        columns: (pairs,) rows of `right`.

    Returns:
        (pairs,) float32.
    """
    scores = np.empty(len(rows), np.float32)

    def products(low: int, high: int) -> None:
        first, second = (np.empty((min(_BLOCK, high - low), left.shape[1]), np.float32) for _ in range(2))
        for start in range(low, high, _BLOCK):
            part = slice(start, min(start + _BLOCK, high))
            count = len(scores[part])
            # Rows are within range, as their makers saw to; "clip" only spares a copy.
            np.take(left, rows[part], axis=0, out=first[:count], mode="clip")
            np.take(right, columns[part], axis=0, out=second[:count], mode="clip")
            np.einsum("ij,ij->i", first[:count], second[:count], out=scores[part])

    in_blocks(products, len(rows), _SHARE)
    return scores
