"""Which recordings make which phrases."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parvox.corpora.entries import Entry
from parvox.corpora.join_plan import plan_joins
from parvox.corpora.join_settings import JoinSettings
from parvox.errors import CorpusError


def clip(speaker: str, word: str, take: int, recording: str = "", session: str = "day") -> Entry:
    name = f"{speaker}/{session}-{word}-{take}"
    return Entry(
        path=Path("/nowhere") / name,
        id=name,
        source="words",
        speaker=speaker,
        session=session,
        recording=recording or name,
        text=word,
    )


def inventory(speakers: str = "ab", words: str = "0123456789", takes: int = 8) -> list[Entry]:
    return [clip(speaker, word, take) for speaker in speakers for word in words for take in range(takes)]


def test_ten_digits() -> None:
    plan = plan_joins(inventory(), JoinSettings(words=4), seed=0)
    assert len(plan.phrases) == len(set(plan.phrases)) == 10
    assert all(len(set(phrase)) == 4 for phrase in plan.phrases)
    for first, second in zip(plan.phrases[::2], plan.phrases[1::2], strict=True):
        assert second == first[::-1]
    assert len({frozenset(phrase) for phrase in plan.phrases}) == 5
    assert set(Counter(word for phrase in plan.phrases for word in phrase).values()) == {4}  # each in two choices
    said = Counter((joint.words[0].speaker, joint.text) for joint in plan.joints)
    assert set(said.values()) == {8}
    assert len(said) == 20
    assert len({joint.id for joint in plan.joints}) == 160
    for joint in plan.joints:
        assert {entry.speaker for entry in joint.words} == {joint.id[0]}
    assert not plan.notes


def test_equal_seeds_give_equal_plans_whatever_the_order() -> None:
    clips = inventory()
    plan = plan_joins(clips, JoinSettings(words=4), seed=3)
    assert plan_joins(clips[::-1], JoinSettings(words=4), seed=3) == plan
    assert plan_joins(clips, JoinSettings(words=4), seed=4).phrases != plan.phrases


clips = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("012"), st.sampled_from(["r0", "r1", "r2", ""])),
    min_size=1,
    max_size=40,
)


@settings(deadline=None)
@given(clips)
def test_utterances_of_different_recordings_share_none(drawn: list[tuple[str, str, str]]) -> None:
    entries = [
        clip(speaker, word, number, f"{speaker}-{recording}" if recording else "")
        for number, (speaker, word, recording) in enumerate(drawn)
    ]
    try:
        plan = plan_joins(entries, JoinSettings(words=2, phrases=2), seed=0)
    except CorpusError:
        return  # the words do not suffice
    used = [{entry.recording for entry in joint.words} for joint in plan.joints]
    for one, joint in zip(used, plan.joints, strict=True):
        for other, another in zip(used, plan.joints, strict=True):
            if one & other:
                assert joint.recording == another.recording
            if joint.text == another.text and joint is not another:
                assert not set(joint.words) & set(another.words)


def test_takes_that_share_nothing_are_told_apart() -> None:
    plan = plan_joins(inventory("a", "01", 5), JoinSettings(words=2, phrases=2), seed=0)
    groups = Counter(joint.recording for joint in plan.joints)
    assert sorted(groups.values()) == [2] * 5  # both orders of one take
    # Words cut from three readings: a take is a reading.
    cut = [clip("a", word, take, f"reading{take}") for word in "0123" for take in range(3)]
    plan = plan_joins(cut, JoinSettings(words=3, phrases=4), seed=0)
    assert all(len({entry.recording for entry in joint.words}) == 1 for joint in plan.joints)
    assert Counter(joint.recording for joint in plan.joints) == {f"reading{take}": 4 for take in range(3)}


def test_sessions_are_never_mixed() -> None:
    entries = [clip("a", word, take, session=day) for word in "012" for take in range(2) for day in ("mon", "tue")]
    plan = plan_joins(entries, JoinSettings(words=2, phrases=2), seed=0)
    assert {entry.session for joint in plan.joints for entry in joint.words} == {"mon", "tue"}
    assert all(len({entry.session for entry in joint.words}) == 1 for joint in plan.joints)
    assert len(plan.joints) == 2 * 2 * 2


def test_a_given_list_with_a_word_twice(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("1 1 2\n\n2 1\n")
    plan = plan_joins(inventory("a", "12", 5), JoinSettings(phrase_list=tmp_path / "list"), seed=0)
    said = Counter(joint.text for joint in plan.joints)
    assert said == {"1 1 2": 2, "2 1": 5}
    for joint in plan.joints:
        assert len(set(joint.words)) == len(joint.words)


def test_every_choice_there_is() -> None:
    plan = plan_joins(inventory("a", "01234", 1), JoinSettings(words=3, phrases=10, orders=1), seed=0)
    assert {frozenset(phrase) for phrase in plan.phrases} == {frozenset(c) for c in itertools.combinations("01234", 3)}


def test_more_orders_and_fewer_takes() -> None:
    plan = plan_joins(inventory("a", "012", 5), JoinSettings(words=3, phrases=6, orders=6, takes=2), seed=0)
    assert len(set(plan.phrases)) == 6
    assert len(plan.joints) == 12


def test_speakers_and_recordings_without_use_are_counted() -> None:
    entries = [*inventory("ab", "01", 2), clip("c", "0", 0), clip("a", "two words", 0)]
    plan = plan_joins(entries, JoinSettings(words=2, phrases=2), seed=0)
    assert plan.notes == [
        "join: 1 recordings are not of a single word and were left out",
        "join: 1 of 3 speakers lack the words of every phrase",
    ]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (JoinSettings(words=4, phrases=500), "250 different choices of 4 words wanted, but only 210"),
        (JoinSettings(words=11, phrases=1), "only 0 can be made of the 10 words"),
        (JoinSettings(phrase_list=Path("/nowhere/list")), "cannot read phrase list"),
    ],
)
def test_too_much_asked(asked: JoinSettings, words: str) -> None:
    with pytest.raises(CorpusError, match=words):
        plan_joins(inventory(), asked, seed=0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "is empty"),
        (b"1 2\n1 2\n", "holds '1 2' twice"),
        (b"\xff", "is not a text file"),
        (b"1 2\n1 x\ny 2\n", "'1 x' has the word 'x', which no usable recording is of .2 of 3 phrases"),
    ],
)
def test_damaged_lists(text: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(text)
    with pytest.raises(CorpusError, match=words):
        plan_joins(inventory(), JoinSettings(phrase_list=tmp_path / "list"), seed=0)


def test_no_words() -> None:
    with pytest.raises(CorpusError, match="none of the 1 recordings has a text of one word"):
        plan_joins([clip("a", "two words", 0)], JoinSettings(words=2), seed=0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"words": 1}, "join.words: 1 given; expected 2 or more"),
        ({"words": 2, "orders": 3}, "at most 2 for 2 words"),
        ({"words": 2, "phrase_list": Path("x")}, "either this or phrase_list"),
        ({"phrases": 0}, "join.phrases"),
        ({"takes": 0}, "join.takes"),
        ({"gap_s": float("nan")}, "join.gap_s"),
        ({"gap_s": 0.1}, "join.gap_s: 0.1 given; expected join.words or join.phrase_list beside it"),
        ({"phrases": 5}, "join.phrases: 5 given; expected join.words"),
        ({"phrases": 5, "phrase_list": Path("x")}, "join.phrases: 5 given; expected no join.phrase_list"),
        ({"trim_db": -1.0}, "join.trim_db"),
    ],
)
def test_settings_are_checked(values: dict, words: str) -> None:
    with pytest.raises(CorpusError, match=words):
        JoinSettings(**values)


def test_odd_words_and_speakers_make_sound_names() -> None:
    entries = [
        clip(speaker, word, take) for speaker in ("x/..", ".y z") for word in ("a/b", "c-d", "é") for take in (0, 1)
    ]
    plan = plan_joins(entries, JoinSettings(words=2, phrases=4), seed=0)
    for joint in plan.joints:
        assert len(joint.id.split()) == 1
        assert not any(part.startswith(".") for part in joint.id.split("/"))
    assert len({joint.id for joint in plan.joints}) == len(plan.joints)


def test_words_with_marks_never_share_an_id(tmp_path: Path) -> None:
    said = ["a-b", "a/b", "a~b", "a%2Db", "a", "b", ".c", "c"]
    entries = [clip("s", word, 0) for word in said]
    (tmp_path / "list").write_text("".join(f"{word} c\n" for word in said[:-1]) + "a b c\n.c .c\nc c\n")
    plan = plan_joins(entries, JoinSettings(phrase_list=tmp_path / "list"), seed=0)
    ids = {joint.text: joint.id for joint in plan.joints}
    assert len(set(ids.values())) == len(plan.joints) == 8
    assert ids["a c"] == "s/a-c_0"  # usual ones stay as they are
    assert ids["a-b c"] == "s/a%2Db-c_0"
    assert ids["a/b c"] == "s/a%2Fb-c_0"
    assert plan.notes == ["join: 2 of 10 phrases are said by nobody, as no speaker has all their words"]


def test_long_phrases_have_names_that_file_systems_take() -> None:
    words = [f"{'é' * 10}{number}" for number in range(30)]
    plan = plan_joins([clip("s", word, 0) for word in words], JoinSettings(words=30, phrases=9, orders=9), seed=0)
    assert len({joint.id for joint in plan.joints}) == 9
    assert all(len(joint.id.encode()) <= 130 for joint in plan.joints)


def test_repeated_ids_are_refused() -> None:
    entries = [
        clip(speaker, word, 0, session=session)
        for speaker, session in (("x", "y/z"), ("x/y", "z"), ("x", "1"), ("x/y", "1"))
        for word in "01"
    ]
    with pytest.raises(CorpusError, match="2 ids, such as 'x/y/z/words/0-1_0', would each name several") as error:
        plan_joins(entries, JoinSettings(words=2, phrases=2, orders=2), seed=1)
    assert "\n" not in str(error.value)


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("1 2\n2 1\n", encoding="utf-8-sig")
    plan = plan_joins(inventory("a", "12", 1), JoinSettings(phrase_list=tmp_path / "list"), seed=0)
    assert {joint.text for joint in plan.joints} == {"1 2", "2 1"}


def test_no_more_orders_are_drawn_than_phrases() -> None:
    start = time.process_time()
    plan = plan_joins(inventory("a", takes=1), JoinSettings(words=9, phrases=2, orders=362_880), seed=0)
    assert plan.phrases[1] == plan.phrases[0][::-1]
    assert time.process_time() - start < 5
