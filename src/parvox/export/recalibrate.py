"""A model file with thresholds and calibration from other trials: the user's own, in most cases."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from parvox.corpora.prepared import PreparedCorpus
from parvox.errors import ModelFileError, nearest
from parvox.evaluation.enrolment import Enrolment
from parvox.evaluation.questions import Questions, load_questions, training_notes
from parvox.evaluation.scorer import Scorer, ScoringSettings
from parvox.evaluation.settle import Judged, Settled, SettleSettings, settle, source_words
from parvox.evaluation.speech import speech_seconds
from parvox.evaluation.system import load_system
from parvox.files import atomic_file, refuse_overwrite
from parvox.runtime.embedder import SpeakerEmbedder
from parvox.runtime.model_file import read_model_file, with_contract


def recalibrate(
    model: Path,
    corpus: PreparedCorpus,
    out: Path,
    *,
    split: str = "dev",
    trials: Path | None = None,
    all_pairs: bool = False,
    keep_duplicates: bool = False,
    enrolments: Path | None = None,
    enrolment: Enrolment = "mean",
    settings: SettleSettings | None = None,
    default: str | None = None,
    cache: Path | None = None,
    threads: int = 1,
    workers: int | None = None,
    processes: int = 1,
    overwrite: bool = False,
) -> Settled:
    """Write a copy of a model file whose thresholds and calibration come from these trials.

    Args:
        model: A model file.
        corpus: Recordings of speakers that the model did not learn from.
        out: The file to write.
        split: Whose utterances and trials; "all" takes every utterance of the corpus, and every pair of them.
        trials: A trial list in VoxCeleb's format instead of the split's own.
        all_pairs: Try every pair of the split's utterances instead of a list.
        keep_duplicates: Count trials twice that stand twice in the list, instead of refusing it.
        enrolments: A list of voices and their utterances; the trials' first sides then name voices.
        enrolment: How several enrolment utterances become one voice.
        settings: Which thresholds are wanted.
        default: The operating point that the file uses unless another is named; ``eer`` by default.
        cache: Folder to keep embeddings in.
        threads: Threads of the model's session.
        workers: Loading processes.
        processes: Processes that embed.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ParvoxError: the model, the corpus or the trials cannot be used, or `default` has no threshold.
    """
    refuse_overwrite(out, overwrite)
    wanted = (settings or SettleSettings()).names
    if default is not None and default not in wanted:
        raise ModelFileError(f"default {default!r} given: {nearest(default, wanted)}")
    data, contract = read_model_file(model)
    questions = load_questions(
        corpus,
        split,
        trials,
        enrolments,
        all_pairs=all_pairs,
        keep_duplicates=keep_duplicates,
    )
    system = load_system(model, threads=threads)
    scorer = Scorer(
        system, corpus, ScoringSettings(enrolment=enrolment), cache=cache, workers=workers, processes=processes
    )
    scored = scorer.score(questions)
    settled = settle(_judged(questions, scored.scores, corpus.info.synthetic, workers), settings)
    notes = training_notes(corpus, questions)
    if corpus.info.synthetic:
        notes.insert(0, "the corpus is synthetic: error rates and thresholds say nothing about real speech")
    settled = dataclasses.replace(settled, notes=(*notes, *settled.notes))
    chosen = default or settled.default
    if chosen is not None and chosen not in settled.thresholds:
        why = settled.unsupported.get(chosen)
        raise ModelFileError(
            f"default {chosen!r} given: {why or nearest(chosen, settled.thresholds)}".rstrip(".")
            + "; nothing was written: choose an operating point that these trials support"
        )
    changed = dataclasses.replace(
        contract,
        thresholds=settled.thresholds,
        unsupported=settled.unsupported,
        bands=settled.bands,
        calibration=settled.calibration,
        default_threshold=chosen,
    )
    with atomic_file(out, overwrite=overwrite) as temporary:
        temporary.write_bytes(with_contract(data, changed))
        SpeakerEmbedder.load(temporary)
    return settled


def _judged(questions: Questions, scores: np.ndarray, synthetic: bool, workers: int | None) -> Judged:
    trials, speakers = questions.trials, questions.speakers
    enrol_s, test_s = questions.sides(speech_seconds(questions.cuts.values(), workers))
    source = source_words(trials, len(speakers.names), synthetic)
    return Judged(scores, trials.target, speakers.enrol, speakers.test, enrol_s, test_s, source)
