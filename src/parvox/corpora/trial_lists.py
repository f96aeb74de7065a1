"""Fit a given trial list, a corpus's own or the user's, to the utterances of a corpus."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from parvox.corpora.entries import Entry, utterance_id
from parvox.corpora.trials import Trial, TrialList
from parvox.errors import TrialError


@dataclass(frozen=True)
class GivenTrials:
    """A trial list in the corpus's own ids.

    Attributes:
        trials: In the list's order.
        speakers: All who occur in it.
        notes: What a reader of results should know.
        voices: Which utterances enrol which voice, where the trials' first sides name voices.
    """

    trials: list[Trial]
    speakers: frozenset[str]
    notes: list[str]
    voices: dict[str, tuple[str, ...]] = field(default_factory=dict)


def given_trials(
    listed: TrialList, entries: Sequence[Entry], rejected_paths: Collection[str], *, text_dependent: bool = False
) -> GivenTrials:
    """Translate the ids of a trial list; they may carry a suffix, as VoxCeleb's do, whatever the files' own is.

    Trials with a recording that was rejected are left out and counted. A voice loses all its trials with any of its
    recordings.

    Args:
        listed: As read.
        entries: The usable utterances.
        rejected_paths: Paths of the recordings left out, relative to the corpus's root.
        text_dependent: Whether a target must say the same phrase.

    Raises:
        TrialError: It names an utterance or a voice that the corpus does not have at all, contradicts itself, or no
            trial remains.
    """
    name, trials = listed.name, listed.trials
    places = _Places(entries, rejected_paths)
    voices: dict[str, tuple[str, ...]] = {}
    broken: set[str] = set()
    for voice, utterances in listed.voices.items():
        found = [places.find(given, f"{name}: voice {voice}") for given in utterances]
        voices[voice] = tuple(place for place in found if place is not None)
        if None in found:
            broken.add(voice)
    by_id = {entry.id: entry for entry in entries}
    for voice, utterances in voices.items():
        speakers = sorted({by_id[utterance].speaker for utterance in utterances})
        if len(speakers) > 1:
            raise TrialError(
                f"{name}: voice {voice} is enrolled with recordings of {speakers[0]} and {speakers[1]}; "
                "expected one speaker"
            )
    kept: list[Trial] = []
    mislabelled = 0
    used: set[str] = set()
    for number, trial in enumerate(trials, 1):
        where = f"{name}: trial {number}"
        test = places.find(trial.test, where)
        enrol: str | None
        if listed.voices:
            if trial.enrol not in voices:
                raise TrialError(f"{where} names voice {trial.enrol!r}, which nothing enrols")
            enrol = None if trial.enrol in broken else trial.enrol
        else:
            enrol = places.find(trial.enrol, where)
        if enrol is None or test is None:
            continue
        first, second = by_id[voices[enrol][0] if listed.voices else enrol], by_id[test]
        same = first.speaker == second.speaker and (not text_dependent or first.text == second.text)
        mislabelled += same != trial.target
        kept.append(Trial(enrol, test, trial.target))
        used.add(enrol)
    if not kept:
        raise TrialError(f"{name}: not one of its {len(trials)} trials can be used; their recordings were rejected")
    targets = {(trial.enrol, trial.test) for trial in kept if trial.target}
    torn = next((trial for trial in kept if not trial.target and (trial.enrol, trial.test) in targets), None)
    if torn is not None:
        raise TrialError(
            f"{name}: {torn.enrol} with {torn.test} is a target in one line and none in another; leave one of them"
        )
    notes = []
    if len(kept) < len(trials):
        lost = len(trials) - len(kept)
        notes.append(
            f"{name}: {lost} of {len(trials)} trials left out, because their recordings were rejected; "
            "results do not compare with those of the whole list"
        )
    if mislabelled:
        what = "speakers and phrases say" if text_dependent else "speakers say"
        notes.append(f"{name}: {mislabelled} trials are labelled otherwise than the {what}; kept as they are")
    voices = {voice: utterances for voice, utterances in voices.items() if voice in used}
    named = TrialList(kept, name, voices).utterances()
    return GivenTrials(kept, frozenset(by_id[utterance].speaker for utterance in named), notes, voices)


class _Places:
    """The corpus's own id for each id that a list gives."""

    def __init__(self, entries: Sequence[Entry], rejected_paths: Collection[str]) -> None:
        self._known = {entry.id for entry in entries}
        self._example = entries[0].id
        self._rejected = rejected_paths
        self._tails: set[str] | None = None
        self._found: dict[str, str | None] = {}

    def find(self, given: str, where: str) -> str | None:
        """The id; None if the recording was rejected."""
        if given in self._found:
            return self._found[given]
        stem = utterance_id(given)
        found = next((known for known in (given, stem) if known in self._known), None)
        if found is None:
            self._tails = self._tails if self._tails is not None else _tails(self._rejected)
            if given not in self._tails and stem not in self._tails:
                raise TrialError(
                    f"{where} names {given!r}, but the corpus has no such recording; "
                    f"expected ids such as {self._example!r}"
                )
        self._found[given] = found
        return found


def _tails(paths: Collection[str]) -> set[str]:
    """Every id that a list might give a path: it may begin at any folder."""
    tails: set[str] = set()
    for path in paths:
        parts = utterance_id(path).split("/")
        tails.update("/".join(parts[start:]) for start in range(len(parts)))
    return tails
