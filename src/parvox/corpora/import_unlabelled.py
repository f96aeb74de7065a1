"""The `unlabelled` importer: recordings of which nothing is known, for distillation that needs no speakers."""

from __future__ import annotations

from pathlib import Path

from parvox.corpora.entries import Entry, Listing, check_root, find_recordings, undecoded
from parvox.corpora.import_folder import UniqueIds, require_some

EXPECTED = "a folder of recordings, however deep"


def import_unlabelled(root: Path) -> Listing:
    """List every recording under `root` as speech without a speaker.

    Raises:
        CorpusError: `root` is missing, no folder, or holds no recording.
    """
    root = check_root(root, EXPECTED)
    listing = Listing([], labelled=False)
    names = UniqueIds()
    for path in find_recordings(root):
        rejected = undecoded(path)
        if rejected is not None:
            listing.rejected.append(rejected)
            continue
        name = names.add(path)
        listing.entries.append(Entry(path=root / path, id=name, source=root.name, recording=name))
    require_some(listing, root, EXPECTED)
    return listing
