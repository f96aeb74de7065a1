"""Importers that read a corpus through Lhotse's own recipe: LibriSpeech, MUSAN, RIRS_NOISES."""

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
from parvox.corpora.entries import (
    Entry,
    Kind,
    Listing,
    Rejected,
    Split,
    check_root,
    find_recordings,
    normal_gender,
    undecoded,
)
from parvox.corpora.import_folder import UniqueIds, measurement, require_some
from parvox.errors import CorpusError

T = TypeVar("T")

LIBRISPEECH = "LibriSpeech's folders, such as train-clean-100/SPEAKER/CHAPTER/*.flac with *.trans.txt"
MUSAN = "MUSAN's folders noise, music and speech"
RIRS = "the folders of RIRS_NOISES: pointsource_noises, real_rirs_isotropic_noises, simulated_rirs"


def import_librispeech(root: Path) -> Listing:
    """List LibriSpeech or Mini LibriSpeech; its train-, dev- and test- parts are the splits.

    A chapter is one continuous recording: its utterances are never paired as targets.

    Raises:
        CorpusError: `root` is missing or is not LibriSpeech.
    """
    from lhotse.recipes.librispeech import prepare_librispeech

    root = _folder(root, "LibriSpeech", LIBRISPEECH)
    genders = _librispeech_genders(root)
    manifests, broken = _run(lambda folder: prepare_librispeech(folder, num_jobs=1), root, LIBRISPEECH)
    listing = Listing([], licences=["CC-BY-4.0"])
    names = UniqueIds()
    seen: set[str] = set()
    for part in sorted(manifests):
        split: Split = "dev" if part.startswith("dev") else "test" if part.startswith("test") else "train"
        texts = {segment.recording_id: segment for segment in manifests[part]["supervisions"]}
        for recording, path in _paths(manifests[part]["recordings"], root):
            segment = texts[recording.id]
            seen.add(path)
            chapter = recording.id.rpartition("-")[0]
            listing.entries.append(
                Entry(
                    path=root / path,
                    id=names.add(path),
                    source="librispeech",
                    speaker=segment.speaker,
                    session=chapter,
                    recording=chapter,
                    text=segment.text,
                    language="en",
                    gender=genders.get(segment.speaker),
                    split=split,
                )
            )
    _add_rest(listing, root, seen, broken, "no transcript names it, or its part is not LibriSpeech's")
    require_some(listing, root, LIBRISPEECH)
    return listing


def import_musan(root: Path) -> Listing:
    """List MUSAN's noise and music as noises; its speech is left out, for a second voice is no background.

    Pieces of music by one artist stay together when some are kept for tests.

    Raises:
        CorpusError: `root` is missing or is not MUSAN.
    """
    from lhotse.recipes.musan import prepare_musan, read_annotations, scan_recordings

    root = _folder(root, "musan", MUSAN)
    listing = Listing([])
    names = UniqueIds()
    seen: set[str] = set()
    broken: set[str] = set()
    for part in ("noise", "music"):
        if not (root / part).is_dir():
            listing.notes.append(f"{part}/ is missing")
            continue
        artists = {}
        if part == "noise":

            def recipe(folder: Path) -> Any:
                return prepare_musan(folder, parts=("noise",))["noise"]["recordings"]

        else:  # the recipe proper fails where ANNOTATIONS name a file that is gone
            files = sorted((root / part).rglob("ANNOTATIONS"))
            lines = [line for file in files for line in read_annotations(file, max_fields=4)]
            artists = {line[0]: line[3] for line in lines if len(line) == 4}

            def recipe(folder: Path) -> Any:
                return scan_recordings(folder / "music")

        recordings, bad = _run(recipe, root, MUSAN, part)
        broken |= bad
        for recording, path in _paths(recordings, root):
            seen.add(path)
            name = names.add(path)
            artist = artists.get(recording.id)
            together = f"music/{artist}" if artist else name
            listing.entries.append(
                Entry(path=root / path, id=name, source=f"musan-{part}", kind="noise", recording=together)
            )
    if (root / "speech").is_dir():
        listing.notes.append("speech/ was left out: a second voice is no background noise")
    _add_rest(listing, root, seen, broken, "Lhotse's recipe does not take it", skip="speech/")
    require_some(listing, root, MUSAN)
    return listing


def import_rirs(root: Path) -> Listing:
    """List RIRS_NOISES: its point-source and isotropic noises, real and simulated room impulse responses.

    Impulse responses simulated in one room stay together when some are kept for tests.

    Raises:
        CorpusError: `root` is missing or is not RIRS_NOISES.
    """
    from lhotse.recipes.rir_noise import PARTS, prepare_rir_noise

    root = _folder(root, "RIRS_NOISES", RIRS)
    parts = [part for part, folder in PARTS.items() if (root / folder).is_dir()]
    if not parts:
        raise CorpusError(f"{root} holds none of its parts; expected {RIRS}")
    manifests, broken = _run(lambda folder: prepare_rir_noise(folder, parts=parts), root, RIRS)
    listing = Listing([])
    names = UniqueIds()
    seen: set[str] = set()
    for part in parts:
        kind: Kind = "rir" if part.endswith("_rir") else "noise"
        for _, path in _paths(manifests[part]["recordings"], root):
            seen.add(path)
            name = names.add(path)
            together = name.rpartition("/")[0] if part == "sim_rir" else measurement(name, kind)
            listing.entries.append(
                Entry(path=root / path, id=name, source=f"rirs-{part}", kind=kind, recording=together)
            )
    _add_rest(listing, root, seen, broken, "Lhotse's recipe does not take it")
    require_some(listing, root, RIRS)
    return listing


def _folder(root: Path, name: str, expected: str) -> Path:
    """`root`, or the folder of the corpus's own name in it."""
    root = check_root(root, expected)
    return root / name if (root / name).is_dir() else root


def _run(recipe: Callable[[Path], T], root: Path, expected: str, part: str = "") -> tuple[T, set[str]]:
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
                source.source = str(root / Path(source.source).relative_to(view))
    return found


def _recording_sets(found: Any) -> Iterator[Any]:
    if not isinstance(found, dict):
        yield found
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


def _paths(recordings: Iterable[Any], root: Path) -> Iterator[tuple[Any, str]]:
    """Recordings with their paths relative to `root`, sorted."""
    pairs = [(Path(recording.sources[0].source).relative_to(root).as_posix(), recording) for recording in recordings]
    for path, recording in sorted(pairs, key=lambda pair: pair[0]):
        yield recording, path


def _add_rest(
    listing: Listing, root: Path, seen: set[str], broken: set[str], why: str, skip: str | None = None
) -> None:
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


def _librispeech_genders(root: Path) -> dict[str, str | None]:
    """From SPEAKERS.TXT, lines ``14 | F | train-clean-360 | 25.03 | Name``; empty without it."""
    path = root / "SPEAKERS.TXT"
    genders: dict[str, str | None] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            cells = [cell.strip() for cell in line.split("|")]
            if not line.startswith(";") and len(cells) >= 3:
                genders[cells[0]] = normal_gender({"F": "f", "M": "m"}.get(cells[1], cells[1]))
    return genders
