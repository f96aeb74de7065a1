from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parvox.corpora.entries import Entry, Split
from parvox.corpora.splits import SplitSettings, read_split_file, split_speakers
from parvox.errors import CorpusError


def utterances(speakers: dict[str, str], split: Split | None = None, each: int = 2) -> list[Entry]:
    return [
        Entry(path=Path(f"{name}/{number}"), id=f"{name}/{number}", source=source, speaker=name, split=split)
        for name, source in speakers.items()
        for number in range(each)
    ]


@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.sampled_from("xyz"), min_size=3, max_size=60),
    st.sampled_from(["source", "speaker"]),
    st.integers(0, 3),
)
def test_every_speaker_has_one_split_whatever_the_order(speakers: dict[str, str], by: str, seed: int) -> None:
    entries = utterances(speakers)
    settings = SplitSettings(by=by, seed=seed)  # type: ignore[arg-type]
    splits = split_speakers(entries, settings)
    assert splits.keys() == speakers.keys()
    assert splits == split_speakers(random.Random(1).sample(entries, len(entries)), settings)
    counts = Counter(splits.values())
    assert counts["dev"] >= 1
    assert counts["test"] >= 1
    assert counts["train"] >= 1


def test_shares_and_strata() -> None:
    speakers = {f"big{n}": "big" for n in range(200)} | {f"small{n}": "small" for n in range(8)}
    speakers |= {"lone1": "lone", "lone2": "lone"}
    splits = split_speakers(utterances(speakers), SplitSettings(by="source"))
    counts = Counter((speakers[name], split) for name, split in splits.items())
    assert counts == {
        ("big", "train"): 160,
        ("big", "dev"): 20,
        ("big", "test"): 20,
        ("small", "train"): 4,
        ("small", "dev"): 2,
        ("small", "test"): 2,
        ("lone", "train"): 2,
    }


def test_numbers_are_met_exactly_and_dealt_in_proportion() -> None:
    speakers = {f"a{n}": "a" for n in range(60)} | {f"b{n}": "b" for n in range(40)}
    splits = split_speakers(utterances(speakers), SplitSettings(dev_speakers=10, test_speakers=5))
    counts = Counter((name[0], split) for name, split in splits.items())
    assert (counts["a", "test"], counts["b", "test"]) == (3, 2)
    assert (counts["a", "dev"], counts["b", "dev"]) == (6, 4)
    with pytest.raises(CorpusError, match="50 dev speakers wanted, but only 40 can be had"):
        split_speakers(utterances(speakers), SplitSettings(dev_speakers=50, test_speakers=60))


def test_nobody_need_be_left_to_train_with() -> None:
    speakers = {f"a{n}": "a" for n in range(7)} | {f"b{n}": "b" for n in range(2)}

    def counts(**settings: object) -> Counter[str]:
        return Counter(split_speakers(utterances(speakers), SplitSettings(**settings)).values())  # type: ignore[arg-type]

    assert counts(dev_fraction=0.0, test_fraction=1.0) == {"test": 9}
    assert counts(dev_fraction=0.3, test_fraction=0.7)["train"] == 0
    assert counts(dev_speakers=0, test_speakers=9) == {"test": 9}
    assert counts(dev_speakers=9, test_speakers=0) == {"dev": 9}


def test_the_seed_deals_anew_and_one_more_speaker_moves_few() -> None:
    speakers = {f"s{n}": "a" for n in range(100)}
    before = split_speakers(utterances(speakers), SplitSettings())
    assert before != split_speakers(utterances(speakers), SplitSettings(seed=1))
    after = split_speakers(utterances(speakers | {"new": "a"}), SplitSettings())
    assert sum(before[name] != after[name] for name in speakers) <= 2


def test_the_corpus_s_own_partition_comes_first() -> None:
    entries = utterances({f"t{n}": "a" for n in range(20)}, "train")
    entries += utterances({f"e{n}": "a" for n in range(5)}, "test")
    entries += utterances({"t0": "a"}, "test", each=1)  # on both sides: held out
    splits = split_speakers(entries, SplitSettings())
    assert {name for name, split in splits.items() if split == "test"} == {"t0", "e0", "e1", "e2", "e3", "e4"}
    assert Counter(splits.values())["dev"] == 2
    anew = split_speakers(entries, SplitSettings(by="speaker"))
    assert {name for name, split in anew.items() if split == "test"} != {"t0", "e0", "e1", "e2", "e3", "e4"}


