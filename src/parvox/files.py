"""Writing without half-written files: everything appears whole under its name, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from parvox.errors import OutputError


def refuse_overwrite(path: Path, overwrite: bool, *, holds: str | None = None) -> None:
    """Raise `OutputError` if `path` exists (an empty folder does not count) and may not be replaced, or not be made.

    Devices, pipes and sockets are never replaced, whoever asks. A link that leads nowhere exists.

    Args:
        path: What is to be written.
        overwrite: Whether it may be replaced.
        holds: A file that every folder of its kind holds; a folder without it, or a file, is somebody else's and
            never replaced.
    """
    with output_errors(path):
        _expect_writable(path)
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
        with contextlib.suppress(FileNotFoundError):
            mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            raise OutputError(f"{path} is a device or a pipe and will not be replaced: choose another name")
        if stat.S_ISDIR(mode) and not any(path.iterdir()):
            return
        if overwrite and holds is not None and not (path / holds).is_file():
            what = f"holds no {holds}" if stat.S_ISDIR(mode) else f"is a file, not a folder with {holds}"
            raise OutputError(f"{path} {what}: nothing that Parvox wrote, so it is not replaced; choose another name")
        if overwrite:
            return
    raise OutputError(f"{path} exists already: choose another name, or pass --overwrite to replace it")


def _expect_writable(path: Path) -> None:
    """Raise `OutputError` if nothing can be made where `path` is to be, by making something for a moment."""
    above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not above.is_dir():
        raise OutputError(f"cannot write {path}: {above} is a file, not a folder; choose another name")
    with tempfile.TemporaryFile(dir=above):
        pass


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into an `OutputError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; choose a folder that is writable and has room"
        ) from error


@contextlib.contextmanager
def parent_folders(path: Path) -> Iterator[None]:
    """Make the folders above `path`; take away again those that the block leaves empty because it fails."""
    with output_errors(path):
        missing = [folder for folder in path.parents if not folder.exists()]
    try:
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in missing:  # the deepest first
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


@contextlib.contextmanager
def atomic_file(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; rename it to `path` if the block succeeds.

    Args:
        path: The final name. Its parent folders are made.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OutputError: `path` exists and `overwrite` is false, or it cannot be written.
    """
    path = Path(path)
    refuse_overwrite(path, overwrite)
    with parent_folders(path):
        with output_errors(path):
            if path.is_dir():
                raise OutputError(f"cannot write {path}: it is a folder, a file name is expected")
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
            os.close(handle)
        temporary = Path(name)
        try:
            with output_errors(path):
                yield temporary
                with temporary.open("rb") as written:
                    os.fsync(written.fileno())
                temporary.chmod(0o666 & ~_umask())
                refuse_overwrite(path, overwrite)  # somebody may have been quicker
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False, holds: str | None = None) -> Iterator[Path]:
    """Give a temporary folder beside `path` to fill; rename it to `path` if the block succeeds.

    Args:
        path: The final name. Its parent folders are made.
        overwrite: Whether an existing folder may be replaced.
        holds: See `refuse_overwrite`.

    Raises:
        OutputError: `path` exists and `overwrite` is false, or it cannot be written.
    """
    path = Path(path)
    # The folder may be moved, so that no step of the path may lead through it, as in folder/../folder.
    path = path.parent.resolve() / path.name if path.name not in ("", "..") else path.resolve()
    refuse_overwrite(path, overwrite, holds=holds)
    with parent_folders(path):
        with output_errors(path):
            temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            with output_errors(path):
                yield temporary
                temporary.chmod(0o777 & ~_umask())
                refuse_overwrite(path, overwrite, holds=holds)  # somebody may have been quicker
                old: Path | None = None
                if path.exists():  # a rename cannot replace a folder that is not empty
                    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
                    path.replace(old / path.name)
                try:
                    temporary.replace(path)
                except BaseException:
                    if old is not None:
                        (old / path.name).replace(path)
                        old.rmdir()
                    raise
                if old is not None:
                    shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def try_lock(path: Path) -> IO[bytes] | None:
    """Lock a file against other processes, until what is returned is closed or this process ends.

    Args:
        path: The file to lock; it is made if need be.

    Returns:
        None where the system has no such locks.

    Raises:
        BlockingIOError: another process holds it.
        OutputError: the file cannot be written.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    with output_errors(path):
        file = path.open("ab")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, loading processes do not inherit it
    except (BlockingIOError, PermissionError) as error:
        file.close()
        raise BlockingIOError(f"{path} is locked by another process") from error
    except OSError:
        file.close()
        path.unlink(missing_ok=True)
        return None
    return file


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
