"""parvox calibrate: thresholds of a model file, chosen anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from parvox.cli.operating import threshold_rows
from parvox.cli.parsing import call

if TYPE_CHECKING:
    from parvox.evaluation.settle import Settled


def calibrate(
    model: Path,
    corpus: Path,
    out: Path,
    split: str = "dev",
    trials: Path | None = None,
    all_pairs: bool = False,
    keep_duplicates: bool = False,
    enrolments: Path | None = None,
    enrolment: Literal["mean", "scores", "quality"] = "mean",
    false_accept_rates: list[float] | None = None,
    p_targets: list[float] | None = None,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
    band_edges_s: list[float] | None = None,
    no_bands: bool = False,
    no_duration: bool = False,
    default: str | None = None,
    replicates: int = 1000,
    seed: int = 0,
    cache: Path | None = None,
    no_cache: bool = False,
    threads: int = 1,
    workers: int | None = None,
    processes: int = 1,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Write a model file with thresholds and calibration from recordings of your own.

    For example: parvox calibrate student.onnx mine student-mine.onnx --split all

    The weights stay as they are. Thresholds for equal error rates, for false-accept rates and for costs are chosen over
    all trials and for bands of net speech, each with an interval by resampling speakers; a rate that so few speakers
    cannot show gets none, and the file says why. A calibration turns scores into log-likelihood ratios.

    Args:
        model: Model file written by parvox export.
        corpus: Prepared corpus, a folder written by parvox prepare, of speakers that the model did not learn from.
        out: The model file to write.
        split: Whose utterances and trials: dev, test, or all for every utterance of the corpus in every pair.
        trials: A trial list in VoxCeleb's format ('1 enrol-id test-id') instead of the split's own.
        all_pairs: Try every pair of the split's utterances instead of a list.
        keep_duplicates: Count trials twice that stand twice in the list, instead of refusing it.
        enrolments: A list of lines 'voice-id utterance-id ...'; the trials' first sides then name voices.
        enrolment: How several utterances become one voice: mean of embeddings, mean of scores, or weighted by
            duration.
        false_accept_rates: Rates to choose thresholds for; 0.01 and 0.001 unless given.
        p_targets: Priors to choose thresholds of least cost for; 0.01 and 0.05 unless given.
        c_miss: Cost of a miss.
        c_fa: Cost of a false accept.
        band_edges_s: Seconds of net speech of the shorter side where one band ends and the next begins; 1, 2, 4, 8 and
            16 unless given.
        no_bands: One threshold for all lengths.
        no_duration: Keep seconds of speech out of the calibration.
        default: Operating point that the file uses unless another is named, such as far_1pct; eer unless given.
        replicates: Bootstrap replicates for intervals; 0 for none.
        seed: Of the bootstrap.
        cache: Folder to keep embeddings in; a folder of the user's own by default. Embeddings are biometric data.
        no_cache: Keep no embeddings.
        threads: Threads to compute with.
        workers: Loading processes; chosen by the processors at hand by default.
        processes: Processes that embed.
        overwrite: Replace an existing file.
        json: Print the thresholds as one JSON object.
    """
    from dataclasses import asdict
    from json import dumps

    from parvox.corpora.prepared import PreparedCorpus
    from parvox.evaluation.embeddings import default_cache
    from parvox.evaluation.settle import SettleSettings
    from parvox.evaluation.system import expect_there
    from parvox.export.recalibrate import recalibrate

    expect_there(model)
    usual = SettleSettings()
    settled = recalibrate(
        model,
        PreparedCorpus.load(corpus),
        out,
        split=split,
        trials=trials,
        all_pairs=all_pairs,
        keep_duplicates=keep_duplicates,
        enrolments=enrolments,
        enrolment=enrolment,
        settings=SettleSettings(
            false_accept_rates=false_accept_rates or usual.false_accept_rates,
            p_targets=p_targets or usual.p_targets,
            c_miss=c_miss,
            c_fa=c_fa,
            band_edges_s=() if no_bands else band_edges_s or usual.band_edges_s,
            duration=not no_duration,
            replicates=replicates,
            seed=seed,
        ),
        default=default,
        cache=None if no_cache else cache or default_cache(),
        threads=threads,
        workers=workers,
        processes=processes,
        overwrite=overwrite,
    )
    if json:
        print(dumps({"path": str(out), **asdict(settled)}, ensure_ascii=False))
    else:
        print(_summary(out, settled, default))


def _summary(out: Path, settled: Settled, default: str | None) -> str:
    rows = [
        ("file", str(out)),
        *threshold_rows(
            settled.thresholds,
            settled.unsupported,
            settled.bands,
            settled.calibration,
            default or settled.default,
        ),
        *(("note", note) for note in settled.notes),
    ]
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)


def main(argv: list[str]) -> None:
    """Run the command."""
    call(calibrate, argv, prog="parvox calibrate")
