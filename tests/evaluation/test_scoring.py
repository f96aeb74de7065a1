from __future__ import annotations

import numpy as np
import pytest

from parvox.corpora.trials import Trial
from parvox.errors import TrialError
from parvox.evaluation.embeddings import Embeddings
from parvox.evaluation.scoring import cosine_scores, pair_products
from parvox.evaluation.trials import TrialIndex

IDS = ["a", "b", "c", "unused"]
MATRIX = np.array([[3, 4], [4, 3], [-3, -4], [1, 0]], np.float32)
TRIALS = TrialIndex.from_trials([Trial("c", "a", False), Trial("a", "b", True), Trial("b", "b", True)])


def test_cosine_by_hand() -> None:
    scores = cosine_scores(Embeddings(IDS, MATRIX, "f"), TRIALS)
    assert scores.dtype == np.float32
    assert scores == pytest.approx([-1.0, 0.96, 1.0])


def test_a_mean_is_subtracted_first() -> None:
    scores = cosine_scores(Embeddings(IDS, MATRIX, "f"), TRIALS, np.array([3, 3], np.float32))
    assert scores == pytest.approx([-7 / np.sqrt(36 + 49), 0.0, 1.0])  # a: (0, 1), b: (1, 0), c: (-6, -7)


def test_length_does_not_matter() -> None:
    lengths = np.array([[0.01], [5], [1000], [1]], np.float32)
    scaled = cosine_scores(Embeddings(IDS, MATRIX * lengths, "f"), TRIALS)
    assert scaled == pytest.approx(cosine_scores(Embeddings(IDS, MATRIX, "f"), TRIALS), abs=1e-6)


def test_many_pairs_agree_with_the_matrix_of_all() -> None:
    rng = np.random.default_rng(0)
    left = rng.standard_normal((50, 7)).astype(np.float32)
    right = rng.standard_normal((40, 7)).astype(np.float32)
    rows, columns = rng.integers(50, size=40_000), rng.integers(40, size=40_000)
    found = pair_products(left, right, rows.astype(np.int32), columns.astype(np.int32))
    assert found == pytest.approx((left @ right.T)[rows, columns], abs=1e-5)


def test_problems_are_named() -> None:
    with pytest.raises(TrialError, match=r"1 of 3 utterances have no embedding, such as 'c'"):
        cosine_scores(Embeddings(["a", "b"], MATRIX[:2], "f"), TRIALS)
    silent = MATRIX.copy()
    silent[1] = 0
    with pytest.raises(TrialError, match="1 embeddings are zero or not finite, such as that of b"):
        cosine_scores(Embeddings(IDS, silent, "f"), TRIALS)
    with pytest.raises(TrialError, match=r"embeddings of 2 numbers and a mean of \(3,\)"):
        cosine_scores(Embeddings(IDS, MATRIX, "f"), TRIALS, np.zeros(3, np.float32))
