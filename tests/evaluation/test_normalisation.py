from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from parvox.errors import TrialError
from parvox.evaluation import normalisation as module
from parvox.evaluation.embeddings import Embeddings
from parvox.evaluation.normalisation import (
    CohortStatistics,
    check_cohort,
    cohort_statistics,
    normalise_scores,
    speaker_means,
)


def unit(rows: int, dim: int, seed: int) -> np.ndarray:
    matrix = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


@pytest.mark.parametrize("top_k", [None, 2, 7, 40, 500])
def test_statistics_agree_with_sorting_each_row(top_k: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * 40 * 9)  # several blocks
    embeddings, cohort = unit(31, 6, 0), unit(40, 6, 1)
    found = cohort_statistics(embeddings, cohort, top_k)
    for row, embedding in enumerate(embeddings):
        nearest = sorted((float(embedding @ member) for member in cohort), reverse=True)[: top_k or 40]
        assert found.mean[row] == pytest.approx(np.mean(nearest), abs=1e-6)
        assert found.std[row] == pytest.approx(np.std(nearest), abs=1e-6)


def test_normalised_by_hand() -> None:
    enrol = CohortStatistics(np.array([0.1, 0.3], np.float32), np.array([0.5, 0.1], np.float32))
    test = CohortStatistics(np.array([0.2], np.float32), np.array([0.2], np.float32))
    scores, rows = np.array([0.6, 0.4], np.float32), (np.array([0, 1]), np.array([0, 0]))
    z, t = [1.0, 1.0], [2.0, 1.0]
    assert normalise_scores(scores, *rows, enrol, test, "znorm") == pytest.approx(z, abs=1e-6)  # type: ignore[arg-type]
    assert normalise_scores(scores, *rows, enrol, test, "tnorm") == pytest.approx(t, abs=1e-6)  # type: ignore[arg-type]
    assert normalise_scores(scores, *rows, enrol, test, "asnorm") == pytest.approx([1.5, 1.0], abs=1e-6)  # type: ignore[arg-type]
    assert (normalise_scores(scores, *rows, enrol, test, "none") == scores).all()  # type: ignore[arg-type]
    assert scores.tolist() == pytest.approx([0.6, 0.4])  # left alone


def test_scores_do_not_see_shift_and_scale_of_a_channel() -> None:
    """What normalisation is for: a side whose scores are all raised and stretched scores as before."""
    embeddings, cohort = unit(4, 6, 0), unit(40, 6, 1)
    plain = cohort_statistics(embeddings, cohort, 10)
    raised = CohortStatistics(2 * plain.mean + 0.3, 2 * plain.std)
    scores = (embeddings @ embeddings[0]).astype(np.float32)[1:]
    rows, zero = np.arange(1, 4, dtype=np.int32), np.zeros(3, np.int32)
    before = normalise_scores(scores, zero, rows, plain, plain)
    after = normalise_scores(2 * scores + np.float32(0.3), zero, rows, raised, raised)
    assert after == pytest.approx(before, abs=1e-4)


def test_a_cohort_of_speakers() -> None:
    matrix = np.array([[2, 0], [0, 3], [0, 5], [1, 1]], np.float32)
    made = speaker_means(
        Embeddings(["x", "y", "z", "w"], matrix, "f"), {"x": "bob", "y": "bob", "z": "ann", "w": "ann"}
    )
    assert list(made.ids) == ["ann", "bob"]
    assert made.matrix[1] == pytest.approx([0.5, 0.5])  # of equal weight, whatever their lengths
    assert made.matrix[0] == pytest.approx([np.sqrt(0.5) / 2, (1 + np.sqrt(0.5)) / 2])
    centred = speaker_means(Embeddings(["x"], matrix[:1], "f"), {"x": "bob"}, np.array([1, 1], np.float32))
    assert centred.matrix[0] == pytest.approx([np.sqrt(0.5), -np.sqrt(0.5)])


def test_memory_does_not_grow_with_the_embeddings() -> None:
    cohort = unit(1000, 16, 1)
    peaks = []
    for rows in (40_000, 80_000):
        embeddings = unit(rows, 16, 0)
        tracemalloc.start()
        cohort_statistics(embeddings, cohort, 100)
        peaks.append(tracemalloc.get_traced_memory()[1] - 8 * rows)
        tracemalloc.stop()
    assert peaks[1] == pytest.approx(peaks[0], rel=0.05)
    assert peaks[1] < 40e6


def test_problems_are_named() -> None:
    with pytest.raises(TrialError, match=r"1 of 2 speakers of the trials are in the cohort too, such as bob"):
        check_cohort(["ann", "bob"], ["bob", "eve"])
    with pytest.raises(TrialError, match="a cohort of 2 speakers given; expected 10 or more"):
        check_cohort(["ann", "bob"], ["eve"])
    check_cohort([f"s{k}" for k in range(10)], ["eve"])
    with pytest.raises(TrialError, match="top_k 1 given"):
        cohort_statistics(unit(3, 4, 0), unit(5, 4, 1), 1)
    with pytest.raises(TrialError, match="3 embeddings score the same against the whole cohort"):
        cohort_statistics(unit(3, 4, 0), np.repeat(unit(1, 4, 1), 20, axis=0))
