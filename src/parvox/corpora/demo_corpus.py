"""Speech for a demonstration: what the caller gives, else a small public corpus, else synthetic voices."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import re
import shutil
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from parvox.corpora.download import DownloadError, Patience, fetch
from parvox.corpora.import_csv import import_csv
from parvox.corpora.synthetic import (
    VERSION,
    SyntheticSettings,
    generate_synthetic,
    read_synthetic_settings,
    write_manifest,
    write_rooms,
)
from parvox.errors import OutputError
from parvox.files import atomic_folder

_ROOMS = 8
_SPOKEN = re.compile(r"(?:\./)?(\w+)/(?:([a-z]+)_)?([0-9a-f]{8})_nohash_(\d+)(?:\.wav)+")
_SILENT = re.compile(r"(?:\./)?_silence_/(\d+)\.wav")


@dataclass(frozen=True)
class PublicCorpus:
    """A corpus to download.

    Attributes:
        name: What it is called in print.
        url: Where its archive is published.
        sha256: Checksum of the archive.
        size: Bytes of the archive.
        licence: SPDX identifier.
    """

    name: str
    url: str
    sha256: str
    size: int
    licence: str


SPEECH_COMMANDS = PublicCorpus(
    name="Speech Commands v0.02, test set",
    # As in lhotse.recipes.speechcommands. The recipe itself would fetch 2.4 GB more and checks nothing.
    url="http://download.tensorflow.org/data/speech_commands_test_set_v0.02.tar.gz",
    # Published with TensorFlow Datasets, url_checksums/speech_commands.txt.
    sha256="cc2a00c1147c2254e9be3fa0f779d8c17421dc349b86366567a8edfa9acd51df",
    size=112_563_277,
    licence="CC-BY-4.0",
)
"""Warden 2018, arXiv:1804.03209: 4,482 words of a second by 239 speakers, and 408 s of noise."""


@dataclass(frozen=True)
class DemoCorpus:
    """The corpus that a demonstration uses.

    Attributes:
        root: Folder for `parvox prepare`.
        importer: Which importer reads it.
        name: What it is called in print and in reports.
        synthetic: Whether its voices are made by a program; results must then be labelled so.
        why: One line: why this one.
    """

    root: Path
    importer: str
    name: str
    synthetic: bool
    why: str


def choose_corpus(
    given: Path | None,
    cache: Path,
    announce: Callable[[str], None],
    allow_download: bool = True,
    size: SyntheticSettings | None = None,
    public: PublicCorpus = SPEECH_COMMANDS,
    patience: Patience | None = None,
) -> DemoCorpus:
    """The corpus given, else a public one from `cache` or the network, else a synthetic one.

    Args:
        given: A folder with `manifest.csv`, or of folders that have one.
        cache: Folder for what is downloaded or made; used again on the next call.
        announce: Called with each line that the user should read.
        allow_download: Whether the network may be used.
        size: What a synthetic corpus would hold.
        public: What to download.
        patience: How long to wait for the network.

    Raises:
        CorpusError: `given` is no such folder.
        OutputError: `cache` cannot be written.
    """
    if given is not None:
        listing = import_csv(Path(given))
        label = "synthetic" if listing.synthetic else "recorded"
        corpus = DemoCorpus(Path(given), "csv", Path(given).resolve().name, listing.synthetic, "the folder given")
        announce(f"Using the {label} speech in {given}.")
        return corpus
    folder = cache / "speech-commands-v0.02-test"
    if (folder / "speech" / "manifest.csv").is_file():
        announce(f"Using {public.name} ({public.licence}), downloaded earlier to {folder}.")
        return DemoCorpus(folder, "csv", public.name, False, "downloaded earlier")
    why = "downloads are switched off"
    if allow_download:
        try:
            announce(f"Downloading {public.name} ({public.size / 1e6:.0f} MB, {public.licence}) from {public.url}.")
            archive = fetch(
                public.url,
                cache / public.url.rsplit("/", 1)[-1],
                sha256=public.sha256,
                size=public.size,
                patience=patience,
            )
            unpack_speech_commands(archive, folder, public.licence)
            archive.unlink(missing_ok=True)
            return DemoCorpus(folder, "csv", public.name, False, f"downloaded from {public.url}")
        except (DownloadError, OutputError) as error:
            why = str(error)
    return synthetic_corpus(cache, announce, why, size)


def synthetic_corpus(
    cache: Path, announce: Callable[[str], None], why: str, size: SyntheticSettings | None = None
) -> DemoCorpus:
    """A synthetic corpus in `cache`, made now or earlier.

    Args:
        cache: Folder for it.
        announce: Called with the line that the user should read.
        why: Why no real speech is used.
        size: What it holds.

    Raises:
        OutputError: `cache` cannot be written.
    """
    size = size or SyntheticSettings()
    announce(f"Using SYNTHETIC voices, whose results say nothing about real speech, because {why}.")
    key = hashlib.sha256(repr((VERSION, dataclasses.astuple(size))).encode()).hexdigest()[:8]
    folder = cache / f"synthetic-{size.speakers}x{size.utterances}-{key}"
    if read_synthetic_settings(folder) != size:
        generate_synthetic(folder, size)
    return DemoCorpus(folder, "csv", f"synthetic voices (seed {size.seed})", True, why)


def unpack_speech_commands(archive: Path, folder: Path, licence: str) -> None:
    """Unpack the Speech Commands test set as a folder for the `csv` importer, with synthetic rooms added.

    Only members with the names expected are read, and written to paths made here: no member can lead outside.

    Args:
        archive: The ``.tar.gz``.
        folder: Made whole or not at all.
        licence: For the manifests.

    Raises:
        DownloadError: `archive` is damaged or holds something else.
        OutputError: `folder` exists or cannot be written.
    """
    speech: list[dict[str, str]] = []
    noise: list[dict[str, str]] = []
    with atomic_folder(folder) as temporary:
        try:
            with tarfile.open(archive, "r:gz") as tar:
                for member in tar:
                    row = _row(member.name, licence) if member.isfile() else None
                    content = tar.extractfile(member) if row else None
                    if row is None or content is None:
                        continue
                    room, rows = ("speech", speech) if "speaker" in row else ("noise", noise)
                    target = temporary / room / row["path"]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with content, target.open("wb") as file:
                        shutil.copyfileobj(content, file)
                    rows.append(row)
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DownloadError(f"{archive} cannot be unpacked ({error}); remove it and try again") from error
        if not speech:
            raise DownloadError(f"{archive} holds no speech of the layout WORD/SPEAKER_nohash_N.wav; remove it")
        write_manifest(temporary / "speech" / "manifest.csv", sorted(speech, key=lambda row: row["path"]))
        rooms = write_rooms(temporary / "noise", _ROOMS, seed=0)
        noise.sort(key=lambda row: row["path"])
        columns = ("path", "kind", "source", "licence")
        write_manifest(
            temporary / "noise" / "manifest.csv", [{name: row[name] for name in columns} for row in noise + rooms]
        )


def _row(member: str, licence: str) -> dict[str, str] | None:
    """The manifest row of an archive member; None for what is not needed."""
    facts = {"source": "speech-commands-v0.02", "licence": licence}
    if match := _SILENT.fullmatch(member):
        return {"path": f"noise/{match[1]}.wav", "kind": "noise", **facts}
    if match := _SPOKEN.fullmatch(member):
        folder, word, speaker, number = match.groups()
        word = word or folder
        path = f"{speaker}/{word}_{speaker}_{number}.wav"
        return {"path": path, "speaker": speaker, **facts, "session": speaker, "text": word, "lang": "en"}
    return None
