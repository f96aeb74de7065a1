"""From models and a prepared corpus to error rates with intervals."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from parvox.errors import TrialError
from parvox.evaluation.calibration import fit_calibration
from parvox.evaluation.enrolment import Enrolment
from parvox.evaluation.groups import DURATION, Groups, column_values, columns, group_trials
from parvox.evaluation.normalisation import Normalisation
from parvox.evaluation.questions import Questions, load_questions, training_notes
from parvox.evaluation.ranks import Ranks
from parvox.evaluation.results import Evaluation
from parvox.evaluation.score_evaluation import (
    About,
    MeasureSettings,
    Tuned,
    choose_thresholds,
    evaluate_scores,
)
from parvox.evaluation.scorer import Backend, Scored, Scorer, ScoringSettings, SideInformation
from parvox.evaluation.side import Mean
from parvox.evaluation.system import load_system, load_systems
from parvox.evaluation.trials import TrialIndex

if TYPE_CHECKING:
    from parvox.corpora.prepared import PreparedCorpus

SESSION = "session"

_USUAL_COLUMNS = (DURATION, "gender", "language", SESSION)


def evaluate(
    models: Sequence[Path],
    corpus: PreparedCorpus,
    *,
    split: str = "test",
    trials: Path | None = None,
    all_pairs: bool = False,
    keep_duplicates: bool = False,
    enrolments: Path | None = None,
    enrolment: Enrolment = "mean",
    enrol_with: Path | None = None,
    text_dependent: bool = False,
    backend: Backend = "cosine",
    plda_from: PreparedCorpus | None = None,
    mean: Mean = "model",
    normalisation: Normalisation = "none",
    top_k: int = 300,
    tune: str | None = None,
    calibrate: bool = False,
    side: Sequence[SideInformation] = (),
    p_targets: Sequence[float] = (0.01, 0.05),
    c_miss: float = 1.0,
    c_fa: float = 1.0,
    false_accept_rates: Sequence[float] = (0.01, 0.001),
    by: Sequence[str] | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    cache: Path | None = None,
    threads: int = 1,
    device: str | None = None,
    workers: int | None = None,
    processes: int = 1,
    ranks: Ranks | None = None,
    names: Sequence[str] | None = None,
) -> Evaluation:
    """Evaluate models on the trials of a corpus.

    Args:
        models: Model files, run folders, any other teacher of docs/teachers.md, and embeddings made before by
            `parvox embed`.
        corpus: What to evaluate on.
        split: Whose utterances and trials.
        trials: A trial list in VoxCeleb's format instead of the split's own.
        all_pairs: Try every pair of the split's utterances instead of a list.
        keep_duplicates: Count trials twice that stand twice in the list, instead of refusing it.
        enrolments: A list of voices and their utterances; the trials' first sides then name voices.
        enrolment: How several enrolment utterances become one voice.
        enrol_with: Another model for the enrolment sides of all trials, such as the teacher of a student that was
            trained to give its embeddings.
        text_dependent: The same speaker saying another text is a non-target.
        backend: Cosine, or PLDA fitted on the corpus's training utterances.
        plda_from: Another corpus to fit PLDA on; it is then adapted to the training utterances of this one, without
            their labels.
        mean: What to subtract from embeddings before scoring: the mean that the model file carries, the mean of the
            corpus's training utterances, or nothing.
        normalisation: Score normalisation against the corpus's training speakers.
        top_k: How many of the nearest cohort speakers AS-norm takes.
        tune: A split whose trials thresholds are chosen on, and calibrations fitted on, before they are judged on
            `split`. Without it thresholds are chosen on the very trials they are judged on.
        calibrate: Turn scores into log-likelihood ratios; needs `tune`.
        side: Side information that the calibration takes besides the score.
        p_targets: Priors of the minDCF.
        c_miss: Cost of a miss.
        c_fa: Cost of a false accept.
        false_accept_rates: Rates to choose thresholds for.
        by: Columns to break error rates down by; by default those of duration_s, gender, language and session that
            part the trials.
        replicates: Bootstrap replicates; 0 leaves intervals out.
        level: Confidence level of the intervals.
        seed: Of the bootstrap.
        cache: Folder to keep embeddings in; see `EmbeddingCache`.
        threads: Threads for model files.
        device: Where run folders compute, as PyTorch names it.
        workers: Loading processes.
        processes: Processes of this machine that embed.
        ranks: The processes that torchrun started. They share the embedding; then all but the first end.
        names: What to call the models, if not by their paths.

    Raises:
        ParvoxError: a model, the corpus or the trials cannot be used; the message says why.
    """
    settings = MeasureSettings(
        p_targets=p_targets,
        c_miss=c_miss,
        c_fa=c_fa,
        false_accept_rates=false_accept_rates,
        replicates=replicates,
        level=level,
        seed=seed,
    )
    scoring = ScoringSettings(
        backend=backend,
        plda_from=plda_from,
        mean=mean,
        normalisation=normalisation,
        top_k=top_k,
        enrolment=enrolment,
    )
    with contextlib.nullcontext() if ranks is None else ranks.together():
        _check_tuning(split, tune, calibrate, side)
        questions = load_questions(
            corpus,
            split,
            trials,
            enrolments,
            all_pairs=all_pairs,
            keep_duplicates=keep_duplicates,
            text_dependent=text_dependent,
        )
        groups = _groups(questions, by)
        tuning = None if tune is None else load_questions(corpus, tune, text_dependent=text_dependent)
        if tuning is not None:
            _check_strangers(tuning, questions)
        systems = load_systems(models, threads=threads, device=device)
        enrolling = None if enrol_with is None else load_system(enrol_with, threads=threads, device=device)
        all_systems = systems if enrolling is None else [*systems, enrolling]
        labels = [system.name for system in systems] if names is None else list(names)
        if len(labels) != len(systems) or len(set(labels)) != len(labels):
            raise TrialError(f"names {labels} given for {len(systems)} models; expected as many, all different")
        asked = [questions] if tuning is None else [questions, tuning]
        scorers = {}
        for name, system in zip(labels, systems, strict=True):
            with _named(name):
                scorers[name] = Scorer(
                    system,
                    corpus,
                    scoring,
                    enrol_with=enrolling,
                    cache=cache,
                    workers=workers,
                    processes=processes,
                    ranks=ranks,
                )
                for each in asked:
                    scorers[name].check(each, side)
    if ranks is not None:
        for name, scorer in scorers.items():
            with _named(name):
                scorer.embed(*asked)
        ranks.end_others()
    scores, words, tuned = {}, {}, {}
    for name in labels:
        with _named(name):
            scorer = scorers.pop(name)  # and its embeddings go
            scored = scorer.score(questions, side)
            if tuning is not None:
                tuned[name], scored = _tune(scorer, tuning, scored, settings, calibrate, side)
        scores[name], words[name] = scored.scores, scored.words
    about = About(
        corpus=corpus.info.name,
        corpus_fingerprint=corpus.info.fingerprint,
        synthetic=corpus.info.synthetic,
        split=split,
        systems=dict(zip(labels, systems, strict=True)),
        scoring=words,
        paths=questions.paths,
        notes=[*_notes(corpus, questions), *(system.note for system in all_systems if system.note)],
    )
    return evaluate_scores(
        scores, questions.trials, questions.speakers, settings, about=about, groups=groups, tuned=tuned
    )


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Put a system's name before what is wrong with its trials."""
    try:
        yield
    except TrialError as error:
        raise TrialError(f"{name}: {error}") from error


