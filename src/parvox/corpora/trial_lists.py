"""Fit a given trial list, VoxCeleb's or one's own, to the utterances of a corpus."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from parvox.corpora.entries import Entry, utterance_id
from parvox.corpora.trials import Trial
from parvox.errors import TrialError


@dataclass(frozen=True)
class GivenTrials:
    """A trial list in the corpus's own ids.

    Attributes:
        trials: In the list's order.
        speakers: All who occur in it.
        notes: What a reader of results should know.
    """

    trials: list[Trial]
    speakers: frozenset[str]
    notes: list[str]


def given_trials(
    trials: Sequence[Trial], entries: Sequence[Entry], rejected_paths: Collection[str], name: str
) -> GivenTrials:
    """Translate the ids of a trial list; they may carry a suffix, as VoxCeleb's do, whatever the files' own is.

    Trials with a recording that was rejected are left out and counted.

    Args:
        trials: As read.
        entries: The usable utterances.
        rejected_paths: Paths of the recordings left out, relative to the corpus's root.
        name: What to call the list.

    Raises:
        TrialError: It names an utterance that the corpus does not have at all, or no trial remains.
    """
    speaker_of = {entry.id: entry.speaker for entry in entries}
    places: dict[str, str | None] = {}
    tails: set[str] | None = None
    kept: list[Trial] = []
    mislabelled = 0
    for number, trial in enumerate(trials, 1):
        for given in trial[:2]:
            if given in places:
                continue
            stem = utterance_id(given)
            places[given] = next((known for known in (given, stem) if known in speaker_of), None)
            if places[given] is None:
                tails = tails if tails is not None else _tails(rejected_paths)
                if given not in tails and stem not in tails:
                    raise TrialError(
                        f"{name}: trial {number} names {given!r}, but the corpus has no such recording; "
                        f"expected ids such as {next(iter(speaker_of))!r}"
                    )
        enrol, test = places[trial.enrol], places[trial.test]
        if enrol is not None and test is not None:
            kept.append(Trial(enrol, test, trial.target))
            mislabelled += (speaker_of[enrol] == speaker_of[test]) != trial.target
    if not kept:
        raise TrialError(f"{name}: not one of its {len(trials)} trials can be used; their recordings were rejected")
    notes = []
    if len(kept) < len(trials):
        lost = len(trials) - len(kept)
        notes.append(
            f"{name}: {lost} of {len(trials)} trials left out, because their recordings were rejected; "
            "results do not compare with those of the whole list"
        )
    if mislabelled:
        notes.append(f"{name}: {mislabelled} trials are labelled otherwise than the speakers say; kept as they are")
    speakers = frozenset(speaker_of[name] for trial in kept for name in trial[:2])
    return GivenTrials(kept, speakers, notes)


def _tails(paths: Collection[str]) -> set[str]:
    """Every id that a list might give a path: it may begin at any folder."""
    tails: set[str] = set()
    for path in paths:
        parts = utterance_id(path).split("/")
        tails.update("/".join(parts[start:]) for start in range(len(parts)))
    return tails
