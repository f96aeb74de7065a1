"""Which speech a demonstration uses, with a public corpus that a server on the loopback interface stands in for."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from parvox.corpora.demo_corpus import (
    SPEECH_COMMANDS,
    PublicCorpus,
    choose_corpus,
    synthetic_corpus,
    unpack_speech_commands,
)
from parvox.corpora.download import DownloadError, Patience
from parvox.corpora.import_csv import import_csv
from parvox.corpora.synthetic import SyntheticSettings, generate_synthetic
from parvox.errors import CorpusError, OutputError

SMALL = SyntheticSettings(speakers=2, utterances=2, noises=1, rooms=1)
QUICK = Patience(probe_s=2.0, stall_s=2.0, pause_s=0.0, attempts=1)
MEMBERS = [
    "./yes/0132a06d_nohash_0.wav",
    "./yes/0132a06d_nohash_1.wav",
    "no/ffd2ba2f_nohash_3.wav",
    "./_unknown_/eight_db24628d_nohash_2.wav.wav",
    "./_unknown_/eight_ffd2ba2f_nohash_0.wav.wav",
    "./_silence_/1024.wav",
    "./_silence_/926.wav",
]


def clip(seed: int) -> bytes:
    buffer = io.BytesIO()
    samples = 0.1 * np.random.default_rng(seed).standard_normal(16000)
    soundfile.write(buffer, samples, 16000, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def make_archive(path: Path, members: list[str]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for seed, name in enumerate(members):
            info = tarfile.TarInfo(name)
            data = clip(seed)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("./go/aaaaaaaa_nohash_0.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        notes = tarfile.TarInfo("./README.md")
        tar.addfile(notes)
    return path


@pytest.fixture
def public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PublicCorpus]:
    """A small archive of the right layout, published on the loopback interface."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "server"
    folder.mkdir()
    data = make_archive(folder / "speech.tar.gz", MEMBERS).read_bytes()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/speech.tar.gz"
    yield PublicCorpus("small speech", url, hashlib.sha256(data).hexdigest(), len(data), "CC-BY-4.0")
    server.shutdown()
    server.server_close()


def test_a_given_folder_is_used(tmp_path: Path, tiny_tree: Path) -> None:
    lines: list[str] = []
    corpus = choose_corpus(tiny_tree, tmp_path / "cache", lines.append)
    assert (corpus.root, corpus.importer, corpus.name, corpus.synthetic) == (tiny_tree, "csv", "voices", True)
    assert len(lines) == 1
    assert "synthetic" in lines[0]
    assert not (tmp_path / "cache").exists()


def test_given_real_speech_is_no_synthetic(tmp_path: Path, real_corpus: Path) -> None:
    corpus = choose_corpus(real_corpus, tmp_path, lambda line: None)
    assert not corpus.synthetic


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_a_given_folder_without_manifests_is_refused_rather_than_passed_over(tmp_path: Path, kind: str) -> None:
    given = tmp_path / kind
    if kind == "file":
        given.write_text("speech")
    elif kind == "empty":
        given.mkdir()
    with pytest.raises(CorpusError, match=re.escape(str(given))):
        choose_corpus(given, tmp_path / "cache", lambda line: None)


def test_the_public_corpus_is_downloaded_and_kept(tmp_path: Path, public: PublicCorpus) -> None:
    lines: list[str] = []
    cache = tmp_path / "cache"
    corpus = choose_corpus(None, cache, lines.append, public=public, patience=QUICK)
    assert (corpus.importer, corpus.name, corpus.synthetic) == ("csv", "small speech", False)
    assert public.url in corpus.why
    assert len(lines) == 1
    assert "CC-BY-4.0" in lines[0]
    assert [path.name for path in cache.iterdir()] == [corpus.root.name]  # the archive is gone

    listing = import_csv(corpus.root)
    assert not listing.synthetic
    speech = {entry.id: entry for entry in listing.entries if entry.kind == "speech"}
    assert len(speech) == 5
    eight = speech["speech/ffd2ba2f/eight_ffd2ba2f_0"]
    assert (eight.speaker, eight.text, eight.language) == ("speech/ffd2ba2f", "eight", "en")
    assert eight.path.read_bytes() == clip(4)
    assert {entry.speaker for entry in speech.values()} == {
        "speech/0132a06d",
        "speech/ffd2ba2f",
        "speech/db24628d",
    }
    kinds = [entry.kind for entry in listing.entries if entry.kind != "speech"]
    assert (kinds.count("noise"), kinds.count("rir")) == (2, 8)
    assert all(entry.path.is_file() for entry in listing.entries)

    again = choose_corpus(None, cache, lines.append, allow_download=False, public=public)
    assert again.root == corpus.root
    assert "earlier" in lines[-1]


