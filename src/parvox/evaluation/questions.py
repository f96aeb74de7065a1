"""What systems are asked: trials of a corpus, with their recordings and speakers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from parvox.errors import TrialError
from parvox.evaluation.enrolment import EnrolmentList
from parvox.evaluation.trials import Speakers, TrialIndex, unknown_utterances

if TYPE_CHECKING:
    from lhotse.cut import Cut

    from parvox.corpora.prepared import PreparedCorpus


ALL = "all"
"""Stands for every utterance of a corpus, whatever split it is in."""
TRAIN = "train"
"""The split that models are trained on."""


@dataclass(frozen=True, eq=False)
class Questions:
    """Trials and what is known of them.

    Attributes:
        split: Whose utterances they are.
        trials: The trials; where voices are enrolled by a list, their first side names voices.
        speakers: Who speaks in them.
        cuts: The utterances they need, by id.
        enrolments: Which utterances enrol which voice; None where each trial's first side is an utterance.
        enrol_duration_s: (trials,) seconds of all enrolment recordings of the trial.
        test_duration_s: (trials,) seconds of the test recording.
        enrol_count: (trials,) utterances that the voice was enrolled with.
    """

    split: str
    trials: TrialIndex
    speakers: Speakers
    cuts: Mapping[str, Cut]
    enrolments: EnrolmentList | None
    enrol_duration_s: NDArray[np.float64]
    test_duration_s: NDArray[np.float64]
    enrol_count: NDArray[np.int64]

    @property
    def paths(self) -> dict[str, str]:
        """The recording of each utterance that lies in one file; several, for a voice."""
        found = {}
        for name, cut in self.cuts.items():
            sources = cut.recording.sources if cut.has_recording else []
            found[name] = ", ".join(str(source.source) for source in sources if source.type == "file")
        if self.enrolments is not None:
            for voice, utterances in self.enrolments.voices.items():
                found[voice] = ", ".join(found.get(utterance, "") for utterance in utterances)
        return found

    def sides(self, of_utterance: Mapping[str, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A number of each utterance, such as its seconds of speech, for both sides of each trial.

        Args:
            of_utterance: By utterance id; a voice has the sum of its utterances'.
        """
        known = dict(of_utterance)
        if self.enrolments is not None:
            known |= {voice: sum(known[each] for each in ids) for voice, ids in self.enrolments.voices.items()}
        values = np.array([known[name] for name in self.trials.ids], np.float64)
        return values[self.trials.enrol], values[self.trials.test]


def load_questions(
    corpus: PreparedCorpus,
    split: str = "test",
    trials: Path | None = None,
    enrolments: Path | None = None,
    *,
    all_pairs: bool = False,
    keep_duplicates: bool = False,
    text_dependent: bool = False,
) -> Questions:
    """Read trials and look up what they need.

    With a split's own list come the voices that it names, and whether phrases count, as the corpus has them.

    Args:
        corpus: Where the utterances are.
        split: Whose utterances; "all" for those of every split, which have no list of their own: without one given,
            every pair is tried.
        trials: A trial list in VoxCeleb's format instead of the split's own.
        enrolments: A list of voices and their utterances; the trials' first sides then name voices.
        all_pairs: Instead of a list, every pair of the split's utterances, or every voice with every utterance that
            enrols none; pieces of one recording never meet.
        keep_duplicates: Count trials twice that stand twice in the list, instead of refusing it.
        text_dependent: A target trial is of the same speaker saying the same text; the same speaker saying another
            text is a non-target.

    Raises:
        ParvoxError: the lists and the corpus do not go together; the message says how.
    """
    all_pairs = all_pairs or (split == ALL and trials is None)
    if trials is None and not all_pairs:
        enrolments = enrolments or corpus.enrolments(split)
        text_dependent = text_dependent or corpus.info.text_dependent
    listed = None if enrolments is None else EnrolmentList.read(enrolments)
    if all_pairs:
        if trials is not None:
            raise TrialError(f"trial list {trials} and all pairs asked for; give one of them")
        index = _all_pairs(corpus, split, listed)
    elif trials is not None:
        index = TrialIndex.read(trials)
    else:
        index = TrialIndex.from_trials(corpus.trials(split), f"{split}.trials of {corpus.info.name}")
    if not keep_duplicates and not all_pairs:
        index.refuse_duplicates()
    wanted = set(index.ids) if listed is None else set(index.ids) | set(listed.utterances())
    cuts = {cut.id: cut for cut in _cuts(corpus, split) if cut.id in wanted}
    speaker_of = {name: cut.supervisions[0].speaker for name, cut in cuts.items()}
    duration = {name: cut.duration for name, cut in cuts.items()}
    count = dict.fromkeys(cuts, 1)
    if listed is not None:
        listed = _used(listed, index)
        _check_sides(index, listed, cuts)
        speaker_of |= listed.speakers(speaker_of)
        duration |= {voice: sum(duration[each] for each in ids) for voice, ids in listed.voices.items()}
        count |= {voice: len(ids) for voice, ids in listed.voices.items()}
    text_of = None
    if text_dependent:
        text_of = {name: cut.supervisions[0].text or "" for name, cut in cuts.items()}
        for voice, ids in {} if listed is None else listed.voices.items():
            text_of[voice] = _one_text(voice, {text_of[each] for each in ids})
        if all_pairs:  # paired by speaker so far
            index = index.only_same(text_of)
    speakers = index.speakers(speaker_of, text_of)
    for kind, number in (("target", index.targets), ("non-target", index.nontargets)):
        if not number:
            raise TrialError(
                f"{index.name}: none of its {len(index)} trials is a {kind} trial; error rates need both kinds"
            )
    durations = np.array([duration[name] for name in index.ids])
    counts = np.array([count[name] for name in index.ids])
    return Questions(
        split,
        index,
        speakers,
        cuts,
        listed,
        durations[index.enrol],
        durations[index.test],
        counts[index.enrol],
    )


