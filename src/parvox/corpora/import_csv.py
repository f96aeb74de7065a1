"""The `csv` importer: a folder with `manifest.csv`, or a folder of such folders."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path, PurePosixPath

from parvox.corpora.entries import Entry, Kind, Listing, Rejected, check_root, normal_gender, undecoded
from parvox.corpora.import_folder import UniqueIds, measurement
from parvox.corpora.synthetic import SOURCE as SYNTHETIC_SOURCE
from parvox.errors import CorpusError

MANIFEST = "manifest.csv"
EXPECTED = "manifest.csv with columns path and speaker (or kind: noise, rir), or folders that have one"
_PIECE = re.compile(r"(.+)_s\d+")


def import_csv(root: Path) -> Listing:
    """List what `manifest.csv` names.

    Columns: `path`, relative to the manifest's folder, and `speaker` are needed. Understood as well: `source`,
    `session`, `recording`, `text`, `language` or `lang`, `gender`, `native_rate`, `kind` (speech, noise or rir; rows
    that are not speech need no speaker), `split` (train, dev or test, where they stay), `licence`, `synthetic`. Others
    are ignored.

    Without a `recording`, files ``STEM_s0, STEM_s1, …`` of one folder count as pieces of one continuous recording.
    Where `root` holds folders with manifests rather than one itself, all are combined, and speakers and ids begin
    with the folder's name.

    Raises:
        CorpusError: There is no manifest, one lacks a column or is no CSV, or a path leaves the manifest's folder.
    """
    root = check_root(root, EXPECTED)
    listing = Listing([], keep_train=True)
    if (root / MANIFEST).is_file():
        _read(root, "", listing)
    else:
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        described = [folder for folder in folders if (folder / MANIFEST).is_file()]
        if not described:
            raise CorpusError(f"{root} holds no {MANIFEST}; expected {EXPECTED}")
        for folder in folders:
            if folder in described:
                _read(folder, f"{folder.name}/", listing)
            else:
                listing.notes.append(f"{folder.name}/ has no {MANIFEST} and was left out")
    if not listing.entries and not listing.rejected:
        raise CorpusError(f"{root}: {MANIFEST} lists no recordings; expected one row each, {EXPECTED}")
    speech = [entry for entry in listing.entries if entry.kind == "speech"]
    listing.synthetic = listing.synthetic or any(entry.source == SYNTHETIC_SOURCE for entry in speech)
    listing.licences.sort()
    return listing


def _read(folder: Path, prefix: str, listing: Listing) -> None:
    path = folder / MANIFEST
    names = UniqueIds(prefix)
    seen: set[str] = set()
    licences = set(listing.licences)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = [(name or "").strip().lower() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            if "path" not in columns or not {"speaker", "kind"} & set(columns):
                raise CorpusError(
                    f"{path} has columns {', '.join(columns) or '(none)'}; needed are path and speaker (or kind)"
                )
            for row in reader:
                cells = {name: (value or "").strip() for name, value in row.items() if isinstance(value, str)}
                _add(folder, f"{path} line {reader.line_num}", prefix, cells, names, seen, listing)
                if cells.get("licence"):
                    licences.add(cells["licence"])
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{path} is not a CSV file in UTF-8 ({error}); expected {EXPECTED}") from error
    except OSError as error:
        raise CorpusError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
    listing.licences = list(licences)


def _add(
    folder: Path, where: str, prefix: str, row: dict[str, str], names: UniqueIds, seen: set[str], listing: Listing
) -> None:
    given = row.get("path", "").replace("\\", "/")
    path = _inside(given, where)
    kind = _kind(row.get("kind", ""), where)
    speaker = row.get("speaker", "")
    rejected = undecoded(prefix + path) if path else Rejected(where, "no path", "the row's path is empty")
    if rejected is None and path in seen:
        rejected = Rejected(prefix + path, "duplicate", f"listed again by {where}")
    if rejected is None and kind == "speech" and not speaker:
        rejected = Rejected(prefix + path, "no speaker", f"the speaker is empty in {where}")
    if rejected is not None:
        listing.rejected.append(rejected)
        return
    seen.add(path)
    name = names.add(path)
    split = row.get("split", "").lower()
    if split not in ("", "train", "dev", "test"):
        raise CorpusError(f"{where}: split {split!r} given; expected train, dev, test or nothing")
    if row.get("synthetic", "").lower() in ("1", "true", "yes") and kind == "speech":
        listing.synthetic = True
    if kind == "speech":
        piece = _PIECE.fullmatch(name)
        recording = piece[1] if piece else name
    else:
        recording = measurement(name, kind)
    listing.entries.append(
        Entry(
            path=folder / path,
            id=name,
            source=row.get("source") or folder.name,
            kind=kind,
            speaker=prefix + speaker if kind == "speech" else "",
            session=row.get("session") or speaker,
            recording=prefix + row["recording"] if row.get("recording") else recording,
            text=row.get("text") or None,
            language=row.get("language") or row.get("lang") or None,
            gender=normal_gender(row.get("gender")),
            native_rate_hz=_rate(row.get("native_rate", ""), where),
            split=split or None,  # type: ignore[arg-type]
        )
    )


def _inside(path: str, where: str) -> str:
    """`path` made plain; refused if it leaves the manifest's folder, which no honest manifest needs."""
    parts = PurePosixPath(path).parts
    if path.startswith("/") or re.match(r"[A-Za-z]:", path) or ".." in parts:
        raise CorpusError(
            f"{where}: path {path!r} leaves the folder; expected a path relative to the manifest, without '..'"
        )
    return os.path.join(*parts).replace(os.sep, "/") if parts else ""


def _kind(text: str, where: str) -> Kind:
    text = text.lower() or "speech"
    if text not in ("speech", "noise", "rir"):
        raise CorpusError(f"{where}: kind {text!r} given; expected speech, noise or rir")
    return text  # type: ignore[return-value]


def _rate(text: str, where: str) -> int | None:
    if not text:
        return None
    try:
        rate = int(float(text))
    except (ValueError, OverflowError):
        rate = 0
    if rate < 1:
        raise CorpusError(f"{where}: native_rate {text!r} given; expected a sample rate in Hz")
    return rate
