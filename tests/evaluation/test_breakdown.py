"""Groups of trials, error rates in each, and the worst named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_bootstrap import trials as made_trials

from parvox.corpora.prepared import PreparedCorpus
from parvox.corpora.trials import Trial
from parvox.errors import TrialError
from parvox.evaluation.breakdown import break_down
from parvox.evaluation.groups import Groups, column_values, columns, group_trials
from parvox.evaluation.hardest import hardest_trials
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.resampling import speaker_weights
from parvox.evaluation.trials import Speakers, TrialIndex

IDS = ["a", "b", "c", "d"]
PAIRS = TrialIndex.from_trials([Trial(x, y, False) for x in IDS for y in IDS if x < y])  # ab ac ad bc bd cd


def names(groups: Groups) -> list[str]:
    return ["" if number < 0 else groups.names[number] for number in groups.of_trial]


def test_few_names_make_pairs() -> None:
    groups = group_trials(PAIRS, {"a": "f", "b": "m", "c": "f"}, "gender")  # d is unknown
    assert names(groups) == ["f / m", "f", "", "f / m", "", ""]
    assert groups.names == ["f", "f / m"]


def test_many_names_are_same_or_other() -> None:
    some = {name: str(number // 2) for number, name in enumerate(IDS)}
    assert names(group_trials(PAIRS, some, "room"))[0] == "0"
    ids = [f"u{number}" for number in range(30)]
    many = TrialIndex.from_trials([Trial(ids[0], other, False) for other in ids[1:]])
    values = {name: f"s{number // 2}" for number, name in enumerate(ids)}
    groups = group_trials(many, values, "session")
    assert groups.names == ["same session", "other session"]
    assert names(groups)[:2] == ["same session", "other session"]
    values = {name: "abcdef"[number % 6] for number, name in enumerate(ids)}
    assert group_trials(many, values, "language").names == ["a", "differing"]


def test_durations_go_by_the_shorter_side() -> None:
    groups = group_trials(PAIRS, {"a": 0.5, "b": 2.5, "c": 3.0, "d": 60.0}, "duration_s")
    assert groups.names == ["0 to 1 s", "2 to 4 s"]
    assert names(groups) == ["0 to 1 s"] * 3 + ["2 to 4 s"] * 3
    long = group_trials(PAIRS, dict.fromkeys(IDS, 20.0), "duration_s")
    assert long.names == ["16 s and more"]


def test_other_numbers_make_bands_of_as_many_utterances() -> None:
    ids = [f"u{number}" for number in range(100)]
    chain = TrialIndex.from_trials([Trial(ids[k], ids[k + 1], False) for k in range(99)])
    groups = group_trials(chain, {name: float(number) for number, name in enumerate(ids)}, "snr_db")
    assert len(groups.names) == 4
    assert np.bincount(groups.of_trial).tolist() == [25, 25, 25, 24]


def test_columns_come_from_the_manifest(six_speakers: Path) -> None:
    cuts = {cut.id: cut for cut in PreparedCorpus.load(six_speakers).cuts("test")}
    assert {"duration_s", "gender", "session", "speaker"} <= set(columns(cuts.values()))
    assert len(set(column_values(cuts, "gender").values())) == 2
    assert set(column_values(cuts, "session").values()) == {"day0", "day1"}
    assert column_values(cuts, "duration_s") == {name: cut.duration for name, cut in cuts.items()}
    with pytest.raises(TrialError, match="did you mean 'gender'"):
        column_values(cuts, "gendre")


def experiment(handicap: float) -> tuple[np.ndarray, TrialIndex, Speakers, Groups]:
    """60 speakers; those of the second half have target scores that are lower by the handicap."""
    scores, target, enrol, test = made_trials(60, 4, 0, spread=0.3, shift=5.0)
    index = TrialIndex([f"u{k}" for k in range(240)], enrol.astype(np.int32), test.astype(np.int32), target, "", "")
    late = (enrol >= 30).astype(np.int32) + (test >= 30)
    groups = Groups("age", ["young", "mixed", "old"], late.astype(np.int32))
    scores = scores - handicap * (target & (enrol >= 30))
    return scores, index, Speakers([f"s{k}" for k in range(60)], enrol, test), groups


def test_groups_are_evaluated_at_one_threshold() -> None:
    scores, index, speakers, groups = experiment(1.5)
    weights = speaker_weights(60, 300)
    found = break_down("mine", scores, index, speakers, groups, 3.0, weights)
    young, mixed, old = found.groups
    rows = (groups.of_trial == 2) & index.target
    assert old.rates.misses == np.count_nonzero(scores[rows] < 3.0)
    assert old.rates.target_trials == np.count_nonzero(rows)
    assert (young.speakers, mixed.speakers, old.speakers) == (30, 60, 30)
    assert mixed.rates.miss_rate is None
    assert mixed.eer is None  # no targets
    own = groups.of_trial == 0
    assert young.eer is not None
    assert young.eer.value == ScoreSet.from_labels(scores[own], index.target[own]).eer()
    assert young.eer.interval is not None
    misses = next(worst for worst in found.worst if worst.error == "misses")
    assert (misses.group, misses.beyond_chance) == ("old", True)
    assert misses.rate > 3 * misses.rest
    assert "Most misses: old, " in misses.sentence()
    assert "more than chance explains" in misses.sentence()
    assert found.to_dict()["groups"][2]["rates"]["misses"] == old.rates.misses


def test_equal_groups_are_not_told_apart() -> None:
    scores, index, speakers, groups = experiment(0.0)
    found = break_down("mine", scores, index, speakers, groups, 3.0, speaker_weights(60, 300))
    assert {worst.error: worst.beyond_chance for worst in found.worst} == {"misses": False, "false accepts": False}


def test_few_speakers_leave_it_open() -> None:
    scores, index, speakers, _ = experiment(3.0)
    groups = Groups("age", ["a", "b"], (speakers.enrol >= 57).astype(np.int32))
    groups.of_trial[(speakers.enrol >= 57) != (speakers.test >= 57)] = -1
    found = break_down("mine", np.round(scores), index, speakers, groups, 5.0, speaker_weights(60, 100))
    assert found.groups[1].rates.target_trials == 18
    assert found.left_out == np.count_nonzero(groups.of_trial < 0)
    assert found.groups[1].rates.miss_rate is not None
    assert found.groups[1].rates.miss_rate.interval is None
    assert not [worst for worst in found.worst if worst.error == "misses"]  # 18 trials are too few to compare


def test_the_hardest_trials_are_found() -> None:
    scores = np.array([0.9, 0.1, 0.5, 0.2, 0.8, 0.3], np.float32)
    index = TrialIndex(IDS, *np.triu_indices(4, 1), np.array([1, 1, 1, 0, 0, 0], bool), "", "")  # type: ignore[arg-type]
    found = hardest_trials(scores, index, 0.45, {"a": "/a.wav"}, count=4)
    assert [(each.enrol, each.test, each.target, each.error) for each in found] == [
        ("a", "c", True, True),
        ("a", "d", True, False),
        ("b", "d", False, True),
        ("c", "d", False, False),
    ]
    assert (found[0].enrol_path, found[0].test_path) == ("/a.wav", "")
    assert len(hardest_trials(scores, index, 0.45, count=100)) == 6
    assert found[0].to_dict()["score"] == pytest.approx(0.1)