def _tune(
    scorer: Scorer,
    tuning: Questions,
    scored: Scored,
    settings: MeasureSettings,
    calibrate: bool,
    side: Sequence[SideInformation],
) -> tuple[Tuned, Scored]:
    """What the tuning trials settle, and the scores after it."""
    known = scorer.score(tuning, side)
    calibration, problem = None, ""
    if calibrate:
        fitted_on = f"{len(tuning.trials):,} {tuning.split} trials of {len(tuning.speakers.names)} speakers"
        try:
            calibration = fit_calibration(known.scores, tuning.trials.target, known.side, fitted_on=fitted_on)
        except TrialError as error:
            problem = str(error)
    if calibration is not None:
        known, scored = (
            Scored(calibration.apply(each.scores, each.side).astype(np.float32), each.side, f"{each.words}, calibrated")
            for each in (known, scored)
        )
    weights = settings.weights(len(tuning.speakers.names))
    thresholds = choose_thresholds(known.scores, tuning.trials, tuning.speakers, settings, weights)
    return Tuned(tuning.split, calibration, thresholds, problem), scored


def _groups(questions: Questions, by: Sequence[str] | None) -> list[Groups]:
    """The partitions wanted; voices have the value that all their enrolment utterances share."""
    known = columns(questions.cuts.values())
    found = []
    for column in [each for each in _USUAL_COLUMNS if each in known] if by is None else by:
        values = column_values(questions.cuts, column)
        if questions.enrolments is not None:
            for voice, utterances in questions.enrolments.voices.items():
                own = {values.get(utterance) for utterance in utterances}
                if column == DURATION:
                    values[voice] = sum(values[utterance] for utterance in utterances)
                elif len(own) == 1 and None not in own:
                    values[voice] = own.pop()
        groups = group_trials(questions.trials, values, column)
        if by is not None or len(groups.names) > 1:
            found.append(groups)
    return found


