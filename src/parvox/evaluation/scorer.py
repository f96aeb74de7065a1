"""From a system and questions to scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from parvox.errors import TrialError
from parvox.evaluation.embeddings import Embeddings, embed_cuts
from parvox.evaluation.enrolment import Enrolment, enrol_voices
from parvox.evaluation.normalisation import (
    Normalisation,
    check_cohort,
    cohort_statistics,
    normalise_scores,
    speaker_means,
)
from parvox.evaluation.plda import Plda, fit_plda
from parvox.evaluation.questions import ALL, Questions
from parvox.evaluation.scoring import normalise, pair_products
from parvox.evaluation.system import System

if TYPE_CHECKING:
    from lhotse.cut import Cut

    from parvox.corpora.prepared import PreparedCorpus

Mean = Literal["model", "train", "none"]
SideInformation = Literal["duration", "enrolments", "cohort"]
Backend = Literal["cosine", "plda"]

_MEAN_UTTERANCES = 2000
_TRAIN = "train"


@dataclass(frozen=True, kw_only=True)
class ScoringSettings:
    """How two voices are compared."""

    backend: Backend = "cosine"
    """cosine, or plda fitted on the training split."""
    plda_from: PreparedCorpus | None = None
    """Another corpus to fit plda on, which is then adapted to the training split without its labels."""
    mean: Mean = "model"
    """What to subtract from embeddings first: the mean that the model file carries, that of the training split, or
    nothing."""
    normalisation: Normalisation = "none"
    """Score normalisation against the training speakers: none, znorm, tnorm, snorm, or asnorm."""
    top_k: int = 300
    """How many of the nearest cohort speakers asnorm takes."""
    enrolment: Enrolment = "mean"
    """How several enrolment utterances become one voice: mean of embeddings, mean of scores, or a mean weighted by
    duration (quality)."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores and what they can be calibrated with.

    Attributes:
        scores: (trials,) float32.
        side: Side information by name, (trials,).
        words: How the scores were made.
    """

    scores: NDArray[np.float32]
    side: dict[str, NDArray[np.float64]]
    words: str


class Scorer:
    """Scores questions with one system; what the training split gives is computed once.

    Args:
        system: The model.
        corpus: Whose training split gives mean and cohort.
        settings: How to compare.
        cache: Folder to keep embeddings in.
        workers: Loading processes.
    """

    def __init__(
        self,
        system: System,
        corpus: PreparedCorpus,
        settings: ScoringSettings,
        *,
        cache: Path | None = None,
        workers: int | None = None,
    ) -> None:
        self.system, self.corpus, self.settings = system, corpus, settings
        self._cache, self._workers = cache, workers
        self._mean: tuple[NDArray[np.float32] | None, str] | None = None
        self._cohort: Embeddings | None = None
        self._plda: tuple[Plda, str] | None = None

    def score(self, questions: Questions, side: Sequence[SideInformation] = ()) -> Scored:
        """Answer the questions.

        Args:
            questions: The trials.
            side: Side information to give along: duration (the logarithms of the shorter and of the longer side's
                seconds), enrolments (the logarithm of their number), cohort (how high both sides score against the
                cohort; only with score normalisation).

        Raises:
            ParvoxError: a recording, the cohort or the settings cannot be used; the message says why.
        """
        settings = self.settings
        uses_train = settings.mean == "train" or settings.normalisation != "none" or settings.backend == "plda"
        if questions.split in (_TRAIN, ALL) and uses_train:
            raise TrialError(
                "mean, cohort or PLDA from the training split, and trials of the training split: they would know the "
                "very speakers they are tried on; choose another split"
            )
        if settings.backend == "plda":
            return self._plda_scores(questions, side)
        mean, words = self._subtracted()
        embeddings = embed_cuts(self.system, questions.cuts.values(), cache=self._cache, workers=self._workers)
        unit = normalise(embeddings, mean)
        trials = questions.trials
        right, test = unit, self._rows(embeddings, trials.ids, trials.test)
        if questions.enrolments is None:
            left, enrol = unit, self._rows(embeddings, trials.ids, trials.enrol)
        else:
            seconds = {name: cut.duration for name, cut in questions.cuts.items()}
            left = enrol_voices(unit, embeddings, questions.enrolments, self.settings.enrolment, seconds)
            enrol = _places(list(questions.enrolments.voices), trials.ids)[trials.enrol]
            words += f", several enrolment utterances by {self.settings.enrolment}"
        scores = pair_products(left, right, enrol, test)
        found = _side_information(questions, side)
        kind = self.settings.normalisation
        if kind != "none":
            cohort = self._cohort_of(questions.speakers.names, mean)
            members = normalise(cohort)
            nearest = self.settings.top_k if kind == "asnorm" else None
            right_statistics = cohort_statistics(right, members, nearest)
            left_statistics = right_statistics if left is right else cohort_statistics(left, members, nearest)
            scores = normalise_scores(scores, enrol, test, left_statistics, right_statistics, kind)
            words += f", {kind} against {len(members):,} training speakers"
            words += f", nearest {min(self.settings.top_k, len(members))}" if kind == "asnorm" else ""
            if "cohort" in side:
                found["cohort"] = (left_statistics.mean[enrol] + right_statistics.mean[test]).astype(np.float64) / 2
        elif "cohort" in side:
            raise TrialError("side information 'cohort' asked for without score normalisation; add asnorm or snorm")
        return Scored(scores, found, words)

    def _plda_scores(self, questions: Questions, side: Sequence[SideInformation]) -> Scored:
        if self.settings.normalisation != "none":
            raise TrialError(
                f"PLDA with {self.settings.normalisation} asked for; PLDA scores need no cohort: give none"
            )
        if "cohort" in side:
            raise TrialError("side information 'cohort' asked for with PLDA, which has no cohort; leave it out")
        plda, words = self._fitted_plda()
        embeddings = embed_cuts(self.system, questions.cuts.values(), cache=self._cache, workers=self._workers)
        trials, voices = questions.trials, None
        test = self._rows(embeddings, trials.ids, trials.test)
        if questions.enrolments is None:
            enrol = self._rows(embeddings, trials.ids, trials.enrol)
        else:
            voices = [embeddings.rows(utterances) for utterances in questions.enrolments.voices.values()]
            enrol = _places(list(questions.enrolments.voices), trials.ids)[trials.enrol]
        scores = plda.score(embeddings.matrix, embeddings.matrix, enrol, test, voices)
        return Scored(scores, _side_information(questions, side), words)

    def _fitted_plda(self) -> tuple[Plda, str]:
        if self._plda is None:
            source = self.settings.plda_from or self.corpus
            cuts = list(source.cuts(_TRAIN))
            plda = fit_plda(self._train(cuts).matrix, [cut.supervisions[0].speaker for cut in cuts])
            words = f"PLDA fitted on {len(cuts):,} training utterances of {source.info.name}"
            if self.settings.plda_from is not None:
                own = list(self.corpus.cuts(_TRAIN))
                plda = plda.adapted(self._train(own).matrix)
                words += f", adapted to {len(own):,} of {self.corpus.info.name}"
            self._plda = plda, words
        return self._plda

    def _rows(self, embeddings: Embeddings, ids: Sequence[str], column: NDArray[np.int32]) -> NDArray[np.int32]:
        """Where the utterances of one side stand in the embeddings."""
        used = np.unique(column)
        rows = np.zeros(len(ids), np.int32)
        rows[used] = embeddings.rows([ids[row] for row in used])
        return rows[column]

    def _subtracted(self) -> tuple[NDArray[np.float32] | None, str]:
        """The mean to subtract, and how to say so."""
        if self._mean is None:
            words = "cosine"
            mean = None
            if self.settings.mean == "model" and self.system.mean is not None:
                mean, words = self.system.mean, "cosine, the model's mean subtracted"
            elif self.settings.mean == "train":
                cuts = _spread(list(self.corpus.cuts(_TRAIN)), _MEAN_UTTERANCES)
                mean = self._train(cuts).matrix.mean(axis=0, dtype=np.float64).astype(np.float32)
                words = f"cosine, mean of {len(cuts):,} training utterances subtracted"
            self._mean = mean, words
        return self._mean

    def _cohort_of(self, speakers: Sequence[str], mean: NDArray[np.float32] | None) -> Embeddings:
        if self._cohort is None:
            cuts = list(self.corpus.cuts(_TRAIN))
            speaker_of = {cut.id: cut.supervisions[0].speaker for cut in cuts}
            check_cohort(list(speaker_of.values()), speakers)
            self._cohort = speaker_means(self._train(cuts), speaker_of, mean)
        check_cohort(list(self._cohort.ids), speakers)
        return self._cohort

    def _train(self, cuts: Sequence[Cut]) -> Embeddings:
        return embed_cuts(self.system, cuts, cache=self._cache, workers=self._workers, what="training utterances")


def _places(voices: Sequence[str], ids: Sequence[str]) -> NDArray[np.int32]:
    """Where each id stands among the voices; 0 for those that are none."""
    place = {voice: row for row, voice in enumerate(voices)}
    return np.array([place.get(name, 0) for name in ids], np.int32)


def _side_information(questions: Questions, side: Sequence[SideInformation]) -> dict[str, NDArray[np.float64]]:
    found = {}
    if "duration" in side:
        enrol, test = np.log(questions.enrol_duration_s), np.log(questions.test_duration_s)
        found = {"log_shorter_s": np.minimum(enrol, test), "log_longer_s": np.maximum(enrol, test)}
    if "enrolments" in side:
        found["log_enrolments"] = np.log(questions.enrol_count)
    return found


def _spread(cuts: list[Cut], most: int) -> list[Cut]:
    if len(cuts) <= most:
        return cuts
    return [cuts[row] for row in np.linspace(0, len(cuts) - 1, most).astype(int)]