def test_speakers_of_a_trial_list_are_tested() -> None:
    speakers = {f"s{n}": "a" for n in range(20)}
    named = frozenset({"s3", "s4"})
    splits = split_speakers(utterances(speakers), SplitSettings(), test_speakers=named)
    assert {name for name, split in splits.items() if split == "test"} == named
    everybody = split_speakers(utterances(speakers), SplitSettings(), test_speakers=frozenset(speakers))
    assert set(everybody.values()) == {"test"}


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_speakers(count: int) -> None:
    entries = utterances({f"s{n}": "a" for n in range(count)})
    with pytest.raises(CorpusError, match=r"expected at least 3, or --dev_fraction 0 --test_fraction 0"):
        split_speakers(entries, SplitSettings())
    all_train = split_speakers(entries, SplitSettings(dev_fraction=0, test_fraction=0))
    assert set(all_train.values()) == {"train"}


def test_many_tiny_sources_do_not_empty_the_training_set() -> None:
    speakers = {f"s{n}": f"source{n // 3}" for n in range(90)}
    splits = split_speakers(utterances(speakers), SplitSettings(by="source"))
    assert Counter(splits.values()) == {"train": 70, "dev": 10, "test": 10}
    for split in ("dev", "test"):
        companions = Counter(speakers[name] for name, given in splits.items() if given == split)
        assert set(companions.values()) == {2}


def test_two_speakers_beside_a_given_test_split_train() -> None:
    entries = utterances({"a": "x", "b": "x"}, "train") + utterances({"c": "x", "d": "x"}, "test")
    splits = split_speakers(entries, SplitSettings())
    assert splits == {"a": "train", "b": "train", "c": "test", "d": "test"}


def test_split_file(tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    path.write_text("speaker,split\na,train\nb,Dev\nc,test\nunused,test\n")
    fixed = read_split_file(path)
    entries = utterances({"a": "x", "b": "x", "c": "x"})
    assert split_speakers(entries, SplitSettings(), fixed=fixed) == {"a": "train", "b": "dev", "c": "test"}
    with pytest.raises(CorpusError, match="no line for 1 of 4 speakers, such as 'd'"):
        split_speakers(entries + utterances({"d": "x"}), SplitSettings(), fixed=fixed)
    with pytest.raises(CorpusError, match="puts 'a' into train, but the trial list"):
        split_speakers(entries, SplitSettings(), fixed=fixed, test_speakers=frozenset({"a"}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speaker,part\na,train\n", "has columns speaker, part"),
        ("", "has columns"),
        ("speaker,split\na,training\n", "line 2: speaker 'a', split 'training'"),
        ("speaker,split\na\n", "line 2"),
        ("speaker,split\na,dev\na,test\n", "line 3: speaker 'a' is in two splits"),
    ],
)
def test_split_files_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "split.csv"
    path.write_text(text)
    with pytest.raises(CorpusError, match=message):
        read_split_file(path)


def test_split_file_missing_or_binary(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="cannot read split file"):
        read_split_file(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"speaker,split\n\xff\xfe,train\n")
    with pytest.raises(CorpusError, match="not a CSV file"):
        read_split_file(tmp_path / "binary.csv")


def test_speakers_marked_train_by_hand_stay_there() -> None:
    marked = utterances({f"t{n}": "a" for n in range(20)}, "train")
    assert set(split_speakers(marked, SplitSettings(), keep_train=True).values()) == {"train"}
    with pytest.raises(CorpusError, match="3 dev speakers wanted, but the corpus marks all others as train"):
        split_speakers(marked, SplitSettings(dev_speakers=3), keep_train=True)
    open_ones = utterances({f"o{n}": "a" for n in range(20)})
    splits = split_speakers(marked + open_ones, SplitSettings(), keep_train=True)
    assert Counter(splits.values()) == {"train": 36, "dev": 2, "test": 2}
    assert {splits[f"t{n}"] for n in range(20)} == {"train"}
    held_out = split_speakers(marked + utterances({"t0": "a"}, "dev"), SplitSettings(), keep_train=True)
    assert [name for name, split in held_out.items() if split == "dev"] == ["t0"]
    anew = split_speakers(marked, SplitSettings(by="speaker"), keep_train=True)
    assert Counter(anew.values()) == {"train": 16, "dev": 2, "test": 2}


def test_a_number_beside_a_partition_of_the_corpus_is_refused() -> None:
    held = utterances({f"t{n}": "a" for n in range(4)}, "test") + utterances({f"o{n}": "a" for n in range(20)})
    with pytest.raises(CorpusError, match="6 test speakers wanted, but the corpus or a trial list has 4; leave out"):
        split_speakers(held, SplitSettings(test_speakers=6))
    assert Counter(split_speakers(held, SplitSettings(test_speakers=4)).values())["test"] == 4
    assert Counter(split_speakers(held, SplitSettings(test_speakers=6, by="speaker")).values())["test"] == 6
