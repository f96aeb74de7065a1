"""parvox evaluate: error rates with intervals, and a report."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

from parvox.cli.parsing import call
from parvox.errors import ParvoxError


def evaluate(
    corpus: Path,
    models: list[Path] | None = None,
    out: Path | None = None,
    split: str = "test",
    trials: Path | None = None,
    all_pairs: bool = False,
    keep_duplicates: bool = False,
    enrolments: Path | None = None,
    enrolment: Literal["mean", "scores", "quality"] = "mean",
    enrol_with: Path | None = None,
    text_dependent: bool = False,
    backend: Literal["cosine", "plda"] = "cosine",
    plda_from: Path | None = None,
    mean: Literal["model", "train", "none"] = "model",
    normalisation: Literal["none", "znorm", "tnorm", "snorm", "asnorm"] = "none",
    top_k: int = 300,
    tune: str | None = None,
    calibrate: bool = False,
    side: list[Literal["duration", "enrolments", "cohort"]] | None = None,
    p_targets: list[float] | None = None,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
    false_accept_rates: list[float] | None = None,
    by: list[str] | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    cache: Path | None = None,
    no_cache: bool = False,
    threads: int = 1,
    device: str | None = None,
    workers: int | None = None,
    processes: int = 1,
    title: str = "Speaker verification report",
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """EER, minDCF, thresholds and breakdowns of one or more models on a prepared corpus, with intervals by speaker.

    For example: parvox evaluate prepared --models student.onnx runs/teacher --out report; or, with recordings that
    serve for nothing else: parvox evaluate prepared --models student.onnx --split all --out report

    For several GPUs or machines start it with torchrun: all embed, the first scores and reports.

    Args:
        corpus: Prepared corpus, a folder written by parvox prepare.
        models: Model files, run folders, any other teacher that parvox distill takes, and files of embeddings (.npz)
            written by parvox embed.
        out: Folder for report.html, results.json and results.csv; nothing is written without it.
        split: Whose utterances and trials: train, dev, test, or all for every pair of the whole corpus.
        trials: A trial list in VoxCeleb's format ('1 enrol-id test-id') instead of the split's own.
        all_pairs: Try every pair of the split's utterances instead of a list.
        keep_duplicates: Count trials twice that stand twice in the list, instead of refusing it.
        enrolments: A list of lines 'voice-id utterance-id ...'; the trials' first sides then name voices.
        enrolment: How several utterances become one voice: mean of embeddings, mean of scores, or weighted by
            duration.
        enrol_with: Another model for the enrolment sides, such as the teacher of a student that was trained to give
            its embeddings.
        text_dependent: The same speaker saying another text is a non-target; results by kind of trial.
        backend: cosine, or plda fitted on the training split.
        plda_from: Another prepared corpus to fit plda on; it is then adapted to this one's training split.
        mean: What to subtract before scoring: the mean that the model file carries, that of the training split, or
            none.
        normalisation: Score normalisation against the training speakers.
        top_k: How many of the nearest training speakers asnorm takes.
        tune: A split to choose thresholds and fit calibrations on, such as dev; without it thresholds are chosen on
            the very trials they are judged on.
        calibrate: Turn scores into log-likelihood ratios, fitted on the split to tune on.
        side: What the calibration takes besides the score: duration, enrolments, cohort.
        p_targets: Priors of the minDCF; 0.01 and 0.05 unless given.
        c_miss: Cost of a miss.
        c_fa: Cost of a false accept.
        false_accept_rates: Rates to choose thresholds for; 0.01 and 0.001 unless given.
        by: Columns to break error rates down by; duration_s, gender, language and session unless given.
        replicates: Bootstrap replicates for intervals; 0 for none.
        level: Confidence level of the intervals.
        seed: Of the bootstrap.
        cache: Folder to keep embeddings in; a folder of the user's own by default. Embeddings are biometric data.
        no_cache: Keep no embeddings.
        threads: Threads for model files.
        device: Where run folders and teachers compute (cpu, cuda); a GPU if there is one.
        workers: Loading processes; chosen by the processors at hand by default.
        processes: Processes of this machine that embed, each with the model in memory.
        title: Of the report.
        overwrite: Replace an existing out folder.
        json: Print the results as one JSON object.
    """
    from json import dumps

    from parvox.corpora.prepared import PreparedCorpus
    from parvox.evaluation.embeddings import default_cache
    from parvox.evaluation.evaluate import evaluate as run
    from parvox.evaluation.ranks import Ranks
    from parvox.evaluation.report import refuse_folder, write_folder
    from parvox.evaluation.result_files import finite
    from parvox.evaluation.system import expect_there

    if not models:
        raise ParvoxError("no model given; name one or more with --models, model files or run folders")
    expect_there(*models, *([] if enrol_with is None else [enrol_with]))
    if out is not None:
        refuse_folder(out, overwrite)  # before the work
    ranks = Ranks.join(device)
    with contextlib.nullcontext() if ranks is None else ranks.together():
        prepared = PreparedCorpus.load(corpus)
        other = None if plda_from is None else PreparedCorpus.load(plda_from)
    evaluation = run(
        models,
        prepared,
        split=split,
        trials=trials,
        all_pairs=all_pairs,
        keep_duplicates=keep_duplicates,
        enrolments=enrolments,
        enrolment=enrolment,
        enrol_with=enrol_with,
        text_dependent=text_dependent,
        backend=backend,
        plda_from=other,
        mean=mean,
        normalisation=normalisation,
        top_k=top_k,
        tune=tune,
        calibrate=calibrate,
        side=side or (),
        p_targets=p_targets or (0.01, 0.05),
        c_miss=c_miss,
        c_fa=c_fa,
        false_accept_rates=false_accept_rates or (0.01, 0.001),
        by=by,
        replicates=replicates,
        level=level,
        seed=seed,
        cache=None if no_cache else cache or default_cache(),
        threads=threads,
        device=device if ranks is None else ranks.device,
        workers=workers,
        processes=processes,
        ranks=ranks,
    )
    # Printed first: should the folder not be writable after all, the work is not lost.
    print(dumps(finite(evaluation.to_dict()), ensure_ascii=False) if json else evaluation.summary(), flush=True)
    if out is not None:
        write_folder(out, evaluation, title=title, overwrite=overwrite)
        if not json:
            print(f"\nreport: {out / 'report.html'}")


def main(argv: list[str]) -> None:
    """Run the command."""
    call(evaluate, argv, prog="parvox evaluate")
