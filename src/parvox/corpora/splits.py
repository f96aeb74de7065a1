"""Speaker-disjoint splits that depend on the speakers' names and the seed, never on the order of files."""

from __future__ import annotations

import csv
import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from parvox.corpora.entries import SPLITS, Entry, Split
from parvox.errors import CorpusError

SplitBy = Literal["corpus", "source", "speaker"]


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """How speakers are dealt out."""

    by: SplitBy = "corpus"
    """corpus: the corpus's own partition, what it leaves open by source; source: each source in each split;
    speaker: all speakers alike."""
    dev_fraction: float = 0.1
    """Share of the speakers."""
    test_fraction: float = 0.1
    """Share of the speakers."""
    dev_speakers: int | None = None
    """A number instead of a share."""
    test_speakers: int | None = None
    """A number instead of a share."""
    seed: int = 0
    """Deals anew."""


def split_speakers(
    entries: Iterable[Entry],
    settings: SplitSettings,
    *,
    test_speakers: frozenset[str] = frozenset(),
    dev_speakers: frozenset[str] = frozenset(),
    fixed: Mapping[str, Split] | None = None,
    keep_train: bool = False,
) -> dict[str, Split]:
    """Which split each speaker belongs to.

    Speakers are ranked by a hash of seed and name, and the first ones held out, so that a speaker more or less moves
    few others.

    Args:
        entries: Utterances.
        settings: How to deal.
        test_speakers: Speakers that must be in test, because a trial list names them.
        dev_speakers: Speakers that must be in dev, because a trial list names them.
        fixed: A split for every speaker, from a file; nothing is dealt then.
        keep_train: Whether the corpus's own partition keeps its train speakers too. Published partitions often have no
            dev split, so otherwise it is dealt from them.

    Raises:
        CorpusError: There are too few speakers, one has no split in `fixed`, or a speaker named by a trial list would
            be in two splits, or the corpus has another number of speakers in a split than the one asked for.
    """
    if both := test_speakers & dev_speakers:
        raise CorpusError(
            f"{len(both)} speakers, such as {min(both)!r}, are in the trial lists of dev and of test; expected lists "
            "that share no speaker"
        )
    own: dict[str, set[Split]] = {}
    sources: dict[str, Counter[str]] = {}
    for entry in entries:
        own.setdefault(entry.speaker, set()).update([entry.split] if entry.split else [])
        sources.setdefault(entry.speaker, Counter())[entry.source] += 1
    if fixed is not None:
        return _from_file(sorted(own), fixed, {"test": test_speakers, "dev": dev_speakers})
    splits: dict[str, Split] = {}
    kept: tuple[Split, ...] = ("test", "dev", "train") if keep_train else ("test", "dev")
    if settings.by == "corpus":  # a speaker on both sides of the corpus's own partition is held out
        for speaker, found in own.items():
            for split in kept:
                if split in found and speaker not in splits:
                    splits[speaker] = split
    splits.update(dict.fromkeys(test_speakers & own.keys(), "test"))
    splits.update(dict.fromkeys(dev_speakers & own.keys(), "dev"))
    pool: dict[str, list[str]] = {}
    for speaker in sorted(own.keys() - splits.keys(), key=lambda name: _rank(settings.seed, name)):
        counts = sources[speaker]
        stratum = "" if settings.by == "speaker" else min(counts, key=lambda source: (-counts[source], source))
        pool.setdefault(stratum, []).append(speaker)
    wanted: list[tuple[Split, float, int | None]] = [
        ("test", settings.test_fraction, settings.test_speakers),
        ("dev", settings.dev_fraction, settings.dev_speakers),
    ]
    everyone = math.isclose(settings.dev_fraction + settings.test_fraction, 1)  # nobody is left to train with
    last = "dev" if settings.dev_fraction else "test"
    all_of_pool = sum(map(len, pool.values()))
    # Shares are of the pool as it was before anything was drawn from it.
    sizes = {stratum: len(names) for stratum, names in pool.items()}
    for split, fraction, number in wanted:
        held = sum(found == split for found in splits.values())
        if held and number not in (None, held):
            raise CorpusError(
                f"{number} {split} speakers wanted, but the corpus or a trial list has {held}; leave out "
                f"--{split}_speakers, or deal anew by --split_by speaker without that list"
            )
        if held or not all_of_pool:
            if number and "train" in splits.values() and not held:
                raise CorpusError(
                    f"{number} {split} speakers wanted, but the corpus marks all others as train; unmark some, or "
                    "--split_by speaker to deal anew"
                )
            continue
        left = {name: len(names) for name, names in pool.items()}
        if number is None and everyone and split == last:
            quotas = left
        elif number is None:
            quotas = _by_share(left, sizes, fraction)
            if fraction and not sum(quotas.values()) and all_of_pool >= 3:  # too few in every stratum
                quotas = _by_number(left, max(round(fraction * all_of_pool), 1), split)
            if fraction and not sum(quotas.values()) and not splits:
                raise CorpusError(
                    f"{all_of_pool} speaker{'s' * (all_of_pool != 1)} cannot be split into train, dev and test; "
                    "expected at least 3, or --dev_fraction 0 --test_fraction 0 to put all into train"
                )
        else:
            quotas = _by_number(left, number, split)
        for stratum, quota in quotas.items():
            splits.update(dict.fromkeys(pool[stratum][:quota], split))
            del pool[stratum][:quota]
    splits.update((speaker, "train") for names in pool.values() for speaker in names)
    return splits


