from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from parvox.corpora.prepared import PreparedCorpus
from parvox.errors import TrialError
from parvox.evaluation import cross as module
from parvox.evaluation.cross import cross_scores
from parvox.evaluation.evaluate import evaluate
from parvox.evaluation.normalisation import cohort_statistics, normalise_scores
from parvox.evaluation.questions import load_questions
from parvox.evaluation.trials import TrialIndex

SPEAKER = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "b2": "b"}


def pairs(index: TrialIndex) -> list[tuple[str, str, bool]]:
    columns = zip(index.enrol, index.test, index.target, strict=True)
    return [(index.ids[first], index.ids[second], bool(target)) for first, second, target in columns]


def test_each_pair_of_one_set_is_taken_once() -> None:
    index = TrialIndex.cross(list(SPEAKER), list(SPEAKER), SPEAKER)
    assert pairs(index) == [(a, b, a[0] == b[0]) for a in SPEAKER for b in SPEAKER if a < b]


def test_two_sets_meet_in_full() -> None:
    index = TrialIndex.cross(["b1", "a1"], ["a2", "b2"], SPEAKER)
    assert pairs(index) == [("b1", "a2", False), ("b1", "b2", True), ("a1", "a2", True), ("a1", "b2", False)]
    overlapping = TrialIndex.cross(["a1", "a2"], ["a1", "a2", "b1"], SPEAKER)
    assert [pair[:2] for pair in pairs(overlapping)] == [("a1", "a2"), ("a1", "b1"), ("a2", "b1")]


def test_pieces_of_one_recording_never_meet() -> None:
    index = TrialIndex.cross(list(SPEAKER), list(SPEAKER), SPEAKER, {"a1": "tape", "a2": "tape"})
    assert ("a1", "a2", True) not in pairs(index)
    assert len(index) == 9


def test_the_hash_is_of_names_and_speakers() -> None:
    index = TrialIndex.cross(list(SPEAKER), list(SPEAKER), SPEAKER)
    assert index.sha256 == TrialIndex.cross(list(SPEAKER), list(SPEAKER), SPEAKER).sha256
    assert index.sha256 != TrialIndex.cross(list(SPEAKER), list(SPEAKER), {**SPEAKER, "b2": "c"}).sha256
    assert index.sha256 != TrialIndex.cross(list(SPEAKER)[1:], list(SPEAKER), SPEAKER).sha256


def test_too_many_pairs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parvox.evaluation.trials.MOST_PAIRS", 20)
    with pytest.raises(TrialError, match="5 × 5 pairs; at most 20"):
        TrialIndex.cross(list(SPEAKER), list(SPEAKER), SPEAKER)


def sides() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((23, 5)).astype(np.float32), rng.standard_normal((17, 5)).astype(np.float32)
    return left, right, rng.integers(4, size=23), rng.integers(4, size=17)


@pytest.mark.parametrize("block_bytes", [1, 4 * 17 * 5, 1 << 20])
def test_blocks_agree_with_the_whole_matrix(block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)
    left, right, first, second = sides()
    found = cross_scores(left, right, first, second)
    matrix, same = left @ right.T, first[:, None] == second
    assert found.target == pytest.approx(np.sort(matrix[same]), abs=1e-5)
    assert found.nontarget == pytest.approx(np.sort(matrix[~same]), abs=1e-5)
    once = cross_scores(left, left, first, first, each_pair_once=True)
    rows, columns = np.triu_indices(23, 1)
    same = first[rows] == first[columns]
    assert once.target == pytest.approx(np.sort((left @ left.T)[rows, columns][same]), abs=1e-5)
    assert len(once.nontarget) == np.count_nonzero(~same)


def test_normalised_as_trials_are() -> None:
    left, right, first, second = sides()
    cohort = np.random.default_rng(1).standard_normal((30, 5)).astype(np.float32)
    statistics = cohort_statistics(left, cohort, 10), cohort_statistics(right, cohort, 10)
    found = cross_scores(left, right, first, second, statistics=statistics)
    rows, columns = (each.ravel().astype(np.int32) for each in np.indices((23, 17)))
    plain = (left @ right.T)[rows, columns]
    expected = normalise_scores(plain, rows, columns, *statistics)
    same = first[rows] == second[columns]
    assert found.target == pytest.approx(np.sort(expected[same]), abs=1e-4)


def test_memory_is_the_scores_own() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((4000, 8)).astype(np.float32)
    speaker = rng.integers(50, size=4000)
    tracemalloc.start()
    found = cross_scores(matrix, matrix, speaker, speaker)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.target) + len(found.nontarget) == 16_000_000
    assert peak < 4 * 16_000_000 + 120e6


def test_problems_are_named() -> None:
    left, right, first, second = sides()
    with pytest.raises(TrialError, match="a speaker for each row"):
        cross_scores(left, right, first[1:], second)
    with pytest.raises(TrialError, match="the same on both sides"):
        cross_scores(left, right, first, second, each_pair_once=True)
    with pytest.raises(TrialError, match="no target trials"):
        cross_scores(left, right, first, second + 10)


def test_all_pairs_of_a_split(six_speakers: Path, model_file: Path, tmp_path: Path) -> None:
    corpus = PreparedCorpus.load(six_speakers)
    found = evaluate([model_file], corpus, all_pairs=True, replicates=0, workers=0)
    assert found.target_trials == 6 * 15
    assert found.target_trials + found.nontarget_trials == 36 * 35 // 2
    assert found.trials.startswith("all pairs of ")
    by_speaker: dict[str, list[str]] = {}
    for cut in corpus.cuts("test"):
        by_speaker.setdefault(cut.supervisions[0].speaker, []).append(cut.id)
    (tmp_path / "voices").write_text("".join(f"v{s} {' '.join(ids[:2])}\n" for s, ids in by_speaker.items()))
    voices = load_questions(corpus, enrolments=tmp_path / "voices", all_pairs=True)
    assert (voices.trials.targets, voices.trials.nontargets) == (6 * 4, 6 * 5 * 4)
    assert (voices.enrol_count == 2).all()
    with pytest.raises(TrialError, match="give one of them"):
        load_questions(corpus, trials=tmp_path / "voices", all_pairs=True)
    (tmp_path / "greedy").write_text("".join(f"v{s} {' '.join(ids)}\n" for s, ids in by_speaker.items()))
    with pytest.raises(TrialError, match="none is left to try"):
        load_questions(corpus, enrolments=tmp_path / "greedy", all_pairs=True)
