"""Importers of small vocabularies through Lhotse's own recipes: AudioMNIST and HI-MIA."""

from __future__ import annotations

from pathlib import Path

from parvox.corpora.entries import Entry, Listing, Split, check_root, normal_gender
from parvox.corpora.import_folder import UniqueIds, require_some
from parvox.corpora.lhotse_recipes import add_rest, recording_paths, run_recipe
from parvox.errors import CorpusError

AUDIOMNIST = "AudioMNIST's data/audioMNIST_meta.txt and data/01/0_01_0.wav to data/60/9_60_49.wav"
HIMIA = "HI-MIA's train/SPEECHDATA/train.scp, dev/SPEECHDATA/dev.scp or test/wav.scp, with the recordings they list"


def import_audiomnist(root: Path) -> Listing:
    """List AudioMNIST, single digits: 60 speakers, each in one sitting as far as is known.

    Raises:
        CorpusError: `root` is missing or is not AudioMNIST.
    """
    from lhotse.recipes.audio_mnist import prepare_audio_mnist

    root = check_root(root, AUDIOMNIST)
    root = root / "AudioMNIST" if (root / "AudioMNIST").is_dir() else root
    manifests, broken = run_recipe(lambda folder: prepare_audio_mnist(folder, None), root, AUDIOMNIST)
    listing = Listing([])
    names = UniqueIds()
    seen: set[str] = set()
    segments = {segment.recording_id: segment for segment in manifests["supervisions"]}
    for recording, path in recording_paths(manifests["recordings"], root):
        segment = segments[recording.id]
        seen.add(path)
        name = names.add(path.removeprefix("data/"))
        listing.entries.append(
            Entry(
                path=root / path,
                id=name,
                source="audiomnist",
                speaker=segment.speaker,
                session=segment.speaker,
                recording=name,
                text=segment.text,
                language="en",
                gender=normal_gender((segment.custom or {}).get("gender")),
            )
        )
    add_rest(listing, root, seen, broken, "Lhotse's recipe does not take it")
    require_some(listing, root, AUDIOMNIST)
    return listing


def import_himia(root: Path) -> Listing:
    """List HI-MIA: one phrase, the wake-up word; its parts are the splits.

    Names are like ``SV0297_2_00_F0041``: speaker, two fields for the microphone, and the utterance. That files which
    differ in the microphone alone are one utterance is taken from the names; they are never paired as targets. The
    "confusing words" of HI-MIA-CW are left out: they are by other speakers.

    Raises:
        CorpusError: `root` is missing or is not HI-MIA.
    """
    from lhotse.recipes.himia import prepare_himia

    root = check_root(root, HIMIA)
    root = root / "HiMia" if (root / "HiMia").is_dir() else root
    parts: dict[Split, str] = {"train": "train/SPEECHDATA/train.scp", "dev": "dev/SPEECHDATA/dev.scp"}
    parts["test"] = "test/wav.scp"
    present = tuple(part for part, scp in parts.items() if (root / scp).is_file())
    if not present:
        raise CorpusError(f"{root} holds none of its parts; expected {HIMIA}")
    manifests, broken = run_recipe(lambda folder: prepare_himia(folder, dataset_parts=present), root, HIMIA)
    listing = Listing([], text_dependent=True)
    names = UniqueIds()
    seen: set[str] = set()
    for part in present:
        segments = {segment.recording_id: segment for segment in manifests[part]["supervisions"]}
        for recording, path in recording_paths(manifests[part]["recordings"], root):
            segment = segments[recording.id]
            seen.add(path)
            listing.entries.append(
                Entry(
                    path=root / path,
                    id=names.add(path),
                    source="himia",
                    speaker=segment.speaker,
                    recording=f"{segment.speaker}/{recording.id.rpartition('_')[2]}",
                    text=segment.text,
                    language="zh",
                    split=part,
                )
            )
    add_rest(listing, root, seen, broken, "no list of HI-MIA names it", skip="cw_test/")
    if (root / "cw_test").is_dir():
        listing.notes.append("cw_test/ was left out: its words are by other speakers")
    require_some(listing, root, HIMIA)
    return listing
