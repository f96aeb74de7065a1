"""Fetch one file whole and verified, or say in one line why not; what did arrive is kept for the next try."""

from __future__ import annotations

import hashlib
import http.client
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from parvox.errors import CorpusError, OutputError
from parvox.progress import Bar

_CHUNK = 1 << 16
_MB = 1e6
_NETWORK_ERRORS = (OSError, http.client.HTTPException)  # URLError and time-outs are OSErrors


class DownloadError(CorpusError):
    """A file that could not be fetched, or is not what was published."""


class _Interrupted(Exception):
    """The connection broke; another attempt can go on from there."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait for a download."""

    probe_s: float = 3.0
    """For the first answer of the server; without one there is no network."""
    stall_s: float = 15.0
    """For the next bytes."""
    settle_s: float = 15.0
    """Before judging the speed."""
    total_s: float = 900.0
    """A download that would take longer at its present speed is given up."""
    attempts: int = 3
    """Connections that may break one after another without any progress."""
    pause_s: float = 1.0
    """Before connecting again."""


def fetch(url: str, target: Path, *, sha256: str, size: int, patience: Patience | None = None) -> Path:
    """Download `url` to `target`, going on where an earlier call stopped.

    What has arrived is kept as ``TARGET.part`` until the file is whole and its checksum is right.

    Args:
        url: Where the file is published.
        target: Where it goes; its folder is made.
        sha256: The published checksum, hexadecimal.
        size: The published size in bytes.
        patience: How long to wait for what.

    Returns:
        `target`, verified.

    Raises:
        DownloadError: no network, a server that refuses, too slow a connection, or a file of another checksum (which
            is removed).
        OutputError: `target` cannot be written.
    """
    patience = patience or Patience()
    part = target.with_name(target.name + ".part")
    try:  # what the network does wrong is told apart further down; what is left concerns the disk
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_file() and _digest(target) == sha256:
            return target
        if _size(part) > size:
            part.unlink()
        if _size(part) < size:
            _probe(url, patience.probe_s)
            _fetch_part(url, part, size, patience)
        found = _digest(part)
        if found != sha256:
            part.unlink()
            raise DownloadError(
                f"{url}: the file's SHA-256 is {found[:12]}…, published is {sha256[:12]}…; it was removed unused"
            )
        part.replace(target)
    except OSError as error:
        raise OutputError(
            f"cannot write {part}: {error.strerror or error}; choose a folder that is writable and has room"
        ) from error
    return target


def _probe(url: str, seconds: float) -> None:
    """Raise `DownloadError` unless the server answers within `seconds`."""
    outcome: list[str] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds):
                outcome.append("")
        except _NETWORK_ERRORS as error:
            outcome.append(_reason(error))

    # A thread, because looking up a host's name obeys no time-out.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise DownloadError(f"no network: {_host(url)} did not answer within {seconds:g} s")
    if outcome[0]:
        raise DownloadError(f"{_host(url)} cannot be reached ({outcome[0]})")


class _Pace:
    """Whether the file will be there in time, judged over all connections."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._began = time.monotonic()
        self._received = 0

    def add(self, count: int, left: int, url: str) -> None:
        """Count `count` bytes more, of which `left` are to come; raise `DownloadError` if that is too slow."""
        self._received += count
        spent = time.monotonic() - self._began
        limit = self._patience.total_s
        if spent > limit or (spent > self._patience.settle_s and left * spent / self._received > limit - spent):
            raise DownloadError(
                f"the connection to {_host(url)} is too slow: at {self._received / spent / _MB:.2f} MB/s the whole "
                f"would take longer than {limit / 60:.0f} minutes; what arrived is kept, and the next run goes on "
                "from there"
            )


def _fetch_part(url: str, part: Path, size: int, patience: Patience) -> None:
    failures = most = 0
    pace = _Pace(patience)
    with Bar(None, f"downloading {url.rsplit('/', 1)[-1]}", total=size, unit="B", scaled=True) as bar:
        while True:
            most = max(most, _size(part))
            try:
                _transfer(url, part, size, patience, pace, bar)
                return
            except _Interrupted as error:
                have = _size(part)
                failures = 0 if have > most else failures + 1
                if failures >= patience.attempts:
                    raise DownloadError(
                        f"the download from {_host(url)} broke off after {have / _MB:.1f} of {size / _MB:.1f} MB "
                        f"({error}); what arrived is kept, and the next run goes on from there"
                    ) from error
                time.sleep(patience.pause_s)


def _transfer(url: str, part: Path, size: int, patience: Patience, pace: _Pace, bar: Bar) -> None:
    """Append to `part` what it lacks."""
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=patience.stall_s)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # no such range: what is kept belongs to another file
            part.unlink()
            raise _Interrupted(_reason(error)) from error
        raise DownloadError(f"{_host(url)} refused the download ({_reason(error)})") from error
    except _NETWORK_ERRORS as error:
        raise _Interrupted(_reason(error)) from error
    resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    have = have if resumed else 0  # a server that knows no ranges sends everything
    with response, part.open("ab" if resumed else "wb") as file:
        bar.update(have - bar.n)
        while have < size:
            try:
                chunk = response.read1(_CHUNK)
            except _NETWORK_ERRORS as error:
                raise _Interrupted(_reason(error)) from error
            if not chunk:
                raise _Interrupted("the connection was closed")
            file.write(chunk)
            have += len(chunk)
            bar.update(len(chunk))
            pace.add(len(chunk), size - have, url)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _host(url: str) -> str:
    return urllib.request.Request(url).host or url


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
