"""Importers that read a corpus through Lhotse's own recipe: LibriSpeech, MUSAN, RIRS_NOISES."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parvox.corpora.entries import Entry, Kind, Listing, Split, check_root, normal_gender
from parvox.corpora.import_folder import UniqueIds, measurement, require_some
from parvox.corpora.lhotse_recipes import add_rest, recording_paths, run_recipe
from parvox.corpora.text_lines import numbered_lines
from parvox.errors import CorpusError

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
    manifests, broken = run_recipe(lambda folder: prepare_librispeech(folder, num_jobs=1), root, LIBRISPEECH)
    listing = Listing([], licences=["CC-BY-4.0"])
    names = UniqueIds()
    seen: set[str] = set()
    for part in sorted(manifests):
        split: Split = "dev" if part.startswith("dev") else "test" if part.startswith("test") else "train"
        texts = {segment.recording_id: segment for segment in manifests[part]["supervisions"]}
        for recording, path in recording_paths(manifests[part]["recordings"], root):
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
    add_rest(listing, root, seen, broken, "no transcript names it, or its part is not LibriSpeech's")
    require_some(listing, root, LIBRISPEECH)
    return listing


def import_musan(root: Path) -> Listing:
    """List MUSAN's noise and music as noises; its speech is left out, for a second voice is no background.

    Pieces of music by one artist stay together when some are kept for tests.

    Raises:
        CorpusError: `root` is missing or is not MUSAN, or its ANNOTATIONS cannot be read.
    """
    from lhotse.recipes.musan import prepare_musan, scan_recordings

    root = _folder(root, "musan", MUSAN)
    listing = Listing([])
    names = UniqueIds()
    seen: set[str] = set()
    broken: set[str] = set()
    for part in ("noise", "music"):
        if not (root / part).is_dir():
            listing.notes.append(f"{part}/ is missing")
            continue
        artists: dict[str, str] = {}
        if part == "noise":

            def recipe(folder: Path) -> Any:
                return prepare_musan(folder, parts=("noise",))["noise"]["recordings"]

        else:  # the recipe proper fails where ANNOTATIONS name a file that is gone
            artists = _musan_artists(root / part)

            def recipe(folder: Path) -> Any:
                return scan_recordings(folder / "music")

        recordings, bad = run_recipe(recipe, root, MUSAN, part)
        broken |= bad
        for recording, path in recording_paths(recordings, root):
            seen.add(path)
            name = names.add(path)
            artist = artists.get(recording.id)
            together = f"music/{artist}" if artist else name
            listing.entries.append(
                Entry(path=root / path, id=name, source=f"musan-{part}", kind="noise", recording=together)
            )
    if (root / "speech").is_dir():
        listing.notes.append("speech/ was left out: a second voice is no background noise")
    add_rest(listing, root, seen, broken, "Lhotse's recipe does not take it", skip="speech/")
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
    manifests, broken = run_recipe(lambda folder: prepare_rir_noise(folder, parts=parts), root, RIRS)
    listing = Listing([])
    names = UniqueIds()
    seen: set[str] = set()
    for part in parts:
        kind: Kind = "rir" if part.endswith("_rir") else "noise"
        for _, path in recording_paths(manifests[part]["recordings"], root):
            seen.add(path)
            name = names.add(path)
            together = name.rpartition("/")[0] if part == "sim_rir" else measurement(name, kind)
            listing.entries.append(
                Entry(path=root / path, id=name, source=f"rirs-{part}", kind=kind, recording=together)
            )
    add_rest(listing, root, seen, broken, "Lhotse's recipe does not take it")
    require_some(listing, root, RIRS)
    return listing


def _folder(root: Path, name: str, expected: str) -> Path:
    """`root`, or the folder of the corpus's own name in it."""
    root = check_root(root, expected)
    return root / name if (root / name).is_dir() else root


def _musan_artists(folder: Path) -> dict[str, str]:
    """From ANNOTATIONS, lines ``music-fma-0000 genre vocals artist``; of the artist the first word, as Lhotse does."""
    artists: dict[str, str] = {}
    for path in sorted(folder.rglob("ANNOTATIONS")):
        lines = numbered_lines(path, what="music list", expected="unpack the corpus again", error=CorpusError)
        artists.update({cells[0]: cells[3] for _, line in lines if len(cells := line.split()) >= 4})
    return artists


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
