"""Lhotse cuts of a prepared corpus: made, written to the byte alike each time, and summed up in a fingerprint."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parvox.corpora.check import Facts
from parvox.corpora.entries import Entry
from parvox.corpora.shards import without_content

if TYPE_CHECKING:
    from lhotse.cut import Cut


def make_cut(entry: Entry, facts: Facts, sample_rate_hz: int) -> Cut:
    """A cut of one channel over a whole recording, at the corpus's rate.

    Of speech in several channels the cut reads their mean; of noises and impulse responses the first channel, since
    the mean of a microphone array's channels is no place in a room. Another rate is changed while reading.
    """
    from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment
    from lhotse.supervision import AlignmentItem

    from parvox.corpora.downmix import ParvoxDownmix

    speech = entry.kind == "speech"
    downmix = speech and facts.channels > 1
    recording = Recording(
        id=entry.id,
        sources=[AudioSource("file", [0] if downmix else list(range(facts.channels)), str(entry.path))],
        sampling_rate=facts.rate_hz,
        num_samples=facts.samples,
        duration=facts.samples / facts.rate_hz,
        transforms=[ParvoxDownmix()] if downmix else None,
    )
    if facts.rate_hz != sample_rate_hz:
        recording = recording.resample(sample_rate_hz)
    cut = MonoCut(id=entry.id, start=0.0, duration=recording.duration, channel=0, recording=recording)
    if not speech:
        cut.custom = {
            "kind": entry.kind,
            "source": entry.source,
            "recording": entry.recording,
            "content": facts.content,
        }
        return cut
    cut.custom = {"content": facts.content}
    custom: dict[str, Any] = {"session": entry.session, "source": entry.source, "recording": entry.recording}
    alignment = None
    if entry.pieces:
        custom["pieces"] = [piece.id for piece in entry.pieces]
        words = [AlignmentItem(piece.text, piece.start_s, piece.duration_s) for piece in entry.pieces]
        alignment = {"word": words}
    cut.supervisions = [
        SupervisionSegment(
            id=entry.id,
            recording_id=entry.id,
            start=0.0,
            duration=recording.duration,
            text=entry.text,
            language=entry.language,
            speaker=entry.speaker or None,
            gender=entry.gender,
            custom=custom,
            alignment=alignment,
        )
    ]
    return cut


def write_cuts(path: Path, cuts: Iterable[Cut], relative_to: Path | None = None) -> None:
    """Write cuts as gzipped JSON lines; equal cuts give equal bytes (gzip's own time and name are left out).

    Args:
        path: The manifest.
        cuts: What to write.
        relative_to: Write audio paths relative to this folder instead of as they are.
    """
    with (
        path.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as zipped,
    ):
        for cut in cuts:
            data = cut.to_dict()
            if relative_to is not None:
                for source in data["recording"]["sources"]:
                    source["source"] = Path(os.path.relpath(source["source"], relative_to)).as_posix()
            zipped.write(json.dumps(data, ensure_ascii=False).encode() + b"\n")


class Fingerprint:
    """SHA-256 over what manifests and trial lists say: recordings count by content, wherever they lie."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add_cuts(self, name: str, cuts: Iterable[Cut]) -> None:
        """Count in the manifest called `name`."""
        self._hash.update(f"{name}\n".encode())
        for cut in cuts:
            fields: list[Any] = [
                cut.id,
                cut.sampling_rate,
                cut.num_samples,
                sorted(without_content(cut.custom or {}).items()),
            ]
            for segment in cut.supervisions:
                fields += [segment.speaker, segment.gender, segment.language, segment.text]
                fields.append(sorted((segment.custom or {}).items()))
            self._hash.update(json.dumps(fields, ensure_ascii=False).encode() + b"\n")

    def add_file(self, name: str, path: Path) -> None:
        """Count in the text file called `name`, line ends apart."""
        self._hash.update(f"{name}\n".encode())
        with path.open("rb") as file:
            for line in file:
                self._hash.update(line.rstrip(b"\r\n") + b"\n")

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        return self._hash.hexdigest()
