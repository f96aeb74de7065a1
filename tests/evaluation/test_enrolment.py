from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parvox.errors import TrialError
from parvox.evaluation.embeddings import Embeddings
from parvox.evaluation.enrolment import EnrolmentList, enrol_voices
from parvox.evaluation.scoring import normalise

IDS = ["a1", "a2", "b1", "test"]
MATRIX = np.array([[2, 0, 0], [0, 5, 0], [0, 0, 3], [1, 1, 1]], np.float32)
VOICES = EnrolmentList({"ann": ["a1", "a2"], "bob": ["b1"]})


def enrolled(method: str, **more: object) -> np.ndarray:
    embeddings = Embeddings(IDS, MATRIX, "f")
    return enrol_voices(normalise(embeddings), embeddings, VOICES, method, **more)  # type: ignore[arg-type]


def test_mean_of_length_normalised_embeddings() -> None:
    assert enrolled("mean") == pytest.approx(np.array([[0.5**0.5, 0.5**0.5, 0], [0, 0, 1]]))


def test_score_averaging_is_averaging_scores() -> None:
    test = normalise(Embeddings(IDS, MATRIX, "f"))[3]
    cosines = [MATRIX[row] @ test / np.linalg.norm(MATRIX[row]) for row in (0, 1)]
    assert enrolled("scores")[0] @ test == pytest.approx(np.mean(cosines))
    assert enrolled("mean")[0] @ test > enrolled("scores")[0] @ test  # utterances that differ cost something


def test_quality_weighs() -> None:
    found = enrolled("quality", quality={"a1": 3.0, "a2": 1.0, "b1": 7.0})
    assert found[0] == pytest.approx(np.array([3, 1, 0]) / 10**0.5)
    assert found[1] == pytest.approx([0, 0, 1])
    assert enrolled("quality", quality=dict.fromkeys(IDS, 2.0)) == pytest.approx(enrolled("mean"))


def test_lists_are_read(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("ann a1 a2\n\nbob\tb1\n")
    found = EnrolmentList.read(tmp_path / "list")
    assert found.voices == {"ann": ["a1", "a2"], "bob": ["b1"]}
    assert found.utterances() == ["a1", "a2", "b1"]
    assert found.speakers({"a1": "A", "a2": "A", "b1": "B"}) == {"ann": "A", "bob": "B"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ann\n", "line 1: 'ann'; expected"),
        ("ann a1\nann a2\n", "line 2: ann is enrolled twice"),
        ("ann a1 a1\n", "line 1: ann has an utterance twice"),
        ("\n", "holds no enrolments"),
    ],
)
def test_bad_lists_are_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "list").write_text(text)
    with pytest.raises(TrialError, match=words):
        EnrolmentList.read(tmp_path / "list")


def test_problems_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrialError, match="cannot read enrolments"):
        EnrolmentList.read(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrialError, match="not a text file"):
        EnrolmentList.read(tmp_path / "binary")
    with pytest.raises(TrialError, match="ann is enrolled with speakers A and B"):
        VOICES.speakers({"a1": "A", "a2": "B", "b1": "B"})
    with pytest.raises(TrialError, match="'b1', which is unknown"):
        VOICES.speakers({"a1": "A", "a2": "A"})
    with pytest.raises(TrialError, match="ann has utterances without a quality above zero"):
        enrolled("quality", quality={"a1": 1.0})
    matrix = MATRIX.copy()
    matrix[1] = -matrix[0]
    cancelling = Embeddings(IDS, matrix, "f")
    with pytest.raises(TrialError, match="the embeddings of ann cancel out"):
        enrol_voices(normalise(cancelling), cancelling, VOICES)
