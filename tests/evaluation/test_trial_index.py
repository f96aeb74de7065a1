from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from parvox.corpora.trials import Trial, write_trials
from parvox.errors import TrialError
from parvox.evaluation.trials import TrialIndex

TRIALS = [Trial("a1", "a2", True), Trial("a1", "b1", False), Trial("b1", "a2", False)]
SPEAKERS = {"a1": "ann", "a2": "ann", "b1": "bob"}


def test_columns_say_what_the_list_says(tmp_path: Path) -> None:
    write_trials(tmp_path / "list", TRIALS)
    index = TrialIndex.read(tmp_path / "list")
    assert index.ids == ["a1", "a2", "b1"]
    assert index.enrol.tolist() == [0, 0, 2]
    assert index.test.tolist() == [1, 2, 1]
    assert index.target.tolist() == [True, False, False]
    assert (len(index), index.targets, index.nontargets) == (3, 1, 2)
    assert index.sha256 == hashlib.sha256((tmp_path / "list").read_bytes()).hexdigest()


def test_speakers_of_both_sides() -> None:
    speakers = TrialIndex.from_trials(TRIALS).speakers(SPEAKERS)
    assert speakers.names == ["ann", "bob"]
    assert speakers.enrol.tolist() == [0, 0, 1]
    assert speakers.test.tolist() == [0, 1, 0]


def test_a_part_has_a_hash_of_its_own() -> None:
    index = TrialIndex.from_trials(TRIALS)
    part = index.take(np.array([0, 2]))
    assert part.sha256 == TrialIndex.from_trials([TRIALS[0], TRIALS[2]]).sha256 != index.sha256


def test_pairs_that_tell_nothing_are_found() -> None:
    index = TrialIndex.from_trials(
        [*TRIALS, Trial("a1", "a1", True), Trial("b1", "a1", False), Trial("a1", "b1", False)]
    )
    assert index.of_itself().tolist() == [3]
    assert index.reversed_again().tolist() == [4]  # row 5 repeats row 1 as it is
    assert TrialIndex.from_trials(TRIALS).reversed_again().tolist() == []


def test_problems_are_named() -> None:
    with pytest.raises(TrialError, match="no trials"):
        TrialIndex.from_trials([])
    with pytest.raises(TrialError, match=r"1 trials contradict others.*'0 a1 a2'"):
        TrialIndex.from_trials([*TRIALS, Trial("a1", "a2", False)])
    twice = TrialIndex.from_trials([*TRIALS, TRIALS[1]], "my list")
    assert twice.duplicates().tolist() == [3]
    with pytest.raises(TrialError, match=r"my list: 1 trials stand there twice, such as '0 a1 b1'.*--keep_duplicates"):
        twice.refuse_duplicates()
    TrialIndex.from_trials(TRIALS).refuse_duplicates()
    with pytest.raises(TrialError, match=r"1 of its 3 utterances are unknown, such as 'b1'"):
        TrialIndex.from_trials(TRIALS).speakers({"a1": "ann", "a2": "ann"})
    with pytest.raises(TrialError, match=r"1 trials contradict the corpus, such as '1 a1 a2'.*ann and eve"):
        TrialIndex.from_trials(TRIALS).speakers({**SPEAKERS, "a2": "eve"})
    # Order of the two sides matters: this is another question to a system that treats sides differently.
    TrialIndex.from_trials([*TRIALS, Trial("b1", "a1", False)]).refuse_duplicates()
