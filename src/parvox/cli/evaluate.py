"""parvox evaluate: error rates with intervals, and a report."""

from __future__ import annotations

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
    keep_duplicates: bool = False,
    mean: Literal["model", "train", "none"] = "model",
    p_targets: list[float] | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    cache: Path | None = None,
    no_cache: bool = False,
    threads: int = 1,
    device: str | None = None,
    workers: int | None = None,
    title: str = "Speaker verification report",
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """EER and minDCF of one or more models on a prepared corpus, with intervals by speaker.

    For example: parvox evaluate prepared --models student.onnx runs/teacher --out report

    Args:
        corpus: Prepared corpus, a folder written by parvox prepare.
        models: Model files and run folders.
        out: Folder for report.html, results.json and results.csv; nothing is written without it.
        split: Whose utterances and trials: train, dev or test.
        trials: A trial list in VoxCeleb's format ('1 enrol-id test-id') instead of the split's own.
        keep_duplicates: Count trials twice that stand twice in the list, instead of refusing it.
        mean: What to subtract before scoring: the mean that the model file carries, that of the training split, or
            none.
        p_targets: Priors of the minDCF; 0.01 and 0.05 unless given.
        replicates: Bootstrap replicates for intervals; 0 for none.
        level: Confidence level of the intervals.
        seed: Of the bootstrap.
        cache: Folder to keep embeddings in; a folder of the user's own by default. Embeddings are biometric data.
        no_cache: Keep no embeddings.
        threads: Threads for model files.
        device: Where run folders compute (cpu, cuda); a GPU if there is one.
        workers: Loading processes; chosen by the processors at hand by default.
        title: Of the report.
        overwrite: Replace an existing out folder.
        json: Print the results as one JSON object.
    """
    from json import dumps

    from parvox.corpora.prepared import PreparedCorpus
    from parvox.evaluation.embeddings import default_cache
    from parvox.evaluation.evaluate import evaluate as run
    from parvox.evaluation.report import write_folder
    from parvox.evaluation.results import finite
    from parvox.files import refuse_overwrite

    if not models:
        raise ParvoxError("no model given; name one or more with --models, model files or run folders")
    if out is not None:
        refuse_overwrite(out, overwrite)  # before the work
    evaluation = run(
        models,
        PreparedCorpus.load(corpus),
        split=split,
        trials=trials,
        keep_duplicates=keep_duplicates,
        mean=mean,
        p_targets=p_targets or (0.01, 0.05),
        replicates=replicates,
        level=level,
        seed=seed,
        cache=None if no_cache else cache or default_cache(),
        threads=threads,
        device=device,
        workers=workers,
    )
    if out is not None:
        write_folder(out, evaluation, title=title, overwrite=overwrite)
    if json:
        print(dumps(finite(evaluation.to_dict()), ensure_ascii=False))
        return
    print(evaluation.summary())
    if out is not None:
        print(f"\nreport: {out / 'report.html'}")


def main(argv: list[str]) -> None:
    """Run the command."""
    call(evaluate, argv, prog="parvox evaluate")