def test_a_wrong_checksum_falls_back(tmp_path: Path, public: PublicCorpus) -> None:
    lines: list[str] = []
    wrong = PublicCorpus(public.name, public.url, "0" * 64, public.size, public.licence)
    corpus = choose_corpus(None, tmp_path / "cache", lines.append, size=SMALL, public=wrong, patience=QUICK)
    assert corpus.synthetic
    assert "SHA-256" in lines[-1]
    assert "SYNTHETIC" in lines[-1]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [corpus.root.name]


def test_no_network_falls_back_with_one_line(tmp_path: Path) -> None:
    lines: list[str] = []
    nowhere = PublicCorpus("nowhere", "http://127.0.0.1:1/speech.tar.gz", "0" * 64, 10, "CC-BY-4.0")
    corpus = choose_corpus(None, tmp_path, lines.append, size=SMALL, public=nowhere, patience=QUICK)
    assert corpus.synthetic
    assert "cannot be reached" in corpus.why
    assert corpus.why in lines[-1]
    assert all("\n" not in line for line in lines)
    assert import_csv(corpus.root).synthetic


def test_downloads_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parvox.corpora.demo_corpus.fetch", None)
    corpus = choose_corpus(None, tmp_path, lambda line: None, allow_download=False, size=SMALL)
    assert corpus.synthetic
    assert "switched off" in corpus.why


def test_synthetic_voices_are_made_once(tmp_path: Path) -> None:
    first = synthetic_corpus(tmp_path, lambda line: None, "asked for", SMALL)
    written = {path: path.stat().st_mtime_ns for path in first.root.rglob("*")}
    assert synthetic_corpus(tmp_path, lambda line: None, "asked for", SMALL).root == first.root
    assert written == {path: path.stat().st_mtime_ns for path in first.root.rglob("*")}
    other = synthetic_corpus(tmp_path, lambda line: None, "asked for", SyntheticSettings(speakers=3, utterances=1))
    assert other.root != first.root


def test_an_unwritable_cache_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        choose_corpus(None, tmp_path / "cache", lambda line: None, allow_download=False, size=SMALL)


def test_no_archive_member_leads_outside(tmp_path: Path) -> None:
    evil = ["../yes/0132a06d_nohash_0.wav", "/tmp/yes/0132a06d_nohash_0.wav", "a/../../0132a06d_nohash_1.wav"]
    archive = make_archive(tmp_path / "evil.tar.gz", [*evil, "yes/0132a06d_nohash_7.wav"])
    unpack_speech_commands(archive, tmp_path / "a" / "b", "CC-BY-4.0")
    found = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.wav")]
    assert found == ["a/b/speech/0132a06d/yes_0132a06d_7.wav"]


@pytest.mark.parametrize("damage", ["text", "truncated", "other"])
def test_a_damaged_archive_leaves_nothing_behind(tmp_path: Path, damage: str) -> None:
    archive = make_archive(tmp_path / "x.tar.gz", [] if damage == "other" else MEMBERS)
    data = archive.read_bytes()
    archive.write_bytes({"text": b"<html>moved</html>", "truncated": data[: len(data) // 2], "other": data}[damage])
    with pytest.raises(DownloadError, match=re.escape(str(archive))):
        unpack_speech_commands(archive, tmp_path / "out", "CC-BY-4.0")
    assert list(tmp_path.iterdir()) == [archive]


def test_the_public_corpus_is_the_recipes() -> None:
    from lhotse.recipes import speechcommands

    assert SPEECH_COMMANDS.url == speechcommands._TEST_DOWNLOAD_PATH_V2
    assert re.fullmatch("[0-9a-f]{64}", SPEECH_COMMANDS.sha256)


def test_the_importer_reads_synthetic_corpora(tmp_path: Path) -> None:
    listing = import_csv(generate_synthetic(tmp_path / "corpus", SMALL))
    assert listing.synthetic
    assert listing.rejected == []
    speech = [entry for entry in listing.entries if entry.kind == "speech"]
    assert len({entry.session for entry in speech}) == len({entry.recording for entry in speech}) == 4
    assert sorted(entry.kind for entry in listing.entries if entry.kind != "speech") == ["noise", "rir"]
