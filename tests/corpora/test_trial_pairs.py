from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parvox.corpora.entries import Entry
from parvox.corpora.trial_pairs import draw_trials, other_speaker_pairs
from parvox.corpora.trials import Trial


def entry(speaker: str, number: int, **more: str) -> Entry:
    name = f"{more.get('source', 'a')}/{speaker}/{number}"
    values = {"source": "a", "session": "1", "recording": name, **more}
    return Entry(path=Path(name), id=name, speaker=speaker, **values)  # type: ignore[arg-type]


def draw(entries: list[Entry], total: int = 10_000, ratio: int = 5, seed: int = 0) -> list[Trial]:
    return draw_trials(entries, total=total, nontargets_per_target=ratio, seed=(seed,))


UTTERANCES = st.lists(
    st.tuples(st.sampled_from("ABCDEFG"), st.sampled_from(["x", "y"]), st.sampled_from("12"), st.integers(0, 3)),
    min_size=2,
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(UTTERANCES, st.integers(2, 300), st.integers(1, 4), st.integers(0, 5))
def test_rules_hold_for_any_corpus(rows: list[tuple[str, str, str, int]], total: int, ratio: int, seed: int) -> None:
    genders = {"A": "f", "B": "f", "C": "m", "D": "m", "E": "f", "F": None, "G": None}
    entries = [
        Entry(
            path=Path(str(number)),
            id=f"u{number:03d}",
            speaker=speaker,
            source=source,
            session=session,
            recording=f"{speaker}{source}{session}{recording}",
            gender=genders[speaker],
        )
        for number, (speaker, source, session, recording) in enumerate(rows)
    ]
    of = {one.id: one for one in entries}
    trials = draw(entries, total, ratio, seed)
    # By brute force: what may be paired at all.
    pairs = list(itertools.combinations(entries, 2))
    own = [(a, b) for a, b in pairs if a.speaker == b.speaker and a.recording != b.recording]
    other = [(a, b) for a, b in pairs if a.speaker != b.speaker and a.source == b.source]
    assert bool(trials) == (bool(own) and bool(other))
    assert trials == sorted(trials)
    assert len({frozenset(trial[:2]) for trial in trials}) == len(trials)
    targets = [trial for trial in trials if trial.target]
    assert len(targets) <= max(total // (1 + ratio), 1)
    assert len(trials) - len(targets) <= ratio * len(targets)
    with_sessions = {a.speaker for a, b in own if a.session != b.session}
    for enrol, test, target in ((of[a], of[b], target) for a, b, target in trials):
        assert (enrol.speaker == test.speaker) == target
        if target:
            assert enrol.recording != test.recording
            assert enrol.session != test.session or enrol.speaker not in with_sessions
        else:
            assert enrol.source == test.source
            mates = {
                one.speaker
                for one in entries
                if one.source == enrol.source and one.gender and one.gender == enrol.gender
            } - {enrol.speaker}
            assert not mates or test.gender == enrol.gender


def test_all_that_exist_are_found_in_a_small_corpus() -> None:
    entries = [entry(speaker, number) for speaker in "ABC" for number in range(3)]
    trials = draw(entries, total=10_000, ratio=100)
    assert sum(trial.target for trial in trials) == 3 * 3
    assert sum(not trial.target for trial in trials) == 3 * 9


def test_pieces_of_one_recording_are_never_a_target_but_supply_non_targets() -> None:
    entries = [entry("A", number, recording="tape") for number in range(4)]
    entries += [entry("B", number) for number in range(4)]
    trials = draw(entries)
    assert {trial.enrol.split("/")[1] for trial in trials if trial.target} == {"B"}
    names = Counter(name.split("/")[1] for trial in trials if not trial.target for name in trial[:2])
    assert names["A"] == names["B"] > 0


def test_a_prolific_speaker_does_not_dominate() -> None:
    entries = [entry("prolific", number) for number in range(200)]
    entries += [entry(f"s{speaker}", number) for speaker in range(9) for number in range(10)]
    trials = draw(entries, total=6 * 300, ratio=5)
    given_by = Counter(trial.enrol.split("/")[1] for trial in trials if trial.target)
    assert sum(given_by.values()) == 300
    assert max(given_by.values()) - min(given_by.values()) <= 1
    enrolled = Counter(trial.enrol.split("/")[1] for trial in trials if not trial.target)
    assert max(enrolled.values()) - min(enrolled.values()) <= 1
    few = [entry(name, number) for name, count in (("prolific", 200), ("s", 3), ("t", 3)) for number in range(count)]
    shares = Counter(trial.enrol.split("/")[1] for trial in draw(few, total=6 * 300) if trial.target)
    assert shares == {"prolific": 200, "s": 3, "t": 3}  # twice an even share of 100, and all there are


def test_order_does_not_matter_and_the_seed_does() -> None:
    entries = [entry(f"s{speaker}", number) for speaker in range(10) for number in range(8)]
    shuffled = random.Random(3).sample(entries, len(entries))
    assert draw(entries, 500) == draw(shuffled, 500)
    assert draw(entries, 500) != draw(entries, 500, seed=1)


@pytest.mark.slow
def test_a_million_trials_of_a_thousand_speakers() -> None:
    entries = [
        entry(f"s{speaker:04d}", number, session=str(number % 9)) for speaker in range(1000) for number in range(60)
    ]
    start = time.process_time()
    trials = draw(entries, total=1_000_000, ratio=5)
    assert len(trials) == pytest.approx(1_000_000, rel=0.001)
    assert len({frozenset(trial[:2]) for trial in trials}) == len(trials)
    assert time.process_time() - start < 60


def test_absurd_numbers_of_non_targets_are_bounded_by_what_there_is() -> None:
    entries = [entry(speaker, number) for speaker in "ABCDEFGH" for number in range(30)]
    start = time.process_time()
    assert len(draw(entries, total=1000, ratio=10**9)) == 1000
    trials = draw(entries, total=10**12, ratio=10**9)
    assert sum(not trial.target for trial in trials) == 28 * 30 * 30
    assert len({frozenset(trial[:2]) for trial in trials}) == len(trials)
    assert time.process_time() - start < 10


@given(
    st.lists(st.tuples(st.sampled_from("ABCDE"), st.sampled_from("xy"), st.integers(0, 9)), max_size=30, unique=True)
)
def test_drawing_and_listing_find_the_same_pairs(rows: list[tuple[str, str, int]]) -> None:
    genders = {"A": "f", "B": "f", "C": "m", "D": None, "E": None}
    entries = [
        entry(speaker, number, source=source, gender=genders[speaker])  # type: ignore[arg-type]
        for speaker, source, number in sorted(rows)
    ]
    if not entries:
        return
    listed = other_speaker_pairs(entries, 10**9, np.random.default_rng(0))
    of_source = [
        {a, b}
        for a, b in itertools.combinations(range(len(entries)), 2)
        if entries[a].source == entries[b].source and entries[a].speaker != entries[b].speaker
    ]

    def alone(place: int) -> bool:
        one = entries[place]
        mates = {other.speaker for other in entries if (other.source, other.gender) == (one.source, one.gender)}
        return not one.gender or mates == {one.speaker}

    expected = [
        pair
        for pair in of_source
        if len({entries[place].gender for place in pair}) == 1 or any(alone(place) for place in pair)
    ]
    assert sorted(map(sorted, listed.tolist())) == sorted(map(sorted, expected))
    if expected:  # so many that they are drawn rather than listed
        drawn = other_speaker_pairs(entries, 9 * len(expected), np.random.default_rng(0))
        assert {frozenset(pair) for pair in drawn.tolist()} <= {frozenset(pair) for pair in listed.tolist()}
