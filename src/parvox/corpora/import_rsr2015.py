"""The `rsr2015-part1`, `rsr2015-part2` and `rsr2015-part3` importers.

RSR2015 (Larcher, Lee, Ma, Li: "Text-dependent speaker verification: Classifiers, databases and RSR2015", Speech
Communication 60, 2014) has 157 men and 143 women, nine sessions each, and three parts: 30 sentences, 30 short commands,
and strings of digits. The corpus itself was not at hand; what follows was taken from public code that reads it.

Sourced:

- ``sph/male/m001/m001_01_001.sph``: speaker, session, phrase; the files decompressed; ``key/`` beside ``sph/`` (the
  RSR2015 tutorial of SIDEKIT, by the corpus's first author).
- ``key/partN/trn/3sess-pwd_{dev,eval}_{m,f}.trn``, also written ``3sesspwd_…``: a model and three recordings, parted by
  spaces and commas. ``key/partN/ndx/…ndx``: a model, a recording, and Y or N for target-correct, target-wrong,
  impostor-correct and impostor-wrong (the same tutorial; the scripts of Liu, Madhavi, Das and Li, Interspeech 2019,
  which also tell the number of lines, 6.3 to 9.2 million each).
- Part III: ``trn/3seq10_{dev,eval}_{m,f}.trn`` and ``ndx/seq5_testeval_{m,f}.ndx``, each line led by the digits asked
  for; the index may name models that the list does not enrol (the scripts of Zeinali and Maghsoodi).
- Background, development and evaluation speakers: the first 50 men and 47 women, the next 50 and 47, and the rest (the
  same scripts; the first 50 men also in SIDEKIT's).
- Sentences are phrases 001 to 030 (SIDEKIT's).

Assumed: commands are phrases 031 to 060 and digits 061 to 073; the development index of Part III is
``seq5_testdev_{m,f}.ndx``. Texts are not in the key files, so the phrase's number stands for it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from parvox.corpora.entries import Entry, Listing, Rejected, Split, check_root, find_recordings, undecoded
from parvox.corpora.import_folder import UniqueIds, require_some
from parvox.corpora.text_lines import numbered_lines
from parvox.corpora.trials import Trial, TrialList
from parvox.errors import CorpusError, TrialError

EXPECTED = "RSR2015's sph/male/m001/m001_01_001.sph (decompressed, or .wav), and its folder key for trials"
MOST_IMPOSTOR_WRONG = 500_000
"""Trials by an impostor with a wrong phrase that are taken from one index; the corpus has some 8 million in each."""

_PHRASES = {1: range(1, 31), 2: range(31, 61), 3: range(61, 74)}
_LAST = {"m": (50, 100), "f": (47, 94)}  # the last background and the last development speaker
_UTTERANCE = re.compile(r"(([mf])(\d{3}))_(\d{2})_(\d{3})")
_KEY = {
    "trn": re.compile(r"3sess-?pwd[-_](dev|eval)_([mf])\.trn|3seq10_(dev|eval)_([mf])\.trn"),
    "ndx": re.compile(r"3sess-?pwd[-_](dev|eval)_([mf])\.ndx|seq5_test(dev|eval)_([mf])\.ndx"),
}


def import_rsr2015_part1(root: Path) -> Listing:
    """List Part I of RSR2015, 30 sentences: background speakers train, development speakers are dev, the others test.

    Trials are those of `key/part1`, three utterances to a voice.

    Raises:
        CorpusError: `root` is missing or holds no recording of this layout.
        TrialError: A key file is damaged.
    """
    return _import(root, 1)


def import_rsr2015_part2(root: Path) -> Listing:
    """List Part II of RSR2015, 30 short commands, as `import_rsr2015_part1` does Part I.

    Raises:
        CorpusError: `root` is missing or holds no recording of this layout.
        TrialError: A key file is damaged.
    """
    return _import(root, 2)


def import_rsr2015_part3(root: Path) -> Listing:
    """List Part III of RSR2015, strings of digits that are asked for anew each time.

    A voice is enrolled with three strings of ten digits and tried on strings of five, so that no test repeats its
    enrolment: what counts is the speaker. Of `key/part3` the trials that say what was asked for are taken, by the
    speaker as targets and by impostors as non-targets.

    Raises:
        CorpusError: `root` is missing or holds no recording of this layout.
        TrialError: A key file is damaged.
    """
    return _import(root, 3)


def _import(root: Path, part: int) -> Listing:
    root = check_root(root, EXPECTED)
    listing = Listing([], text_dependent=part < 3)
    names = UniqueIds()
    for path in find_recordings(root):
        rejected = undecoded(path)
        match = _UTTERANCE.fullmatch(path.rpartition("/")[2].partition(".")[0])
        if rejected is None and match is None:
            rejected = Rejected(path, "unlisted", f"not part of RSR2015: expected {EXPECTED}")
        if rejected is not None or match is None:
            listing.rejected.extend([rejected] if rejected else [])
            continue
        speaker, gender, number, session, phrase = match.groups()
        if int(phrase) not in _PHRASES[part]:
            continue  # of another part
        listing.entries.append(
            Entry(
                path=root / path,
                id=names.add(f"{_place(match[0])}{path[path.rindex('.') :]}"),
                source="rsr2015",
                speaker=speaker,
                session=session,
                recording=match[0],
                text=phrase if part < 3 else None,
                language="en",
                gender=gender,
                split=_split(gender, int(number)),
            )
        )
    require_some(listing, root, EXPECTED)
    for split, list_name in (("dev", "dev"), ("test", "eval")):
        found = _read_keys(root, part, list_name, listing.notes)
        if found is not None:
            listing.trial_lists[split] = found  # type: ignore[index]
    return listing


def _split(gender: str, number: int) -> Split:
    background, development = _LAST[gender]
    return "train" if number <= background else "dev" if number <= development else "test"


def _place(utterance: str) -> str:
    """The id of ``m001_01_001``: ``m001/m001_01_001``."""
    return f"{utterance[:4]}/{utterance}"


def _read_keys(root: Path, part: int, name: str, notes: list[str]) -> TrialList | None:
    """The trials of both genders together; they never meet."""
    folder = root / "key" / f"part{part}"
    listed = TrialList([], f"key/part{part}, {name}")
    thinned = 0
    for index in _keys(folder / "ndx", "ndx", name):
        gender = index.stem[-1]
        lists = [path for path in _keys(folder / "trn", "trn", name) if path.stem[-1] == gender]
        if not lists:
            raise CorpusError(f"{index} has no list of models beside it; expected one in {folder / 'trn'}")
        listed.voices |= _read_models(lists[0])
        thinned += _read_index(index, part, listed)
    if not listed.trials:
        if folder.is_dir():
            notes.append(f"{listed.name}: no lists of both models and trials")
        return None
    if thinned:
        notes.append(
            f"{listed.name}: {thinned:,} trials by impostors with a wrong phrase were left out by chance, at most "
            f"{MOST_IMPOSTOR_WRONG:,} a list stay"
        )
    return listed


def _keys(folder: Path, kind: str, name: str) -> list[Path]:
    found = []
    for path in sorted(folder.glob(f"*.{kind}")):
        match = _KEY[kind].fullmatch(path.name)
        if match and name in match.groups():
            found.append(path)
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    return numbered_lines(path, what="key file", expected="unpack the corpus again", error=TrialError)


def _read_models(path: Path) -> dict[str, tuple[str, ...]]:
    """Lines ``m051_001 male/m051/m051_01_001.sph,male/…,male/…``."""
    models: dict[str, tuple[str, ...]] = {}
    for number, line in _lines(path):
        model, *files = re.split(r"[,\s]+", line.strip())
        utterances = [match[0] for match in (_UTTERANCE.search(file) for file in files) if match]
        if not files or len(utterances) < len(files):
            raise TrialError(f"{path} line {number}: {line[:60]!r} is no model; expected 'model file,file,file'")
        places = tuple(_place(utterance) for utterance in utterances)
        if models.setdefault(model, places) != places:
            raise TrialError(
                f"{path} line {number}: {model} is enrolled again with other files; leave one of the lines"
            )
    return models


def _read_index(path: Path, part: int, listed: TrialList) -> int:
    """Add the trials of an index; returns how many were left out by chance."""
    share = 1.0
    left_out = 0
    for number, line in _lines(path):
        if number == 1:
            share = MOST_IMPOSTOR_WRONG * (len(line) + 1) / max(path.stat().st_size, 1)  # lines are of one length
        # Most lines are of this kind, so they are passed over before anything is taken apart.
        if line.endswith("Y") and (part == 3 or zlib.crc32(line.encode()) >= share * 2**32):
            left_out += part != 3
            continue
        fields = re.split(r"[,\s]+", line.strip())
        match = _UTTERANCE.search(fields[-5]) if len(fields) >= 6 else None
        kind = "".join(fields[-4:])
        if match is None or sorted(kind) != ["N", "N", "N", "Y"]:
            raise TrialError(f"{path} line {number}: {line[:60]!r} is no trial; expected 'model,file,Y,N,N,N' or alike")
        model = fields[-6]
        if part == 3 and (kind == "NYNN" or model not in listed.voices):
            continue
        listed.trials.append(Trial(model, _place(match[0]), kind == "YNNN"))
    return left_out
