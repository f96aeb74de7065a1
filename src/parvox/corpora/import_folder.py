"""The `folder` importer: one folder per speaker, however deep; and plain folders of noises or impulse responses."""

from __future__ import annotations

from pathlib import Path

from parvox.corpora.entries import (
    CONVERT,
    Entry,
    Kind,
    Listing,
    Rejected,
    check_root,
    find_recordings,
    undecoded,
    utterance_id,
)
from parvox.errors import CorpusError

EXPECTED = "a folder per speaker with recordings in it: ROOT/SPEAKER/[SESSION/…]RECORDING.wav"


def import_folder(root: Path) -> Listing:
    """List ``ROOT/SPEAKER/[SESSION/…]RECORDING``.

    The first level is the speaker, the second, where there is one, the session; deeper levels only tell files apart.
    Recordings directly in `root` have no speaker and are rejected.

    Raises:
        CorpusError: `root` is missing, no folder, or holds no recording.
    """
    root = check_root(root, EXPECTED)
    listing = Listing([])
    names = UniqueIds()
    for path in find_recordings(root):
        rejected = undecoded(path)
        parts = path.split("/")
        if rejected is None and len(parts) == 1:
            rejected = Rejected(path, "no speaker", f"it lies in ROOT itself; expected {EXPECTED}")
        if rejected is not None:
            listing.rejected.append(rejected)
            continue
        name = names.add(path)
        listing.entries.append(
            Entry(
                path=root / path,
                id=name,
                source=root.name,
                speaker=parts[0],
                session=parts[1] if len(parts) > 2 else parts[0],
                recording=name,
            )
        )
    require_some(listing, root, EXPECTED)
    return listing


def import_clips(root: Path, kind: Kind, prefix: str = "") -> Listing:
    """List every recording under `root` as a noise or an impulse response.

    Args:
        root: A plain folder of any depth.
        kind: What they are.
        prefix: Put before each id.
    """
    root = check_root(root, "a folder of recordings")
    listing = Listing([])
    names = UniqueIds(prefix)
    for path in find_recordings(root):
        rejected = undecoded(path)
        if rejected is not None:
            listing.rejected.append(rejected)
            continue
        name = names.add(path)
        listing.entries.append(
            Entry(path=root / path, id=name, source=root.name, kind=kind, recording=measurement(name, kind))
        )
    require_some(listing, root, "a folder of recordings")
    return listing


class UniqueIds:
    """Utterance ids that stay unique where files differ in nothing but their suffix.

    Args:
        prefix: Put before each id.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._taken: set[str] = set()

    def add(self, path: str) -> str:
        """The id of relative `path`; with its suffix if the id without is taken."""
        name = self._prefix + utterance_id(path)
        if name in self._taken:
            name = full = self._prefix + utterance_id(path + ".")
            copy = 1
            while name in self._taken:
                copy += 1
                name = f"{full}~{copy}"
        self._taken.add(name)
        return name


def measurement(name: str, kind: Kind) -> str:
    """Which clips must stay together when some are kept for tests.

    Impulse responses ``STEM_0, STEM_1, …`` of one folder are taken for the channels of one measurement; noises stand
    alone.
    """
    stem, _, number = name.rpartition("_")
    return stem if kind == "rir" and stem and number.isdigit() else name


def require_some(listing: Listing, root: Path, expected: str) -> None:
    """Raise `CorpusError` where nothing was found, and say what to do with what cannot be decoded."""
    if listing.entries:
        return
    if any(item.reason == "unreadable" for item in listing.rejected):
        raise CorpusError(
            f"{root} holds {len(listing.rejected)} recordings in formats that are not decoded, such as "
            f"{listing.rejected[0].path}; {CONVERT}"
        )
    raise CorpusError(f"{root} holds no recordings as expected: {expected}")
