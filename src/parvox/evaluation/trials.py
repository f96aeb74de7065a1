"""Trial lists as arrays: what millions of trials are scored and resampled by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parvox.corpora.phrases import word_key
from parvox.corpora.trials import Trial, read_trials
from parvox.errors import TrialError

MOST_PAIRS = 50_000_000
"""The largest cross product that is kept as trials."""

_HASH_BLOCK = 1 << 16
_SHOWN = 100  # letters of an id


@dataclass(frozen=True, eq=False)
class TrialIndex:
    """A trial list in columns.

    Attributes:
        ids: The utterances that occur, each once.
        enrol: (trials,) int32, the place in `ids` of each trial's enrolment utterance.
        test: (trials,) int32, likewise of its test utterance.
        target: (trials,) bool, whether it is the same speaker.
        name: Where the list came from.
        sha256: Of the list as `parvox.corpora.trials.write_trials` writes it.
    """

    ids: list[str]
    enrol: NDArray[np.int32]
    test: NDArray[np.int32]
    target: NDArray[np.bool_]
    name: str
    sha256: str

    def __len__(self) -> int:
        return len(self.target)

    @classmethod
    def from_trials(cls, trials: Iterable[Trial], name: str = "trials") -> TrialIndex:
        """Put trials in columns.

        Args:
            trials: Any number of them.
            name: Where they came from.

        Raises:
            TrialError: there are none, or the same pair is both target and non-target.
        """
        place: dict[str, int] = {}
        enrol: list[int] = []
        test: list[int] = []
        target: list[bool] = []
        for trial in trials:
            enrol.append(place.setdefault(trial.enrol, len(place)))
            test.append(place.setdefault(trial.test, len(place)))
            target.append(trial.target)
        if not target:
            raise TrialError(f"{name}: no trials; expected at least one target and one non-target trial")
        ids = list(place)
        columns = np.array(enrol, np.int32), np.array(test, np.int32), np.array(target, bool)
        index = cls(ids, *columns, name=name, sha256=_sha256(ids, *columns))
        index._check_contradictions()
        return index

    @classmethod
    def read(cls, path: Path) -> TrialIndex:
        """Read a list in VoxCeleb's format.

        Raises:
            TrialError: it is missing, no trial list, or contradicts itself.
        """
        return cls.from_trials(read_trials(path), str(path))

    @classmethod
    def cross(
        cls,
        enrol: Sequence[str],
        test: Sequence[str],
        speaker_of: Mapping[str, str],
        recording_of: Mapping[str, str] | None = None,
        name: str = "all pairs",
    ) -> TrialIndex:
        """Every enrolment side with every test side; nothing is written to disk.

        A pair of the same two utterances is taken once, whichever comes first, and an utterance never meets itself.

        Args:
            enrol: Utterances or voices.
            test: Utterances.
            speaker_of: The speaker of each.
            recording_of: The recording of each, where some are pieces of one: those never meet, for they share more
                than a voice.
            name: What to call the list.

        Returns:
            Its hash is of the two lists of names and their speakers.

        Raises:
            TrialError: there are more pairs than fit in memory; `parvox.evaluation.cross.cross_scores` can do them.
        """
        if len(enrol) * len(test) > MOST_PAIRS:
            raise TrialError(
                f"{name}: {len(enrol):,} × {len(test):,} pairs; at most {MOST_PAIRS:,} can be resampled by speaker: "
                "choose fewer utterances, or give a trial list"
            )
        ids = list(dict.fromkeys([*enrol, *test]))
        place = {utterance: row for row, utterance in enumerate(ids)}
        names = {speaker: row for row, speaker in enumerate({speaker_of[utterance] for utterance in ids})}
        of_id = np.array([names[speaker_of[utterance]] for utterance in ids], np.int32)
        first = np.repeat(np.array([place[each] for each in enrol], np.int32), len(test))
        second = np.tile(np.array([place[each] for each in test], np.int32), len(enrol))
        kept = first != second
        both = set(enrol) & set(test)
        if both:  # the same pair the other way round
            mutual = np.array([each in both for each in ids])
            kept &= ~(mutual[first] & mutual[second] & (first > second))
        if recording_of is not None:
            takes = {take: row for row, take in enumerate({recording_of.get(each, each) for each in ids})}
            take = np.array([takes[recording_of.get(each, each)] for each in ids], np.int32)
            kept &= take[first] != take[second]
        first, second = first[kept], second[kept]
        digest = hashlib.sha256(
            "\n".join(["enrol", *enrol, "test", *test, "speakers", *(speaker_of[each] for each in ids)]).encode()
        )
        return cls(ids, first, second, of_id[first] == of_id[second], name=name, sha256=digest.hexdigest())

    @property
    def targets(self) -> int:
        """How many target trials."""
        return int(np.count_nonzero(self.target))

    @property
    def nontargets(self) -> int:
        """How many non-target trials."""
        return len(self) - self.targets

    def take(self, rows: NDArray[Any]) -> TrialIndex:
        """The trials that `rows` (numbers or a mask) chooses; its hash is that of the shorter list."""
        columns = self.enrol[rows], self.test[rows], self.target[rows]
        return TrialIndex(self.ids, *columns, name=self.name, sha256=_sha256(self.ids, *columns))

    def duplicates(self) -> NDArray[np.int64]:
        """Rows that repeat the pair of an earlier row."""
        order, first = self._by_pair()
        return np.sort(order[~first])

    def refuse_duplicates(self) -> None:
        """Raise `TrialError` if a pair stands in the list twice."""
        repeated = self.duplicates()
        if len(repeated):
            raise TrialError(
                f"{self.name}: {len(repeated)} trials stand there twice, such as {self.describe(repeated[0])}; "
                "remove them, or pass --keep_duplicates to count them twice"
            )

    def of_itself(self) -> NDArray[np.int64]:
        """Rows that compare an utterance with itself."""
        return np.flatnonzero(self.enrol == self.test)

    def reversed_again(self) -> NDArray[np.int64]:
        """Rows that repeat an earlier row the other way round."""
        low, high = np.minimum(self.enrol, self.test), np.maximum(self.enrol, self.test)
        turned = TrialIndex(self.ids, low, high, self.target, self.name, self.sha256)
        return np.setdiff1d(turned.duplicates(), self.duplicates())

    def describe(self, row: int | np.integer) -> str:
        """One trial, as a line of the list."""
        enrol, test = (self.ids[column[row]][:_SHOWN] for column in (self.enrol, self.test))
        return f"'{int(self.target[row])} {enrol} {test}'"

    def speakers(self, speaker_of: Mapping[str, str], text_of: Mapping[str, str] | None = None) -> Speakers:
        """The speakers of both sides.

        Args:
            speaker_of: The speaker of each utterance.
            text_of: Its text, where a target must say the same one.

        Raises:
            TrialError: an utterance is unknown, or a trial's label contradicts its speakers.
        """
        unknown = [utterance for utterance in self.ids if utterance not in speaker_of]
        if unknown:
            raise unknown_utterances(self.name, unknown, len(self.ids))
        names = sorted({speaker_of[utterance] for utterance in self.ids})
        place = {name: index for index, name in enumerate(names)}
        of_id = np.array([place[speaker_of[utterance]] for utterance in self.ids], np.int32)
        enrol, test = of_id[self.enrol], of_id[self.test]
        same_text = np.ones(len(self), bool)
        reordered = None
        if text_of is not None:
            same_text = self._agree(text_of)
            reordered = self._agree({name: word_key(text_of[name]) for name in self.ids}) & ~same_text
        wrong = np.flatnonzero(((enrol == test) & same_text) != self.target)
        if len(wrong):
            row = wrong[0]
            raise TrialError(
                f"{self.name}: {len(wrong)} trials contradict the corpus, such as {self.describe(row)}: its speakers "
                f"are {names[enrol[row]]} and {names[test[row]]}{'' if same_text[row] else ', its texts differ'}; "
                "is the list of another corpus?"
            )
        return Speakers(names, enrol, test, same_text, reordered)

    def only_same(self, text_of: Mapping[str, str]) -> TrialIndex:
        """The trials, those with different texts being non-targets.

        Args:
            text_of: The text of each utterance or voice.
        """
        digest = hashlib.sha256("\n".join([self.sha256, *(text_of[name] for name in self.ids)]).encode())
        target = self.target & self._agree(text_of)
        return TrialIndex(self.ids, self.enrol, self.test, target, name=self.name, sha256=digest.hexdigest())

    def _agree(self, values: Mapping[str, str]) -> NDArray[np.bool_]:
        """(trials,) whether both sides have the same value."""
        numbers = {value: number for number, value in enumerate({values[utterance] for utterance in self.ids})}
        of_id = np.array([numbers[values[utterance]] for utterance in self.ids])
        return np.asarray(of_id[self.enrol] == of_id[self.test])

    def _by_pair(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Rows ordered by pair, earlier rows first, and which of them begin a new pair."""
        pair = self.enrol.astype(np.int64) * len(self.ids) + self.test
        order = np.argsort(pair, kind="stable")
        ordered = pair[order]
        return order, np.concatenate([[True], ordered[1:] != ordered[:-1]])

    def _check_contradictions(self) -> None:
        order, first = self._by_pair()
        label = self.target[order]
        wrong = np.flatnonzero(~first[1:] & (label[1:] != label[:-1]))
        if len(wrong):
            shown = self.describe(order[wrong[0] + 1])
            raise TrialError(
                f"{self.name}: {len(wrong)} trials contradict others of the list, such as {shown}, which also stands "
                "there with the other label; correct the list"
            )


