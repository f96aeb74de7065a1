"""The `cnceleb` importer: CN-Celeb 1 and 2 (Fan et al. 2020, Li et al. 2022). Lhotse has no recipe for them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from parvox.corpora.entries import Entry, Listing, Rejected, check_root, find_recordings, undecoded
from parvox.corpora.import_folder import UniqueIds, require_some
from parvox.corpora.text_lines import numbered_lines
from parvox.corpora.trials import Trial, TrialList
from parvox.errors import CorpusError, TrialError

EXPECTED = "CN-Celeb's data/idNNNNN/GENRE-NN-NNN.flac, and for CN-Celeb1 dev/dev.lst and eval/"
_FILE = re.compile(r"(?:^|.*/)data/(id\d{5})/(?:([^/]*)-\d+|[^/]*)\.\w+$")
_EVAL = re.compile(r"(?:^|.*/)eval/(?:enroll|test)/(id\d{5})-(?:(.*)-\d+|[^/]*)\.\w+$")


def import_cnceleb(root: Path) -> Listing:
    """List CN-Celeb: `data/` for training, `eval/` with its own trials for testing.

    The enrolment of each evaluation speaker is one file, as the corpus's own protocol has it. Evaluation speakers'
    recordings in `data/` are left out, since `eval/` is made of them.

    Raises:
        CorpusError: `root` is missing or holds no recording of this layout.
        TrialError: `eval/lists` is damaged.
    """
    root = check_root(root, EXPECTED)
    listing = Listing([])
    names = UniqueIds()
    found = list(find_recordings(root))
    evaluated = {match[1] for path in found if (match := _EVAL.fullmatch(path))}
    dev_lists = _first(root, "dev/dev.lst")
    developed = {line for _, line in _lines(dev_lists)} if dev_lists else None
    for path in found:
        rejected = undecoded(path)
        for_test = _EVAL.fullmatch(path)
        match = for_test or _FILE.fullmatch(path)
        if rejected is None and match is None:
            rejected = Rejected(path, "unlisted", f"not part of CN-Celeb: expected {EXPECTED}")
        if rejected is None and match and not for_test and match[1] in evaluated - (developed or set()):
            rejected = Rejected(path, "evaluation copy", "of an evaluation speaker, whose recordings are in eval/")
        if rejected is not None or match is None:
            listing.rejected.extend([rejected] if rejected else [])
            continue
        speaker = match[1]
        name = names.add(path)
        session = match[2] or name.rpartition("/")[2]
        listing.entries.append(
            Entry(
                path=root / path,
                id=name,
                source="cnceleb",
                speaker=speaker,
                session=session,
                recording=f"{speaker}/{session}",  # the pieces of one session are cut from one video
                language="zh",
                split="test" if for_test else "train",
            )
        )
    require_some(listing, root, EXPECTED)
    lists = _first(root, "eval/lists/trials.lst")
    if lists:
        listing.trial_lists["test"] = TrialList(_read_trials(lists, root), "eval/lists/trials.lst")
    return listing


def _first(root: Path, name: str) -> Path | None:
    return next((path for path in (root / name, *sorted(root.glob(f"*/{name}"))) if path.is_file()), None)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    return numbered_lines(path, what="list", expected="unpack the corpus again", error=CorpusError)


def _read_trials(path: Path, root: Path) -> list[Trial]:
    """Lines ``id00800-enroll test/id00800-singing-01-001.wav 1``; enrol.lst says which file an enrolment is."""
    evaluation = path.parent.parent
    prefix = evaluation.relative_to(root).as_posix()
    enrolments = {}
    enrol_list = path.parent / "enroll.lst"
    for _, line in _lines(enrol_list) if enrol_list.is_file() else ():
        fields = line.split()
        if len(fields) >= 2:
            enrolments[fields[0]] = fields[1]
    trials = []
    for number, line in _lines(path):
        fields = line.split()
        if len(fields) != 3 or fields[2] not in ("0", "1"):
            raise TrialError(f"{path} line {number}: {line[:60]!r} is no trial; expected 'enrolment test-file 0-or-1'")
        enrol = enrolments.get(fields[0], f"enroll/{fields[0]}.wav")
        trials.append(Trial(f"{prefix}/{enrol}", f"{prefix}/{fields[1]}", fields[2] == "1"))
    return trials