def _rank(seed: int, speaker: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{speaker}".encode()).digest()


def _by_share(left: dict[str, int], sizes: dict[str, int], fraction: float) -> dict[str, int]:
    """How many speakers of each stratum to hold out, of those `left`, for a share of the `sizes`."""
    if fraction == 0:
        return dict.fromkeys(left, 0)
    total = sum(sizes.values())
    quotas = {name: min(_share(sizes[name], fraction), left[name]) for name in left}
    if sum(quotas.values()) <= max(3 * fraction * total, 4):
        return quotas
    # Many small strata, each giving its least, would empty the training set: only some give then, but two speakers
    # each at least, since one alone meets nobody.
    quotas = dict.fromkeys(left, 0)
    for name in sorted(left, key=lambda name: (-left[name], name)):
        if sum(quotas.values()) >= fraction * total:
            break
        quotas[name] = min(max(_share(sizes[name], fraction), 2), left[name])
    return quotas


def _by_number(left: dict[str, int], number: int, split: Split) -> dict[str, int]:
    """How many speakers of each stratum to hold out, of those `left`, for `number` in all: in proportion."""
    available = sum(left.values())
    if number > available:
        raise CorpusError(f"{number} {split} speakers wanted, but only {available} can be had; ask for fewer")
    if not number:
        return dict.fromkeys(left, 0)
    exact = {name: number * count / available for name, count in left.items()}
    quotas = {name: int(value) for name, value in exact.items()}
    rest = sorted(exact, key=lambda name: (quotas[name] - exact[name], name))  # largest remainders first
    for name in rest[: number - sum(quotas.values())]:
        quotas[name] += 1
    return quotas


def _share(size: int, fraction: float) -> int:
    """A fraction of a stratum: at least two speakers, who can then be told from one another, where five or more are."""
    if size < 3:
        return 0
    return max(round(fraction * size), 2 if size >= 5 else 1)


def _from_file(
    speakers: list[str], fixed: Mapping[str, Split], named: Mapping[Split, frozenset[str]]
) -> dict[str, Split]:
    missing = [speaker for speaker in speakers if speaker not in fixed]
    if missing:
        raise CorpusError(
            f"the split file has no line for {len(missing)} of {len(speakers)} speakers, such as {missing[0]!r}; "
            "expected a line speaker,split for each"
        )
    for split, held in named.items():
        for speaker in sorted(held):
            if fixed.get(speaker, split) != split:
                raise CorpusError(
                    f"the split file puts {speaker!r} into {fixed[speaker]}, but the trial list of {split} names that "
                    f"speaker; put it into {split}, or leave one of the files out"
                )
    return {speaker: fixed[speaker] for speaker in speakers}


def read_split_file(path: Path) -> dict[str, Split]:
    """Read a CSV file with columns `speaker` and `split` (train, dev or test).

    Raises:
        CorpusError: It is missing, lacks a column, or a line is wrong.
    """
    splits: dict[str, Split] = {}
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"speaker", "split"} <= set(reader.fieldnames or []):
                raise CorpusError(
                    f"{path} has columns {', '.join(reader.fieldnames or []) or '(none)'}; expected speaker,split"
                )
            for row in reader:
                speaker, split = (row["speaker"] or "").strip(), (row["split"] or "").strip().lower()
                if split not in SPLITS or not speaker:
                    raise CorpusError(
                        f"{path} line {reader.line_num}: speaker {speaker!r}, split {split!r} given; "
                        "expected a name and train, dev or test"
                    )
                if splits.setdefault(speaker, split) != split:
                    raise CorpusError(
                        f"{path} line {reader.line_num}: speaker {speaker!r} is in two splits; expected one"
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{path} is not a CSV file in UTF-8 ({error}); expected speaker,split") from error
    except OSError as error:
        raise CorpusError(f"cannot read split file {path}: {error.strerror or error}; check the path") from error
    return splits
