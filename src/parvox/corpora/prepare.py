"""Recordings on disk in, a prepared corpus out."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parvox import __version__
from parvox.corpora.check import Facts, Limits, check_recordings, drop_duplicates
from parvox.corpora.clips import Clips, gather_clips
from parvox.corpora.entries import SPLITS, Entry, Listing, Rejected, Split, check_root, utterance_id
from parvox.corpora.import_cnceleb import import_cnceleb
from parvox.corpora.import_csv import import_csv
from parvox.corpora.import_folder import import_folder
from parvox.corpora.import_recipes import import_librispeech, import_musan, import_rirs
from parvox.corpora.import_voxceleb import import_voxceleb1, import_voxceleb2
from parvox.corpora.manifests import Fingerprint, make_cut, write_cuts
from parvox.corpora.prepared import INFO, CorpusInfo, PreparedCorpus, SplitInfo
from parvox.corpora.splits import SplitBy, SplitSettings, read_split_file, split_speakers
from parvox.corpora.trial_lists import given_trials
from parvox.corpora.trial_pairs import draw_trials
from parvox.corpora.trials import Trial, read_trials, write_trials
from parvox.errors import CorpusError, OutputError, nearest
from parvox.files import atomic_folder, refuse_overwrite

IMPORTERS: dict[str, Callable[[Path], Listing]] = {
    "folder": import_folder,
    "csv": import_csv,
    "voxceleb1": import_voxceleb1,
    "voxceleb2": import_voxceleb2,
    "cnceleb": import_cnceleb,
    "librispeech": import_librispeech,
    "musan": import_musan,
    "rirs": import_rirs,
}
"""What `parvox prepare` understands, by name."""


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """All that decides what a prepared corpus holds."""

    name: str | None = None
    """The corpus's name; the importer's, or the root folder's for `folder` and `csv`."""
    seed: int = 0
    """Deals splits and trials anew."""
    sample_rate_hz: int = 16000
    """The corpus's rate. Higher ones are lowered while reading, lower ones rejected."""
    allow_upsampling: bool = False
    """Accept recordings of lower rates."""
    min_duration_s: float = 0.4
    """Utterances shorter than this are rejected."""
    max_duration_s: float = 600.0
    """Utterances longer than this are rejected."""
    split_by: SplitBy = "corpus"
    """See `SplitSettings.by`."""
    dev_fraction: float = 0.1
    """Share of the speakers for dev."""
    test_fraction: float = 0.1
    """Share of the speakers for test."""
    dev_speakers: int | None = None
    """A number instead of a share."""
    test_speakers: int | None = None
    """A number instead of a share."""
    split_file: Path | None = None
    """CSV of speaker,split that fixes every speaker's split."""
    trials: Path | None = None
    """A trial list in VoxCeleb's format for the test split; its speakers make that split."""
    trials_per_split: int = 50_000
    """Trials drawn for dev, and for test without a list; fewer where there are not as many."""
    nontargets_per_target: int = 10
    """Non-target trials for each target trial."""
    noise: tuple[Path, ...] = ()
    """Prepared corpora or folders whose noises to take in."""
    rirs: tuple[Path, ...] = ()
    """Prepared corpora or folders whose room impulse responses to take in."""
    noise_test_fraction: float = 0.2
    """Share of noises and impulse responses kept for tests."""
    relative: bool = False
    """Write audio paths relative to the prepared folder, so that both can move together."""

    def __post_init__(self) -> None:
        fractions = {
            "dev_fraction": self.dev_fraction,
            "test_fraction": self.test_fraction,
            "noise_test_fraction": self.noise_test_fraction,
        }
        for name, value in fractions.items():
            _require(0 <= value < 1, name, value, "a share of at least 0 and below 1")
        _require(
            self.dev_fraction + self.test_fraction < 1,
            "dev_fraction + test_fraction",
            self.dev_fraction + self.test_fraction,
            "less than 1",
        )
        for name in ("dev_speakers", "test_speakers"):
            value = getattr(self, name)
            _require(value is None or value >= 0, name, value, "a number of at least 0")
        _require(self.seed >= 0, "seed", self.seed, "a number of at least 0")
        _require(1000 <= self.sample_rate_hz <= 192_000, "sample_rate_hz", self.sample_rate_hz, "1000 to 192000 Hz")
        _require(
            0 < self.min_duration_s < self.max_duration_s < float("inf"),
            "min_duration_s, max_duration_s",
            f"{self.min_duration_s}, {self.max_duration_s}",
            "0 < min_duration_s < max_duration_s",
        )
        _require(self.trials_per_split >= 2, "trials_per_split", self.trials_per_split, "at least 2")
        _require(self.nontargets_per_target >= 1, "nontargets_per_target", self.nontargets_per_target, "at least 1")


