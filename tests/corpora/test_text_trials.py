"""Phrases and trials of the four kinds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parvox.corpora.entries import Entry
from parvox.corpora.phrases import count_kinds, normal_phrase, phrase_of, reordered, word_key
from parvox.corpora.text_trials import draw_text_trials
from parvox.corpora.trials import Trial
from parvox.errors import CorpusError

PHRASES = ("1 2 3", "3 2 1", "4 5 6")


def utterance(number: int, speaker: str, text: str | None, recording: str = "", **more: str) -> Entry:
    name = f"{speaker}/{number}"
    return Entry(
        path=Path("/none"), id=name, source="x", speaker=speaker, recording=recording or name, text=text, **more
    )


def test_order_of_words() -> None:
    assert reordered("1 2 3", "3 2  1")
    assert not reordered("1 2 3", "1  2 3 ")
    assert normal_phrase(" 1  2\t3 ") == "1 2 3"
    assert not reordered("1 2 3", "1 2 3")
    assert not reordered("1 2 3", "1 2 2")
    assert not reordered("12 3", "1 23")
    assert word_key("b a b") == "a b b"


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([*PHRASES, None]), st.sampled_from("rs")), max_size=50),
    st.integers(2, 400),
    st.integers(1, 12),
)
def test_whatever_is_drawn_is_what_it_says(drawn: list, total: int, ratio: int) -> None:
    entries = [utterance(k, speaker, text, f"{speaker}{take}") for k, (speaker, text, take) in enumerate(drawn)]
    trials = draw_text_trials(entries, total=total, nontargets_per_target=ratio, seed=(0,))
    by_id = {entry.id: entry for entry in entries}
    assert trials == draw_text_trials(entries[::-1], total=total, nontargets_per_target=ratio, seed=(0,))
    assert len({frozenset(trial[:2]) for trial in trials}) == len(trials)
    for enrol, test, target in trials:
        one, other = by_id[enrol], by_id[test]
        assert one.text
        assert other.text
        assert one.recording != other.recording
        assert target == (one.speaker == other.speaker and one.text == other.text)
    if trials:
        assert {trial.target for trial in trials} == {True, False}
    targets = sum(trial.target for trial in trials)
    assert targets <= max(total // (1 + ratio), 1)
    assert len(trials) - targets <= 3 * -(-targets * ratio // 3)


def test_kinds_come_in_equal_shares() -> None:
    entries = [utterance(10 * k + t, s, text) for s in "abcdefgh" for k, text in enumerate(PHRASES) for t in range(6)]
    trials = draw_text_trials(entries, total=1100, nontargets_per_target=9, seed=(1,))
    counts = count_kinds(trials, {e.id: e.speaker for e in entries}, {e.id: e.text or "" for e in entries})
    assert counts == {
        "target-correct": 110,
        "target-wrong": 330,
        "target-wrong-reordered": 165,
        "impostor-correct": 330,
        "impostor-wrong": 330,
    }
    enrolling = Counter(trial.enrol[0] for trial in trials if not trial.target)
    assert max(enrolling.values()) < 1.5 * min(enrolling.values())


def test_impostors_are_of_one_gender_where_they_can() -> None:
    entries = [
        utterance(10 * k + t, s, text, gender="f" if s in "abc" else "m")
        for s in "abcdef"
        for k, text in enumerate(PHRASES)
        for t in range(3)
    ]
    gender = {entry.id: entry.gender for entry in entries}
    trials = draw_text_trials(entries, total=500, nontargets_per_target=9, seed=(1,))
    assert all(gender[trial.enrol] == gender[trial.test] for trial in trials)


def test_kinds_by_hand() -> None:
    speaker = {"a": "A", "a2": "A", "a3": "A", "a4": "A", "b": "B", "b2": "B"}
    text = {"a": "1 2", "a2": "1 2", "a3": "2 1", "a4": "3", "b": "1 2", "b2": "3"}
    trials = [Trial("a", other, other == "a2") for other in ("a2", "a3", "a4", "b", "b2")]
    assert count_kinds(trials, speaker, text) == {
        "target-correct": 1,
        "target-wrong": 2,
        "target-wrong-reordered": 1,
        "impostor-correct": 1,
        "impostor-wrong": 1,
    }


def test_the_phrase_of_a_cut(prepared_tiny: Path) -> None:
    from parvox.corpora.prepared import PreparedCorpus

    cut = next(iter(PreparedCorpus.load(prepared_tiny).cuts("train")))
    with pytest.raises(CorpusError, match="has no text, so its phrase is unknown"):
        phrase_of(cut)
    cut.supervisions[0].text = "hi mia"
    assert phrase_of(cut) == "hi mia"