@dataclass(frozen=True, eq=False)
class Speakers:
    """Who speaks in the trials.

    Attributes:
        names: The speakers, sorted.
        enrol: (trials,) int32, place in `names`.
        test: (trials,) int32, place in `names`.
        same_text: (trials,) whether both sides say the same text; true throughout where texts do not matter.
        reordered: (trials,) whether they say the same words in different orders; None where texts do not matter.
    """

    names: list[str]
    enrol: NDArray[np.int32]
    test: NDArray[np.int32]
    same_text: NDArray[np.bool_] | None = None
    reordered: NDArray[np.bool_] | None = None


def unknown_utterances(what: str, unknown: Sequence[str], total: int) -> TrialError:
    """The error for utterances of a list that the corpus or the embeddings do not have."""
    return TrialError(
        f"{what}: {len(unknown)} of its {total} utterances are unknown, such as {unknown[0][:_SHOWN]!r}; "
        "is it the list of another corpus or split?"
    )


def _sha256(ids: list[str], enrol: NDArray[np.int32], test: NDArray[np.int32], target: NDArray[np.bool_]) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(target), _HASH_BLOCK):
        rows = slice(start, start + _HASH_BLOCK)
        columns = zip(target[rows].tolist(), enrol[rows].tolist(), test[rows].tolist(), strict=True)
        digest.update("".join(f"{t:d} {ids[a]} {ids[b]}\n" for t, a, b in columns).encode())
    return digest.hexdigest()
