"""From a system and questions to scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from parvox.errors import TrialError
from parvox.evaluation.embeddings import Embeddings
from parvox.evaluation.enrolment import Enrolment, enrol_voices
from parvox.evaluation.normalisation import Normalisation, cohort_statistics, normalise_scores
from parvox.evaluation.plda import Plda, fit_plda
from parvox.evaluation.questions import ALL, TRAIN, Questions
from parvox.evaluation.ranks import Ranks, check_processes
from parvox.evaluation.scoring import pair_products
from parvox.evaluation.side import Mean, Side, Ways
from parvox.evaluation.system import System

if TYPE_CHECKING:
    from lhotse.cut import Cut

    from parvox.corpora.prepared import PreparedCorpus

SideInformation = Literal["duration", "enrolments", "cohort"]
Backend = Literal["cosine", "plda"]


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

    def __post_init__(self) -> None:
        if self.normalisation == "asnorm" and self.top_k < 2:
            raise TrialError(f"top_k {self.top_k} given; expected 2 or more cohort members")


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
        enrol_with: Another model for the enrolment sides, whose embeddings may be compared with those of `system`.
        cache: Folder to keep embeddings in.
        workers: Loading processes.
        processes: Processes of this machine that embed.
        ranks: The processes that torchrun started.

    Raises:
        TrialError: the settings do not go together, or the two models' embeddings may not be compared.
    """

    def __init__(
        self,
        system: System,
        corpus: PreparedCorpus,
        settings: ScoringSettings,
        *,
        enrol_with: System | None = None,
        cache: Path | None = None,
        workers: int | None = None,
        processes: int = 1,
        ranks: Ranks | None = None,
    ) -> None:
        check_processes(processes)
        if settings.backend == "plda" and settings.normalisation != "none":
            raise TrialError(f"PLDA with {settings.normalisation} asked for; PLDA scores need no cohort: give none")
        self.system, self.corpus, self.settings = system, corpus, settings
        ways = Ways(cache=cache, workers=workers, processes=processes, ranks=ranks)
        self._test = Side(system, corpus, settings.mean, ways)
        self._enrol = self._test
        if enrol_with is not None and enrol_with.key != system.key:
            _check_comparable(enrol_with, system, settings)
            self._enrol = Side(enrol_with, corpus, settings.mean, ways, system)
        self._source = self._test
        if settings.backend == "plda" and settings.plda_from is not None:
            self._source = Side(system, settings.plda_from, settings.mean, ways)
        self._plda: tuple[Plda, str] | None = None

    def embed(self, *questions: Questions) -> None:
        """Embed everything that the scores of these questions will need.

        Raises:
            ParvoxError: an utterance cannot be embedded.
        """
        for test in (True, False):
            side = self._test if test else self._enrol
            if test or side is not self._test:
                side.embeddings([cut for each in questions for cut in self._cuts(each, test)])
        if self.settings.backend == "plda":
            self._source.train()
            self._test.train()
        for side in dict.fromkeys((self._test, self._enrol)):
            if self.settings.normalisation != "none":
                side.train()
            _ = side.subtracted

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
        self.check(questions, side)
        if self.settings.backend == "plda":
            return self._plda_scores(questions, side)
        kind = self.settings.normalisation
        left, enrol, right, test, words = self._sides(questions)
        scores = pair_products(left, right, enrol, test)
        found = _side_information(questions, side)
        if kind != "none":
            nearest = self.settings.top_k if kind == "asnorm" else None
            # Each side meets the cohort as the other side would: enrolments meet test utterances, and the reverse.
            members = self._test.cohort(questions.speakers.names)
            left_statistics = cohort_statistics(left, members, nearest)
            if left is right:
                right_statistics = left_statistics
            else:
                enrolled = self._enrol.cohort(questions.speakers.names)
                right_statistics = cohort_statistics(right, enrolled, nearest)
            scores = normalise_scores(scores, enrol, test, left_statistics, right_statistics, kind)
            words += f", {kind} against {len(members):,} training speakers"
            words += f", nearest {min(self.settings.top_k, len(members))}" if kind == "asnorm" else ""
            if "cohort" in side:
                found["cohort"] = (left_statistics.mean[enrol] + right_statistics.mean[test]).astype(np.float64) / 2
        return Scored(scores, found, words)

    def check(self, questions: Questions, side: Sequence[SideInformation] = ()) -> None:
        """Refuse what cannot be answered, before anything is embedded.

        Args:
            questions: The trials.
            side: Side information wanted; see `score`.

        Raises:
            TrialError: the settings, the trials and the side information do not go together.
        """
        settings = self.settings
        uses_train = settings.mean == TRAIN or settings.normalisation != "none" or settings.backend == "plda"
        if questions.split in (TRAIN, ALL) and uses_train:
            raise TrialError(
                "mean, cohort or PLDA from the training split, and trials of the training split: they would know the "
                "very speakers they are tried on; choose another split"
            )
        if "cohort" in side and settings.backend == "plda":
            raise TrialError("side information 'cohort' asked for with PLDA, which has no cohort; leave it out")
        if "cohort" in side and settings.normalisation == "none":
            raise TrialError("side information 'cohort' asked for without score normalisation; add asnorm or snorm")

    def _sides(
        self, questions: Questions
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32], NDArray[np.int32], str]:
        """Vectors of the enrolment sides and each trial's row, the same of the test sides, and how they were made."""
        trials, words = questions.trials, self._test.subtracted[1]
        embeddings = self._test.embeddings(self._cuts(questions, test=True))
        right, test = self._test.unit(embeddings), _rows(embeddings, trials.ids, trials.test)
        enrolling, left = embeddings, right
        if self._enrol is not self._test:
            enrolling = self._enrol.embeddings(self._cuts(questions, test=False))
            left = self._enrol.unit(enrolling)
            words += f", enrolled with {self._enrol.system.name}"
        if questions.enrolments is None:
            return left, _rows(enrolling, trials.ids, trials.enrol), right, test, words
        seconds = {name: cut.duration for name, cut in questions.cuts.items()}
        left = enrol_voices(left, enrolling, questions.enrolments, self.settings.enrolment, seconds)
        enrol = _places(list(questions.enrolments.voices), trials.ids)[trials.enrol]
        return left, enrol, right, test, f"{words}, several enrolment utterances by {self.settings.enrolment}"

    def _cuts(self, questions: Questions, test: bool) -> list[Cut]:
        """The utterances of one side; of both where one model embeds both."""
        if self._enrol is self._test:
            return list(questions.cuts.values())
        ids = [
            questions.trials.ids[row] for row in np.unique(questions.trials.test if test else questions.trials.enrol)
        ]
        if not test and questions.enrolments is not None:
            ids = questions.enrolments.utterances()
        return [questions.cuts[name] for name in ids]

    def _plda_scores(self, questions: Questions, side: Sequence[SideInformation]) -> Scored:
        plda, words = self._fitted_plda()
        embeddings = self._test.embeddings(questions.cuts.values())
        trials, voices = questions.trials, None
        test = _rows(embeddings, trials.ids, trials.test)
        if questions.enrolments is None:
            enrol = _rows(embeddings, trials.ids, trials.enrol)
        else:
            voices = [embeddings.rows(utterances) for utterances in questions.enrolments.voices.values()]
            enrol = _places(list(questions.enrolments.voices), trials.ids)[trials.enrol]
        scores = plda.score(embeddings.matrix, embeddings.matrix, enrol, test, voices)
        return Scored(scores, _side_information(questions, side), words)

    def _fitted_plda(self) -> tuple[Plda, str]:
        if self._plda is None:
            cuts, embeddings = self._source.train()
            plda = fit_plda(embeddings.matrix, [cut.supervisions[0].speaker for cut in cuts])
            words = f"PLDA fitted on {len(cuts):,} training utterances of {self._source.corpus.info.name}"
            if self._source is not self._test:
                own, known = self._test.train()
                plda = plda.adapted(known.matrix)
                words += f", adapted to {len(own):,} of {self.corpus.info.name}"
            self._plda = plda, words
        return self._plda


def _check_comparable(enrol: System, test: System, settings: ScoringSettings) -> None:
    """Refuse to enrol with one model and test with another whose embeddings mean something else."""
    if settings.backend == "plda":
        raise TrialError("PLDA asked for with another model to enrol; it takes one model for both sides: use cosine")
    if enrol.embedding_dim != test.embedding_dim:
        raise TrialError(
            f"{enrol.name} gives embeddings of {enrol.embedding_dim} numbers, {test.name} of {test.embedding_dim}: "
            "they cannot be compared; expected models with embeddings of one size"
        )
    if not enrol.goes_with(test):
        raise TrialError(
            f"embeddings of {enrol.name} and of {test.name} may not be compared: neither was trained to give the "
            "other's; expected a student of that very teacher, by embedding-level distillation without a projector"
        )


def _rows(embeddings: Embeddings, ids: Sequence[str], column: NDArray[np.int32]) -> NDArray[np.int32]:
    """Where the utterances of one side stand in the embeddings."""
    used = np.unique(column)
    rows = np.zeros(len(ids), np.int32)
    rows[used] = embeddings.rows([ids[row] for row in used])
    return rows[column]


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