def _cuts(corpus: PreparedCorpus, split: str) -> Iterator[Cut]:
    for each in corpus.splits if split == ALL else (split,):
        yield from corpus.cuts(each, lazy=True)


def training_notes(corpus: PreparedCorpus, questions: Questions) -> list[str]:
    """What to know where speakers of the training split are among those of the trials."""
    if questions.split not in (TRAIN, ALL) or TRAIN not in corpus.splits:
        return []
    asked = set(questions.speakers.names)
    met = len(asked & set(corpus.speakers(TRAIN)))
    if not met:
        return []
    return [
        f"{met:,} of the {len(asked):,} speakers are of the training split. A model that learned from them knows them "
        "better than any others, so that it errs less here than it will: for such a model take another split."
    ]


def _all_pairs(corpus: PreparedCorpus, split: str, listed: EnrolmentList | None) -> TrialIndex:
    speaker_of, recording_of = {}, {}
    for cut in _cuts(corpus, split):
        supervision = cut.supervisions[0]
        speaker_of[cut.id] = supervision.speaker
        recording_of[cut.id] = str((supervision.custom or {}).get("recording") or cut.id)
    name = f"all pairs of {split} of {corpus.info.name}"
    if listed is None:
        return TrialIndex.cross(list(speaker_of), list(speaker_of), speaker_of, recording_of, name)
    both = speaker_of | listed.speakers(speaker_of)
    enrolling = {recording_of[utterance] for utterance in listed.utterances()}
    others = [utterance for utterance in speaker_of if recording_of[utterance] not in enrolling]
    if not others:
        raise TrialError(f"{listed.name}: all recordings of {split} enrol a voice; none is left to try")
    return TrialIndex.cross(list(listed.voices), others, both, None, f"{name}, voices of {listed.name}")


def _used(listed: EnrolmentList, trials: TrialIndex) -> EnrolmentList:
    """The voices that occur in the trials."""
    first = {trials.ids[row] for row in np.unique(trials.enrol)}
    return EnrolmentList({voice: ids for voice, ids in listed.voices.items() if voice in first}, listed.name)


def _check_sides(trials: TrialIndex, listed: EnrolmentList, cuts: Mapping[str, Cut]) -> None:
    for what, column, known in (("voices", trials.enrol, listed.voices), ("utterances", trials.test, cuts)):
        ids = [trials.ids[row] for row in np.unique(column)]
        unknown = [name for name in ids if name not in known]
        if unknown and what == "voices":
            raise TrialError(
                f"{trials.name}: {len(unknown)} of its {len(ids)} voices are not in {listed.name}, such as "
                f"{unknown[0]!r}; enrol them, or correct the lists"
            )
        if unknown:
            raise unknown_utterances(trials.name, unknown, len(ids))
    both = sorted(set(listed.voices) & set(cuts))
    if both:
        raise TrialError(f"{listed.name}: {both[0]!r} is the name of an utterance too; give voices names of their own")


def _one_text(voice: str, texts: set[str]) -> str:
    if len(texts) > 1:
        raise TrialError(f"{voice} is enrolled with different texts; text-dependent trials need one text a voice")
    return texts.pop()
