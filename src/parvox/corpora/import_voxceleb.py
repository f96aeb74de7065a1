"""The `voxceleb1` and `voxceleb2` importers.

Lhotse's recipe is not called here: for VoxCeleb1 it downloads a trial list while it prepares, for VoxCeleb2 it sees
nothing but .m4a, and for both it insists on the metadata file. Ids, speakers and genders are those it would give, with
slashes in place of hyphens, because hyphens also occur inside video ids and trial lists use slashes.
"""

from __future__ import annotations

import re
from pathlib import Path

from parvox.corpora.entries import (
    Entry,
    Listing,
    Rejected,
    Split,
    check_root,
    find_recordings,
    normal_gender,
    undecoded,
)
from parvox.corpora.import_folder import UniqueIds, require_some
from parvox.corpora.text_lines import numbered_lines
from parvox.errors import CorpusError

EXPECTED = "recordings at …/idNNNNN/VIDEO/NNNNN.wav (or .flac), and vox1_meta.csv or vox2_meta.csv if present"
_TEST_SPEAKERS = range(10270, 10310)
"""The speakers of VoxCeleb1's test part, whose names begin with E (Nagrani et al., "VoxCeleb", 2017)."""

_TEST_FOLDER = re.compile(r"(?:^|/)(?:vox[12]_)?test(?:_\w+)?/")


def import_voxceleb1(root: Path) -> Listing:
    """List VoxCeleb1; its 40 test speakers go to test, the others to train.

    Raises:
        CorpusError: `root` is missing or holds no recording of this layout.
    """
    return _import(root, "voxceleb1", "vox1_meta.csv")


def import_voxceleb2(root: Path) -> Listing:
    """List VoxCeleb2, converted from .m4a; speakers of its test part go to test, the others to train.

    Raises:
        CorpusError: `root` is missing or holds no recording of this layout, or all are still .m4a.
    """
    return _import(root, "voxceleb2", "vox2_meta.csv")


def _import(root: Path, source: str, metadata: str) -> Listing:
    root = check_root(root, EXPECTED)
    genders, parts = _read_metadata(root, metadata)
    listing = Listing([], licences=["CC-BY-4.0"])
    names = UniqueIds()
    for path in find_recordings(root):
        rejected = undecoded(path)
        match = re.search(r"(?:^|/)(id\d{5})/([^/]+)/[^/]+$", path)
        if rejected is None and match is None:
            rejected = Rejected(path, "unlisted", f"not part of {source}: expected {EXPECTED}")
        if rejected is not None or match is None:
            listing.rejected.extend([rejected] if rejected else [])
            continue
        speaker, video = match[1], match[2]
        split: Split = "train"
        if _TEST_FOLDER.search(path[: match.start(1)]) or parts.get(speaker) == "test":
            split = "test"
        if source == "voxceleb1" and int(speaker[2:]) in _TEST_SPEAKERS:
            split = "test"
        listing.entries.append(
            Entry(
                path=root / path,
                id=names.add(path[match.start(1) :]),
                source=source,
                speaker=speaker,
                session=video,
                recording=f"{speaker}/{video}",  # utterances are cut out of one video
                gender=genders.get(speaker),
                split=split,
            )
        )
    require_some(listing, root, EXPECTED)
    return listing


def _read_metadata(root: Path, name: str) -> tuple[dict[str, str | None], dict[str, str]]:
    """Genders and parts by speaker, from the tab- or comma-separated metadata file; empty without one."""
    genders: dict[str, str | None] = {}
    parts: dict[str, str] = {}
    for path in (root / name, root.parent / name, *sorted(root.glob(f"*/{name}"))):
        if not path.is_file():
            continue
        expected = "download it again, or remove it"
        for _, line in numbered_lines(path, what="metadata", expected=expected, error=CorpusError):
            cells = [cell.strip() for cell in re.split(r"[\t,]", line)]
            if len(cells) >= 4 and re.fullmatch(r"id\d{5}", cells[0]):  # id, name, gender[, nation], part
                genders[cells[0]], parts[cells[0]] = normal_gender(cells[2]), cells[-1].lower()
        break
    return genders, parts
