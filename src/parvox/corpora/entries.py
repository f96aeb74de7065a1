"""What importers hand over: the recordings of a corpus and what is known of each, before any is decoded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from parvox.audio import AUDIO_SUFFIXES
from parvox.corpora.trials import TrialList
from parvox.errors import CorpusError

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
Kind = Literal["speech", "noise", "rir"]

UNDECODED_SUFFIXES = frozenset({".m4a", ".aac", ".mp4", ".wma", ".amr", ".3gp", ".webm", ".mkv", ".ape"})
"""Sound in containers that libsndfile does not open; such files are listed as rejected rather than passed over."""

CONVERT = "convert it to FLAC first, for instance: ffmpeg -i IN.m4a -ac 1 -ar 16000 OUT.flac"


@dataclass(frozen=True, slots=True)
class Piece:
    """One word of an utterance joined from recordings of single words."""

    id: str
    """The recording it was taken from."""
    text: str
    start_s: float
    """Within the utterance."""
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One recording of a corpus: an utterance, a noise or a room impulse response."""

    path: Path
    """Absolute."""
    id: str
    """The path under the corpus's root without its suffix; no white space."""
    source: str
    """The collection it comes from; non-target trials stay within one."""
    kind: Kind = "speech"
    speaker: str = ""
    session: str = ""
    """The sitting, within the speaker."""
    recording: str = ""
    """Pieces of one continuous recording share it. Of noises and impulse responses: one measurement."""
    text: str | None = None
    language: str | None = None
    gender: str | None = None
    native_rate_hz: int | None = None
    """The rate it was recorded at, where that is known to differ from the file's."""
    split: Split | None = None
    """Where the corpus's own partition puts it."""
    pieces: tuple[Piece, ...] = ()
    """The recordings it was joined from; empty for one that was recorded as it is."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A recording left out, and why."""

    path: str
    reason: str
    detail: str


@dataclass
class Listing:
    """A corpus as its importer found it."""

    entries: list[Entry]
    rejected: list[Rejected] = field(default_factory=list)
    trial_lists: dict[Split, TrialList] = field(default_factory=dict)
    """The corpus's own trials."""
    text_dependent: bool = False
    """Whether the phrase counts as well as the speaker."""
    keep_train: bool = False
    """Whether speakers marked train stay there, since somebody chose so; else dev may be dealt from them."""
    labelled: bool = True
    """Whether speakers are known; where they are not, everything is for training and nobody's."""
    synthetic: bool = False
    licences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_root(root: Path, expected: str) -> Path:
    """The corpus's root as an absolute path.

    Args:
        root: As given.
        expected: What should lie there, for the error.

    Raises:
        CorpusError: It is missing, or not a folder.
    """
    root = Path(os.path.abspath(root))  # not resolved: links inside a corpus keep the names its lists use
    if not root.exists():
        raise CorpusError(f"no such folder: {root}; expected {expected}")
    if not root.is_dir():
        raise CorpusError(f"{root} is a file; expected {expected}")
    return root


def find_recordings(root: Path, suffixes: frozenset[str] = AUDIO_SUFFIXES | UNDECODED_SUFFIXES) -> Iterator[str]:
    """Recordings under `root` at any depth, as sorted POSIX paths relative to it.

    Links are followed, each folder once. Names that begin with a dot are passed over: they are the litter of archive
    tools and file managers.

    Raises:
        CorpusError: A folder cannot be listed.
    """
    yield from _find(root, "", suffixes, set())


def _find(folder: Path, prefix: str, suffixes: frozenset[str], above: set[tuple[int, int]]) -> Iterator[str]:
    try:
        status = folder.stat()
        with os.scandir(folder) as listing:
            found = sorted((entry for entry in listing if not entry.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise CorpusError(f"cannot list folder {folder}: {error.strerror or error}; check its permissions") from error
    key = (status.st_dev, status.st_ino)
    if key in above:  # a link back to a folder that holds it
        return
    for entry in found:
        if _is_folder(entry):
            yield from _find(folder / entry.name, f"{prefix}{entry.name}/", suffixes, above | {key})
        elif os.path.splitext(entry.name)[1].lower() in suffixes:
            yield prefix + entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself: as a file it will be rejected with the reason
        return False


def utterance_id(path: str) -> str:
    """The id of the recording at relative `path`: without suffix, white space percent-encoded as trial lists need."""
    stem = os.path.splitext(path)[0]
    return re.sub(r"[\s%]", lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), stem)


def undecoded(path: str) -> Rejected | None:
    """A rejection, if the name says that libsndfile cannot decode the file or that manifests cannot hold the name."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return Rejected(ascii(path), "bad name", "not UTF-8; rename the file")
    suffix = os.path.splitext(path)[1].lower()
    if suffix in UNDECODED_SUFFIXES:
        return Rejected(path, "unreadable", f"{suffix} is not decoded; {CONVERT}")
    return None


def normal_gender(text: str | None) -> str | None:
    """``m`` or ``f`` for the usual spellings, anything else in lower case, None for nothing."""
    text = (text or "").strip().lower()
    return {"male": "m", "man": "m", "female": "f", "woman": "f"}.get(text, text) or None
