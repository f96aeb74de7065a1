"""Recordings on disk in, a prepared corpus out."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parvox import __version__
from parvox.corpora.draft import Draft, counts
from parvox.corpora.entries import SPLITS, Listing, check_root
from parvox.corpora.import_cnceleb import import_cnceleb
from parvox.corpora.import_csv import import_csv
from parvox.corpora.import_deepmine import import_deepmine
from parvox.corpora.import_folder import import_folder
from parvox.corpora.import_recipes import import_librispeech, import_musan, import_rirs
from parvox.corpora.import_rsr2015 import import_rsr2015_part1, import_rsr2015_part2, import_rsr2015_part3
from parvox.corpora.import_unlabelled import import_unlabelled
from parvox.corpora.import_voxceleb import import_voxceleb1, import_voxceleb2
from parvox.corpora.import_words import import_audiomnist, import_himia
from parvox.corpora.join_plan import read_phrases
from parvox.corpora.manifests import Fingerprint, make_cut, write_cuts
from parvox.corpora.prepare_settings import PrepareSettings as PrepareSettings
from parvox.corpora.prepared import INFO, CorpusInfo, PreparedCorpus, SplitInfo
from parvox.corpora.splits import read_split_file
from parvox.corpora.trials import TrialList, read_trials, write_enrolments, write_trials
from parvox.errors import CorpusError, OutputError, nearest
from parvox.files import atomic_folder, refuse_overwrite
from parvox.processors import available_processors

IMPORTERS: dict[str, Callable[[Path], Listing]] = {
    "folder": import_folder,
    "unlabelled": import_unlabelled,
    "csv": import_csv,
    "voxceleb1": import_voxceleb1,
    "voxceleb2": import_voxceleb2,
    "cnceleb": import_cnceleb,
    "librispeech": import_librispeech,
    "musan": import_musan,
    "rirs": import_rirs,
    "rsr2015-part1": import_rsr2015_part1,
    "rsr2015-part2": import_rsr2015_part2,
    "rsr2015-part3": import_rsr2015_part3,
    "deepmine": import_deepmine,
    "audiomnist": import_audiomnist,
    "himia": import_himia,
}
"""What `parvox prepare` understands, by name."""


def prepare(
    importer: str,
    root: Path,
    out: Path,
    settings: PrepareSettings | None = None,
    *,
    jobs: int | None = None,
    overwrite: bool = False,
) -> PreparedCorpus:
    """Turn recordings on disk into a prepared corpus.

    Every recording is decoded once. Those that cannot be used are listed in `rejected.csv` and left out. The outcome
    depends on the recordings and the settings alone: equal ones give equal bytes.

    Args:
        importer: One of `IMPORTERS`.
        root: The corpus.
        out: The folder to write, whole or not at all.
        settings: What to make of it.
        jobs: Threads for decoding, 1 or more; all processors if None.
        overwrite: Replace `out` if it is a prepared corpus.

    Raises:
        CorpusError: `jobs` is below 1, `root` or a file that goes with it is not as expected, or nothing of it can
            be used.
        TrialError: The trial list is damaged, or names an utterance that is not there.
        OutputError: `out` exists and `overwrite` is false, is no prepared corpus, or cannot be written.
    """
    settings = settings or PrepareSettings()
    root, out = Path(os.path.abspath(root)), Path(os.path.abspath(out))
    if jobs is not None and jobs < 1:
        raise CorpusError(f"jobs {jobs} given; expected 1 or more, or none for all processors")
    if importer not in IMPORTERS:
        raise CorpusError(f"unknown corpus {importer!r}: {nearest(importer, IMPORTERS)}")
    check_root(root, "the corpus's folder")
    _check_out(root, out, overwrite)
    fixed = read_split_file(settings.split_file) if settings.split_file else None
    listed = read_trials(settings.trials) if settings.trials else None
    if settings.join.phrase_list:
        read_phrases(settings.join.phrase_list)  # what is wrong with it had better be known before the decoding
    jobs = jobs or max(available_processors(), 1)

    listing = IMPORTERS[importer](root)
    if not listing.labelled:
        _expect_no_speakers_asked_for(settings)
    if settings.join.wanted:
        listing.trial_lists.clear()  # they name the recordings of words
    if listed is not None and settings.trials is not None:
        listing.trial_lists["test"] = TrialList(listed, settings.trials.name)
    draft = Draft(settings, root, importer, listing)
    draft.decode(jobs)
    with atomic_folder(out, overwrite=overwrite) as folder:
        if settings.join.wanted:
            draft.join(folder, out, jobs)
        draft.deal(fixed)
        draft.gather(jobs)
        _write(folder, out, draft)
    return PreparedCorpus.load(out)


def _expect_no_speakers_asked_for(settings: PrepareSettings) -> None:
    """Refuse settings that mean speakers, where none are known."""
    asked = {
        "trials": settings.trials is not None,
        "split_file": settings.split_file is not None,
        "dev_speakers": bool(settings.dev_speakers),
        "test_speakers": bool(settings.test_speakers),
        "text_dependent": settings.text_dependent,
        "join": settings.join.wanted,
    }
    for name, given in asked.items():
        if given:
            raise CorpusError(f"{name} given, but unlabelled recordings have no speakers; leave it out")


def _check_out(root: Path, out: Path, overwrite: bool) -> None:
    """Refuse an output that would fail or destroy something, before hours of decoding."""
    if out == root or out in root.parents:
        raise OutputError(f"{out} holds the recordings themselves; choose another folder to write to")
    refuse_overwrite(out, overwrite, holds=INFO)


def _write(folder: Path, out: Path, draft: Draft) -> None:
    """Write all but joined audio into `folder`, which will be called `out`."""
    settings, listing = draft.settings, draft.listing
    base = out if settings.relative else None
    speech_base = out if settings.join.wanted else base  # what lies in the folder moves with it
    fingerprint = Fingerprint()
    infos: dict[str, SplitInfo] = {}
    for split in SPLITS:
        members = draft.split(split)
        if not members:
            continue
        cuts = [make_cut(entry, facts, settings.sample_rate_hz) for entry, facts in members]
        write_cuts(folder / f"{split}.jsonl.gz", cuts, speech_base)
        fingerprint.add_cuts(split, cuts)
        trials, voices = draft.trials.get(split, []), draft.voices.get(split, {})
        if trials:
            write_trials(folder / f"{split}.trials", trials)
            fingerprint.add_file(f"{split}.trials", folder / f"{split}.trials")
        if voices:
            write_enrolments(folder / f"{split}.enrolments", voices)
            fingerprint.add_file(f"{split}.enrolments", folder / f"{split}.enrolments")
        targets = sum(trial.target for trial in trials)
        infos[split] = SplitInfo(
            speakers=len({entry.speaker for entry, _ in members} - {""}),
            utterances=len(members),
            hours=round(sum(cut.duration for cut in cuts) / 3600, 6),
            target_trials=targets,
            nontarget_trials=len(trials) - targets,
            trials_from=draft.trials_from.get(split, ""),
            voices=len(voices),
            phrases=len({entry.text for entry, _ in members if entry.text}) if draft.text_dependent else 0,
            kinds=draft.kinds(split),
        )
    for name, clips in draft.clips.manifests.items():
        write_cuts(folder / f"{name}.jsonl.gz", clips, base)
        fingerprint.add_cuts(name, clips)
    rejected = sorted(draft.rejected + draft.clips.rejected, key=lambda item: (item.path, item.reason))
    with (folder / "rejected.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "reason", "detail"))
        writer.writerows((item.path, item.reason, item.detail) for item in rejected)
    info = CorpusInfo(
        name=settings.name
        or (draft.root.name if draft.importer in ("folder", "csv", "unlabelled") else draft.importer),
        importer=draft.importer,
        synthetic=listing.synthetic,
        text_dependent=draft.text_dependent,
        sample_rate_hz=settings.sample_rate_hz,
        fingerprint=fingerprint.hexdigest(),
        sources=sorted({entry.source for entry, _ in draft.speech}),
        licences=listing.licences,
        splits=infos,
        clips={name: len(clips) for name, clips in draft.clips.manifests.items()},
        rejected=counts(rejected),
        notes=draft.notes,
        options=_plain(dataclasses.asdict(settings)),
        parvox_version=__version__,
    )
    text = json.dumps(dataclasses.asdict(info), indent=2, ensure_ascii=False)
    (folder / INFO).write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
