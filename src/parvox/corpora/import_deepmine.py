"""The `deepmine` importer: Part 1 of DeepMine, fixed phrases in Persian and English, as handed out for challenges.

DeepMine: Zeinali, Burget, Černocký, "A multi purpose and large scale speech corpus in Persian and English for speaker
and speech recognition: the DeepMine database", ASRU 2019. The data was not at hand.

Sourced, from public code that reads it (the Kaldi-style recipe of Villalba for task 1 of the SdSV challenge 2020, and
scripts for task 1 of the TdSV challenge 2024) and from the challenges' plans (arXiv 1912.06311, 2404.13428):

- ``docs/train_labels.txt``: a line of headings, then recording, speaker, phrase; recordings in ``wav/train``.
- ``docs/model_enrollment.txt``: headings, then model, phrase and three recordings in ``wav/enrollment``.
- ``docs/trials.txt``: headings, then model and recording in ``wav/evaluation``. The challenge of 2024 has
  ``dev_model_enrollment.txt`` and ``dev_trials.txt``, ``eval_model_enrollment.txt`` and ``eval_trials.txt``, with a
  third column TC, TW, IC or IW. Some training utterances of 2024 have the phrase FT, free text.

Assumed: recordings end in ``.wav`` or any other suffix that is read; wherever there is a third column it holds those
four kinds. Who speaks in enrolment and test recordings was never published. It follows from the kinds, as far as it
does: a test of kind TC or TW is by the speaker of the model's enrolments. Recordings that no such trial ties to a model
count as speakers of their own, and models that neither a trial nor a recording ties together as different speakers.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from parvox.corpora.entries import Entry, Listing, Rejected, Split, check_root, find_recordings, undecoded
from parvox.corpora.import_folder import UniqueIds, require_some
from parvox.corpora.text_lines import numbered_lines
from parvox.corpora.trials import Trial, TrialList
from parvox.errors import CorpusError, TrialError

EXPECTED = (
    "DeepMine's docs/train_labels.txt and wav/train, and docs/model_enrollment.txt and docs/trials.txt for trials"
)
FREE_TEXT = "FT"

_LISTS: tuple[tuple[Split, str], ...] = (("dev", "dev_"), ("test", "eval_"), ("test", ""))
_KINDS = ("TC", "TW", "IC", "IW")
T = TypeVar("T", bound=tuple[str, ...])


def import_deepmine(root: Path) -> Listing:
    """List Part 1 of DeepMine: labelled utterances for training, and the trials whose kinds are told.

    Trial lists without kinds cannot be scored; their recordings are left out. Where no list tells kinds, dev and test
    speakers are dealt from the training part.

    Raises:
        CorpusError: `root` is missing or holds no recording of this layout.
        TrialError: A list is damaged or contradicts itself.
    """
    root = check_root(root, EXPECTED)
    labels: dict[str, tuple[str, str]] = {}
    for where, (name, speaker, phrase, *_) in _rows(root / "docs" / "train_labels.txt", 3):
        _put(labels, name, (speaker, phrase), where)
    listing = Listing([], text_dependent=True)
    evaluations = []
    for split, prefix in _LISTS:
        found = _read_lists(root / "docs", prefix, listing.notes)
        if found is not None and split not in listing.trial_lists:
            listing.trial_lists[split] = found.listed
            evaluations.append((split, found))
    known: dict[str, tuple[str, str | None]] = {f"train/{name}": label for name, label in labels.items()}
    splits: dict[str, Split] = {}
    for split, evaluation in evaluations:
        for name, label in evaluation.labels().items():
            if splits.setdefault(name, split) != split:
                raise TrialError(f"{root / 'docs'}: {name} is in the lists of dev and of test; expected one")
            known[name] = label
    _list_recordings(root, known, splits, listing)
    require_some(listing, root, EXPECTED)
    missing = {name for name in known if name.startswith("train/")} - {entry.id for entry in listing.entries}
    if missing:
        listing.notes.append(f"{len(missing)} recordings of train_labels.txt are not in wav/train")
    if evaluations:
        listing.notes.append("speakers of enrolment and test recordings are inferred from the kinds of trials")
    return listing


def _list_recordings(
    root: Path, known: Mapping[str, tuple[str, str | None]], splits: Mapping[str, Split], listing: Listing
) -> None:
    names = UniqueIds()
    for path in find_recordings(root):
        rejected = undecoded(path)
        place = path.removeprefix("wav/").rpartition(".")[0]
        if rejected is None and not path.startswith("wav/"):
            rejected = Rejected(path, "unlisted", f"not part of DeepMine: expected {EXPECTED}")
        if rejected is None and place not in known:
            rejected = Rejected(path, "no speaker", "no list tells who speaks in it")
        if rejected is not None:
            listing.rejected.append(rejected)
            continue
        speaker, phrase = known[place]
        name = names.add(path.removeprefix("wav/"))
        listing.entries.append(
            Entry(
                path=root / path,
                id=name,
                source="deepmine",
                speaker=speaker,
                recording=name,
                text=None if phrase == FREE_TEXT else phrase,
                split=splits.get(place),
            )
        )


@dataclass
class _Evaluation:
    """Enrolments and trials of one list, and who speaks in them as far as the kinds tell."""

    name: str
    where: str
    listed: TrialList
    phrase_of: dict[str, str | None] = field(default_factory=dict)
    parent: dict[str, str] = field(default_factory=dict)

    def same_speaker(self, model: str, utterance: str) -> None:
        both = self.speaker(model), self.speaker(utterance)
        one, other = sorted(both, key=lambda name: (name not in self.listed.voices, name))
        self.parent[other] = one

    def speaker(self, name: str) -> str:
        """The first model, in order of names, of all that are known to be by the same speaker."""
        while self.parent.setdefault(name, name) != name:
            self.parent[name] = name = self.parent[self.parent[name]]
        return name

    def says(self, utterance: str, phrase: str, where: str) -> None:
        if self.phrase_of.setdefault(utterance, phrase) != phrase:
            raise TrialError(
                f"{where} has {utterance} say phrase {phrase}, others {self.phrase_of[utterance]}; correct the list"
            )

    def labels(self) -> dict[str, tuple[str, str | None]]:
        """Speaker and phrase of each recording, by its place under ``wav``."""
        enrolled = itertools.chain.from_iterable(self.listed.voices.values())
        # models are numbered anew in each list, and training speakers have names of their own
        return {
            each: (f"{self.name}/{self.speaker(each)}", self.phrase_of.get(each))
            for each in itertools.chain(enrolled, (trial.test for trial in self.listed.trials))
        }


def _read_lists(docs: Path, prefix: str, notes: list[str]) -> _Evaluation | None:
    """Enrolments and trials; None where there are none, or none with kinds."""
    models_path, trials_path = docs / f"{prefix}model_enrollment.txt", docs / f"{prefix}trials.txt"
    if not models_path.is_file() or not trials_path.is_file():
        return None
    found = _Evaluation(prefix.rstrip("_") or "eval", str(trials_path), TrialList([], f"docs/{trials_path.name}"))
    models: dict[str, tuple[str, ...]] = {}
    for where, (model, *about) in _rows(models_path, 3):
        _put(models, model, tuple(about), where)
    for model, (phrase, *files) in models.items():
        utterances = found.listed.voices[model] = tuple(f"enrollment/{file}" for file in files)
        found.phrase_of[model] = phrase
        for utterance in utterances:
            found.same_speaker(model, utterance)
            found.says(utterance, phrase, f"{models_path}: model {model}")
    rows = [fields for _, fields in _rows(trials_path, 2)]
    if not any(len(row) > 2 for row in rows):
        notes.append(f"docs/{trials_path.name} tells no kinds of trials, so nothing can be scored with it")
        return None
    for row in rows:
        line = " ".join(row)
        if len(row) < 3 or row[2] not in _KINDS:
            raise TrialError(f"{trials_path}: {line[:60]!r} is no trial; expected 'model recording TC', TW, IC or IW")
        model, file, kind = row[:3]
        if model not in found.listed.voices:
            raise TrialError(f"{trials_path}: {line[:60]!r} names a model that {models_path.name} does not enrol")
        test = f"evaluation/{file}"
        found.listed.trials.append(Trial(model, test, kind == "TC"))
        if kind in ("TC", "TW"):
            found.same_speaker(model, test)
        if kind in ("TC", "IC"):
            found.says(test, str(found.phrase_of[model]), f"{trials_path}: {line!r}")
    _check(found, rows)
    return found


def _check(found: _Evaluation, rows: list[list[str]]) -> None:
    """Refuse kinds that contradict what the others say."""
    for row in rows:
        model, test, kind = row[0], f"evaluation/{row[1]}", row[2]
        same_speaker = found.speaker(model) == found.speaker(test)
        same_phrase = found.phrase_of.get(test) == found.phrase_of[model]
        if (same_speaker, same_phrase) != (kind[0] == "T", kind[1] == "C"):
            raise TrialError(f"{found.where}: {' '.join(row)!r} contradicts other trials of the list; correct it")


def _put(table: dict[str, T], name: str, about: T, where: str) -> None:
    """Take in a line of a list.

    Raises:
        TrialError: An earlier line says something else of `name`.
    """
    if table.setdefault(name, about) != about:
        given, earlier = " ".join(about), " ".join(table[name])
        raise TrialError(f"{where}: {name} {given[:60]!r} given, but {earlier[:60]!r} before; leave one of them")


def _rows(path: Path, least: int) -> list[tuple[str, list[str]]]:
    """Where each line but the headings stands, for errors, and its fields.

    Raises:
        CorpusError: The file is missing or no text, or a line has fewer fields than `least`.
    """
    rows = []
    for number, line in numbered_lines(path, what="list", expected=f"expected {EXPECTED}", error=CorpusError):
        fields = line.split()
        if number == 1 and fields[0].endswith("-id"):
            continue
        if len(fields) < least:
            raise CorpusError(f"{path} line {number}: {line[:60]!r} given; expected {least} columns or more")
        rows.append((f"{path} line {number}", fields))
    return rows
