"""Downloads against a server on the loopback interface that fails as real ones do."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from parvox.corpora.download import DownloadError, Patience, fetch
from parvox.errors import OutputError

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(probe_s=5.0, stall_s=5.0, pause_s=0.0)


class Server(ThreadingHTTPServer):
    """Serves `content` with ranges; `break_after` bytes of each answer it closes the connection."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.break_after: int | None = None
        self.ranges = True
        self.status = 200
        self.delay_s = 0.0
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/speech.tar.gz"

    def handle_error(self, *args: object) -> None:
        """A client that leaves is no news; and a traceback here would be parsed beside what the tests parse."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self._head(200, len(self.server.content), {})

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        content, total = self.server.content, len(self.server.content)
        if self.server.status != 200:
            self._head(self.server.status, 0, {})
            return
        if wanted and self.server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= total:
                self._head(416, 0, {"Content-Range": f"bytes */{total}"})
                return
            content = content[start:]
            self._head(206, len(content), {"Content-Range": f"bytes {start}-{total - 1}/{total}"})
        else:
            self._head(200, total, {})
        for at in range(0, len(content), 10_000):
            if self.server.break_after is not None and at >= self.server.break_after:
                self.close_connection = True
                return
            time.sleep(self.server.delay_s)
            self.wfile.write(content[at : at + 10_000])

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server(CONTENT)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def get(server: Server, target: Path, patience: Patience = QUICK, sha256: str = SHA256) -> Path:
    return fetch(server.url, target, sha256=sha256, size=len(CONTENT), patience=patience)


def test_fetches_once(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "new" / "speech.tar.gz"
    assert get(server, target) == target
    assert target.read_bytes() == CONTENT
    assert get(server, target).read_bytes() == CONTENT
    assert server.asked == [("/speech.tar.gz", None)]
    assert list(target.parent.iterdir()) == [target]


def test_goes_on_where_the_connection_broke(server: Server, tmp_path: Path) -> None:
    server.break_after = 100_000
    assert get(server, tmp_path / "x").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=100000-", "bytes=200000-"]


def test_goes_on_in_the_next_call(server: Server, tmp_path: Path) -> None:
    server.break_after = 100_000
    with pytest.raises(DownloadError, match=r"broke off after 0\.1 of 0\.3 MB.*next run goes on"):
        get(server, tmp_path / "x", Patience(attempts=0, pause_s=0.0))
    assert (tmp_path / "x.part").read_bytes() == CONTENT[:100_000]
    assert not (tmp_path / "x").exists()
    server.break_after = None
    assert get(server, tmp_path / "x").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=100000-"]
    assert not (tmp_path / "x.part").exists()


def test_a_server_without_ranges_sends_everything_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(CONTENT[:70_000])
    server.ranges = False
    assert get(server, tmp_path / "x").read_bytes() == CONTENT


def test_no_bytes_for_long_is_a_break(server: Server, tmp_path: Path) -> None:
    server.delay_s = 5.0
    with pytest.raises(DownloadError, match=r"broke off after 0\.0 of 0\.3 MB"):
        get(server, tmp_path / "x", Patience(stall_s=0.1, pause_s=0.0, attempts=2))
    assert len(server.asked) == 2


def test_a_wrong_checksum_is_refused_and_the_file_removed(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"SHA-256.*removed"):
        get(server, tmp_path / "x", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_part_is_found_and_fetched_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(b"\0" * 70_000)
    with pytest.raises(DownloadError, match="SHA-256"):
        get(server, tmp_path / "x")
    assert get(server, tmp_path / "x").read_bytes() == CONTENT


def test_a_part_that_is_whole_needs_no_network(tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(CONTENT)
    assert fetch("http://127.0.0.1:1/x", tmp_path / "x", sha256=SHA256, size=len(CONTENT)).read_bytes() == CONTENT


def test_a_file_shorter_than_published_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="broke off"):
        fetch(server.url, tmp_path / "x", sha256=SHA256, size=len(CONTENT) + 1000, patience=QUICK)
    assert not (tmp_path / "x").exists()


def test_too_slow_is_given_up_but_kept(server: Server, tmp_path: Path) -> None:
    server.delay_s = 0.05
    with pytest.raises(DownloadError, match=r"too slow: at 0\.\d+ MB/s"):
        get(server, tmp_path / "x", Patience(settle_s=0.2, total_s=0.8))
    kept = (tmp_path / "x.part").read_bytes()
    assert 0 < len(kept) < len(CONTENT)
    assert CONTENT.startswith(kept)
    server.delay_s = 0.0
    assert get(server, tmp_path / "x").read_bytes() == CONTENT


def test_a_refusal_is_told(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(DownloadError, match="HTTP 404"):
        get(server, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_no_server(server: Server, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
        with pytest.raises(DownloadError, match="cannot be reached"):
            fetch(url, tmp_path / "x", sha256=SHA256, size=9, patience=QUICK)


def test_a_silent_server_is_no_network(server: Server, tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        began = time.monotonic()
        with pytest.raises(DownloadError, match=r"did not answer|timed out"):
            fetch(url, tmp_path / "x", sha256=SHA256, size=9, patience=Patience(probe_s=0.3))
        assert time.monotonic() - began < 3


def test_a_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        get(server, tmp_path / "file" / "x")


def test_a_full_disk(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def full(self: Path, mode: str = "r", *args: object, **kwargs: object) -> object:
        if "b" in mode and ("w" in mode or "a" in mode):
            raise OSError(28, "No space left on device")
        return real(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError, match="No space left"):
        get(server, tmp_path / "x")