def _require(sound: bool, name: str, given: object, expected: str) -> None:
    if not sound:
        raise CorpusError(f"{name}: {given} given; expected {expected}")


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
        jobs: Threads for decoding; all processors if None.
        overwrite: Replace `out` if it is a prepared corpus.

    Raises:
        CorpusError: `root` or a file that goes with it is not as expected, or nothing of it can be used.
        TrialError: The trial list is damaged, or names an utterance that is not there.
        OutputError: `out` exists and `overwrite` is false, is no prepared corpus, or cannot be written.
    """
    settings = settings or PrepareSettings()
    root, out = Path(os.path.abspath(root)), Path(os.path.abspath(out))
    if importer not in IMPORTERS:
        raise CorpusError(f"unknown corpus {importer!r}: {nearest(importer, IMPORTERS)}")
    check_root(root, "the corpus's folder")
    _check_out(root, out, overwrite)
    fixed = read_split_file(settings.split_file) if settings.split_file else None
    listed = read_trials(settings.trials) if settings.trials else None
    jobs = max(jobs or os.cpu_count() or 1, 1)

    listing = IMPORTERS[importer](root)
    if listed is not None and settings.trials is not None:
        listing.trials, listing.trials_name = listed, settings.trials.name
    draft = _Draft(settings, root, importer, listing)
    draft.decode(jobs)
    draft.deal(fixed)
    draft.clips = gather_clips(
        draft.noises,
        {"noise": settings.noise, "rir": settings.rirs},
        limits(settings),
        test_fraction=settings.noise_test_fraction,
        seed=settings.seed,
        jobs=jobs,
    )
    _write(out, draft, overwrite)
    return PreparedCorpus.load(out)


def _check_out(root: Path, out: Path, overwrite: bool) -> None:
    """Refuse an output that would fail or destroy something, before hours of decoding."""
    if out == root or out in root.parents:
        raise OutputError(f"{out} holds the recordings themselves; choose another folder to write to")
    refuse_overwrite(out, overwrite, holds=INFO)
    parent = next(folder for folder in out.parents if folder.exists())
    if not parent.is_dir():
        raise OutputError(f"cannot write {out}: {parent} is a file, a folder is expected")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {out}: no permission to write in {parent}; choose another folder")


@dataclass
class _Draft:
    """A corpus on its way from files to manifests."""

    settings: PrepareSettings
    root: Path
    importer: str
    listing: Listing
    speech: list[tuple[Entry, Facts]] = field(default_factory=list)
    noises: list[tuple[Entry, Facts]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    splits: dict[str, Split] = field(default_factory=dict)
    trials: dict[str, list[Trial]] = field(default_factory=dict)
    trials_from: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    clips: Clips = field(default_factory=Clips)

    def decode(self, jobs: int) -> None:
        """Fill `speech`, `noises` and `rejected`."""
        self.rejected = list(self.listing.rejected)
        self.notes = list(self.listing.notes)
        entries = sorted(self.listing.entries, key=lambda entry: entry.id)
        checked, bad = check_recordings(entries, limits(self.settings), self.root, jobs)
        self.rejected += bad
        if not checked:
            reasons = ", ".join(f"{count} {reason}" for reason, count in _counts(self.rejected).items())
            first = self.rejected[0]
            raise CorpusError(
                f"none of the {len(self.rejected)} recordings in {self.root} can be used ({reasons}); "
                f"the first: {first.path}: {first.detail}"
            )
        named = frozenset(name for trial in self.listing.trials or [] for name in trial[:2])
        named |= frozenset(map(utterance_id, named))
        speech = [pair for pair in checked if pair[0].kind == "speech"]
        self.speech, copies = drop_duplicates(speech, self.root, named)
        self.rejected += copies
        self.noises = [pair for pair in checked if pair[0].kind != "speech"]

    def deal(self, fixed: dict[str, Split] | None) -> None:
        """Fill `splits` and `trials`."""
        if not self.speech:
            return
        settings = self.settings
        entries = [entry for entry, _ in self.speech]
        tested: frozenset[str] = frozenset()
        if self.listing.trials is not None:
            lost = {item.path for item in self.rejected}
            given = given_trials(self.listing.trials, entries, lost, self.listing.trials_name)
            self.notes += given.notes
            self.trials["test"], tested = given.trials, given.speakers
            self.trials_from["test"] = f"{self.listing.trials_name} (sha256 {_digest(self.listing.trials)})"
        dealing = SplitSettings(
            by=settings.split_by,
            dev_fraction=settings.dev_fraction,
            test_fraction=settings.test_fraction,
            dev_speakers=settings.dev_speakers,
            test_speakers=settings.test_speakers,
            seed=settings.seed,
        )
        self.splits = split_speakers(entries, dealing, test_speakers=tested, fixed=fixed)
        for number, split in enumerate(SPLITS):
            members = [entry for entry in entries if self.splits[entry.speaker] == split]
            if split == "train" or not members or split in self.trials:
                continue
            drawn = draw_trials(
                members,
                total=settings.trials_per_split,
                nontargets_per_target=settings.nontargets_per_target,
                seed=(settings.seed, number),
            )
            if drawn:
                self.trials[split] = drawn
                self.trials_from[split] = f"drawn with seed {settings.seed}"
            else:
                self.notes.append(
                    f"{split}: no trials, for they need a speaker with two recordings and two speakers of one source"
                )

    def split(self, name: str) -> list[tuple[Entry, Facts]]:
        """The utterances of one split, sorted by id."""
        return [pair for pair in self.speech if self.splits[pair[0].speaker] == name]


def limits(settings: PrepareSettings) -> Limits:
    """What recordings must satisfy."""
    return Limits(settings.sample_rate_hz, settings.min_duration_s, settings.max_duration_s, settings.allow_upsampling)


def _write(out: Path, draft: _Draft, overwrite: bool) -> None:
    settings, listing = draft.settings, draft.listing
    base = out if settings.relative else None
    fingerprint = Fingerprint()
    infos: dict[str, SplitInfo] = {}
    with atomic_folder(out, overwrite=overwrite) as folder:
        for split in SPLITS:
            members = draft.split(split)
            if not members:
                continue
            cuts = [make_cut(entry, facts, settings.sample_rate_hz) for entry, facts in members]
            write_cuts(folder / f"{split}.jsonl.gz", cuts, base)
            fingerprint.add_cuts(split, cuts)
            trials = draft.trials.get(split, [])
            if trials:
                write_trials(folder / f"{split}.trials", trials)
                fingerprint.add_file(f"{split}.trials", folder / f"{split}.trials")
            targets = sum(trial.target for trial in trials)
            infos[split] = SplitInfo(
                speakers=len({entry.speaker for entry, _ in members}),
                utterances=len(members),
                hours=round(sum(cut.duration for cut in cuts) / 3600, 6),
                target_trials=targets,
                nontarget_trials=len(trials) - targets,
                trials_from=draft.trials_from.get(split, ""),
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
            name=settings.name or (draft.root.name if draft.importer in ("folder", "csv") else draft.importer),
            importer=draft.importer,
            synthetic=listing.synthetic,
            sample_rate_hz=settings.sample_rate_hz,
            fingerprint=fingerprint.hexdigest(),
            sources=sorted({entry.source for entry, _ in draft.speech}),
            licences=listing.licences,
            splits=infos,
            clips={name: len(clips) for name, clips in draft.clips.manifests.items()},
            rejected=_counts(rejected),
            notes=draft.notes,
            options=_plain(dataclasses.asdict(settings)),
            parvox_version=__version__,
        )
        text = json.dumps(dataclasses.asdict(info), indent=2, ensure_ascii=False)
        (folder / INFO).write_text(text + "\n", encoding="utf-8")


def _counts(rejected: Sequence[Rejected]) -> dict[str, int]:
    return dict(sorted(Counter(item.reason for item in rejected).items()))


def _digest(trials: Sequence[Trial]) -> str:
    lines = "".join(f"{int(trial.target)} {trial.enrol} {trial.test}\n" for trial in trials)
    return hashlib.sha256(lines.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