def _notes(corpus: PreparedCorpus, questions: Questions) -> list[str]:
    """What makes these trials easier than those to come."""
    notes = training_notes(corpus, questions)
    if questions.enrolments is not None:
        return notes
    return [*notes, *_pair_notes(questions.trials), *_session_notes(questions)]


def _pair_notes(trials: TrialIndex) -> list[str]:
    notes = []
    itself, again = trials.of_itself(), trials.reversed_again()
    if len(itself):
        notes.append(
            f"{len(itself):,} trials compare an utterance with itself, such as {trials.describe(itself[0])}: no model "
            "can get them wrong, so every rate looks better than it is. Leave them out."
        )
    if len(again):
        notes.append(
            f"{len(again):,} trials repeat another one the other way round, such as {trials.describe(again[0])}, and "
            "count twice."
        )
    return notes


def _session_notes(questions: Questions) -> list[str]:
    if SESSION not in columns(questions.cuts.values()):
        return []
    sessions = column_values(questions.cuts, SESSION)
    ids, trials = questions.trials.ids, questions.trials
    of_id = np.array([str(sessions.get(name, f"of {name}")) for name in ids])
    same = (of_id[trials.enrol] == of_id[trials.test])[trials.target].mean()
    if same < 0.5:
        return []
    share = "All" if same == 1 else f"{100 * same:.0f} % of the"
    return [
        f"{share} trials of the same speaker are within one session: room and microphone help to tell speakers apart, "
        "so expect more errors between sessions."
    ]


def _check_tuning(split: str, tune: str | None, calibrate: bool, side: Sequence[str]) -> None:
    if calibrate and tune is None:
        raise TrialError("calibration asked for without trials to fit it on; name a split of its own, such as tune dev")
    if side and not calibrate:
        raise TrialError(f"side information {', '.join(side)} given, but only a calibration uses it; add calibrate")
    if tune is not None and tune == split:
        raise TrialError(
            f"split {split} given to tune on and to evaluate on: what is fitted on trials looks better on them than "
            "it is; choose two splits"
        )


def _check_strangers(tuning: Questions, questions: Questions) -> None:
    shared = sorted(set(tuning.speakers.names) & set(questions.speakers.names))
    if shared:
        raise TrialError(
            f"{len(shared)} speakers are in the trials to tune on and in those to evaluate on, such as {shared[0]}; "
            "expected other speakers"
        )
