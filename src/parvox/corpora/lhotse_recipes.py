"""Lhotse's recipes, run on corpora that may be damaged."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import soundfile

from parvox.audio import RecordingError, read_audio
from parvox.corpora.entries import Listing, Rejected, find_recordings, undecoded
from parvox.errors import CorpusError

T = TypeVar("T")


def run_recipe(recipe: Callable[[Path], T], root: Path, expected: str, part: str = "") -> tuple[T, set[str]]:
    """What `recipe` makes of `root`, and the recordings it could not have read.

    Lhotse's recipes stop at the first unreadable file. Then they are run again on a tree of links to all files but
    those without a sound header.
    """
    try:
        with _quiet():
            return recipe(root), set()
    except Exception as error:  # whatever a third-party recipe raises, in both runs
        first = error
    broken = {path for path in find_recordings(root / part) if not _has_header(root / part / path)}
    if not broken:
        raise _recipe_error(root, expected, first) from first
    with tempfile.TemporaryDirectory(prefix="parvox-") as temporary:
        view = Path(temporary) / "corpus"
        _link_tree(root / part, view / part, broken)
        try:
            with _quiet():
                found = recipe(view)
        except Exception as error:
            raise _recipe_error(root, expected, error) from error
        return _moved(found, view, root), {f"{part}/{path}" if part else path for path in broken}


def _recipe_error(root: Path, expected: str, error: Exception) -> CorpusError:
    words = " ".join(str(error).split()) or type(error).__name__
    return CorpusError(f"{root} cannot be read as this corpus ({words[:200]}); expected {expected}")


def _moved(found: Any, view: Path, root: Path) -> Any:
    """The recipe's manifests with paths below `view` put below `root`."""
    for recordings in _recording_sets(found):
        for recording in recordings:
            for source in recording.sources:
                if Path(source.source).is_relative_to(view):  # some recipes follow the links
                    source.source = str(root / Path(source.source).relative_to(view))
    return found


def _recording_sets(found: Any) -> Iterator[Any]:
    if not isinstance(found, dict):
        yield found
        return
    if "recordings" in found:
        yield found["recordings"]
        return
    for manifests in found.values():
        yield manifests["recordings"]


def _link_tree(root: Path, view: Path, left_out: set[str]) -> None:
    for folder, _, files in os.walk(root, followlinks=True):
        relative = Path(folder).relative_to(root)
        (view / relative).mkdir(parents=True)
        for file in files:
            if (relative / file).as_posix() not in left_out:
                (view / relative / file).symlink_to(Path(folder).resolve() / file)


def _has_header(path: Path) -> bool:
    try:
        return int(soundfile.info(str(path)).frames) > 0
    except (soundfile.LibsndfileError, OSError, TypeError, ValueError):
        return False


def recording_paths(recordings: Iterable[Any], root: Path) -> Iterator[tuple[Any, str]]:
    """Recordings with their paths relative to `root`, sorted.

    Raises:
        CorpusError: The recipe followed a link to a recording outside `root`.
    """
    real = root.resolve()
    pairs = []
    for recording in recordings:
        path = Path(recording.sources[0].source)
        base = root if path.is_relative_to(root) else real
        if not path.is_relative_to(base):
            raise CorpusError(
                f"{root} holds links to recordings elsewhere, such as {path}; give the folder they are in"
            )
        pairs.append((path.relative_to(base).as_posix(), recording))
    for name, recording in sorted(pairs, key=lambda pair: pair[0]):
        yield recording, name


def add_rest(listing: Listing, root: Path, seen: set[str], broken: set[str], why: str, skip: str | None = None) -> None:
    """Reject the recordings that the recipe passed over, the broken ones with what is wrong with them."""
    for path in find_recordings(root):
        if path in seen or (skip and path.startswith(skip)):
            continue
        rejected = undecoded(path) or Rejected(path, "unlisted", why)
        if path in broken:
            try:
                read_audio(root / path)
            except RecordingError as error:
                rejected = Rejected(path, error.reason, str(error).removeprefix(f"{root / path}: "))
        listing.rejected.append(rejected)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the recipe's progress bars where nobody watches, and without its warnings."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    hidden = contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())
    try:
        with hidden:
            yield
    finally:
        logging.disable(level)
