"""A corpus on its way from files to manifests."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from parvox.corpora.check import Facts, check_recordings, drop_duplicates
from parvox.corpora.clips import Clips, gather_clips
from parvox.corpora.entries import SPLITS, Entry, Listing, Rejected, Split, utterance_id
from parvox.corpora.join_plan import plan_joins
from parvox.corpora.joining import write_joints
from parvox.corpora.phrases import count_kinds, normal_phrase
from parvox.corpora.prepare_settings import PrepareSettings, limits
from parvox.corpora.splits import SplitSettings, split_speakers
from parvox.corpora.text_trials import draw_text_trials
from parvox.corpora.trial_lists import given_trials
from parvox.corpora.trial_pairs import draw_trials
from parvox.corpora.trials import Trial
from parvox.errors import CorpusError

AUDIO = "audio"
"""The folder of a prepared corpus that holds joined phrases."""


@dataclass
class Draft:
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
    voices: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    trials_from: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    clips: Clips = field(default_factory=Clips)

    def decode(self, jobs: int) -> None:
        """Fill `speech`, `noises` and `rejected`."""
        self.rejected = list(self.listing.rejected)
        self.notes = list(self.listing.notes)
        entries = sorted(map(_with_phrase, self.listing.entries), key=lambda entry: entry.id)
        checked, bad = check_recordings(entries, limits(self.settings), self.root, jobs)
        self.rejected += bad
        if not checked:
            reasons = ", ".join(f"{count} {reason}" for reason, count in counts(self.rejected).items())
            first = self.rejected[0]
            raise CorpusError(
                f"none of the {len(self.rejected)} recordings in {self.root} can be used ({reasons}); "
                f"the first: {first.path}: {first.detail}"
            )
        named = frozenset(name for listed in self.listing.trial_lists.values() for name in listed.utterances())
        named |= frozenset(map(utterance_id, named))
        speech = [pair for pair in checked if pair[0].kind == "speech"]
        self.speech, copies = drop_duplicates(speech, self.root, named)
        self.rejected += copies
        self.noises = [pair for pair in checked if pair[0].kind != "speech"]

    @property
    def text_dependent(self) -> bool:
        """Whether phrases count as well as speakers."""
        return self.settings.text_dependent or self.listing.text_dependent or self.settings.join.wanted

    def join(self, folder: Path, out: Path, jobs: int) -> None:
        """Put phrases in place of the words in `speech`.

        Args:
            folder: Where to write them.
            out: What that folder will be called.
            jobs: Threads.
        """
        settings = self.settings
        plan = plan_joins([entry for entry, _ in self.speech], settings.join, settings.seed)
        entries = write_joints(plan.joints, folder / AUDIO, settings.join, settings.sample_rate_hz, jobs)
        joined, bad = check_recordings(entries, limits(settings), folder, jobs)
        if not joined:
            raise CorpusError(f"none of the {len(bad)} joined phrases can be used; the first: {bad[0].detail}")
        self.rejected += bad
        self.speech = [
            (dataclasses.replace(entry, path=out / entry.path.relative_to(folder)), facts) for entry, facts in joined
        ]
        self.notes += plan.notes

    def deal(self, fixed: dict[str, Split] | None) -> None:
        """Fill `splits` and `trials`."""
        if not self.speech:
            return
        settings = self.settings
        entries = [entry for entry, _ in self.speech]
        if not self.listing.labelled:
            self.splits = {"": "train"}
            return
        if self.text_dependent and not any(entry.text for entry in entries):
            raise CorpusError(
                f"text-dependent trials wanted, but none of the {len(entries)} utterances has a text; add a column text"
            )
        named: dict[Split, frozenset[str]] = {}
        for split, listed in self.listing.trial_lists.items():
            lost = {item.path for item in self.rejected}
            given = given_trials(listed, entries, lost, text_dependent=self.text_dependent)
            self.notes += given.notes
            self.trials[split], self.voices[split], named[split] = given.trials, given.voices, given.speakers
            self.trials_from[split] = f"{listed.name} (sha256 {_digest(listed.trials)})"
        dealing = SplitSettings(
            by=settings.split_by,
            dev_fraction=settings.dev_fraction,
            test_fraction=settings.test_fraction,
            dev_speakers=settings.dev_speakers,
            test_speakers=settings.test_speakers,
            seed=settings.seed,
        )
        nobody: frozenset[str] = frozenset()
        self.splits = split_speakers(
            entries,
            dealing,
            test_speakers=named.get("test", nobody),
            dev_speakers=named.get("dev", nobody),
            fixed=fixed,
            keep_train=self.listing.keep_train,
        )
        if fixed is None:
            self._note_empty_splits(entries)
        for number, split in enumerate(SPLITS):
            members = [entry for entry in entries if self.splits[entry.speaker] == split]
            if split == "train" or not members or split in self.trials:
                continue
            draw = draw_text_trials if self.text_dependent else draw_trials
            drawn = draw(
                members,
                total=settings.trials_per_split,
                nontargets_per_target=settings.nontargets_per_target,
                seed=(settings.seed, number),
            )
            if drawn:
                self.trials[split] = drawn
                self.trials_from[split] = f"drawn with seed {settings.seed}"
            else:
                same = " of one phrase" if self.text_dependent else ""
                self.notes.append(
                    f"{split}: no trials, for they need a speaker with two recordings{same} and two speakers of one "
                    "source"
                )

    def _note_empty_splits(self, entries: Sequence[Entry]) -> None:
        """Say why a split is empty that one would expect."""
        settings = self.settings
        if not self.listing.keep_train or settings.split_by != "corpus":
            return
        marked = len({entry.speaker for entry in entries if entry.split == "train"})
        asked = {
            "dev": settings.dev_fraction if settings.dev_speakers is None else settings.dev_speakers,
            "test": settings.test_fraction if settings.test_speakers is None else settings.test_speakers,
        }
        for split, share in asked.items():
            if marked and share and split not in self.splits.values():
                self.notes.append(
                    f"{split}: no speakers, for {marked} of {len(self.splits)} are marked to stay in train"
                )

    def gather(self, jobs: int) -> None:
        """Fill `clips`."""
        settings = self.settings
        self.clips = gather_clips(
            self.noises,
            {"noise": settings.noise, "rir": settings.rirs},
            limits(settings),
            test_fraction=settings.noise_test_fraction,
            seed=settings.seed,
            jobs=jobs,
        )

    def kinds(self, split: str) -> dict[str, int]:
        """How many trials of each kind a split has; empty where phrases do not count."""
        if not self.text_dependent:
            return {}
        members = [entry for entry, _ in self.split(split)]
        speaker_of = {entry.id: entry.speaker for entry in members}
        text_of = {entry.id: entry.text or "" for entry in members}
        for voice, utterances in self.voices.get(split, {}).items():
            speaker_of[voice], text_of[voice] = speaker_of[utterances[0]], text_of[utterances[0]]
        return count_kinds(self.trials.get(split, []), speaker_of, text_of)

    def split(self, name: str) -> list[tuple[Entry, Facts]]:
        """The utterances of one split, sorted by id."""
        return [pair for pair in self.speech if self.splits[pair[0].speaker] == name]


def _with_phrase(entry: Entry) -> Entry:
    """`entry` with its text as a phrase: more white space than is needed makes no other one."""
    text = normal_phrase(entry.text or "") or None
    return entry if text == entry.text else dataclasses.replace(entry, text=text)


def counts(rejected: Sequence[Rejected]) -> dict[str, int]:
    """How many there are for each reason, sorted."""
    return dict(sorted(Counter(item.reason for item in rejected).items()))


def _digest(trials: Sequence[Trial]) -> str:
    lines = "".join(f"{int(trial.target)} {trial.enrol} {trial.test}\n" for trial in trials)
    return hashlib.sha256(lines.encode()).hexdigest()
