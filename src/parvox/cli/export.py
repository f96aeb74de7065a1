"""parvox export: a trained model to one ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from parvox.cli.operating import threshold_rows
from parvox.cli.parsing import call

if TYPE_CHECKING:
    from parvox.export import ExportResult


def export(
    run: Path,
    out: Path,
    precision: Literal["fp32", "int8"] = "fp32",
    read: Literal["class", "distillation", "both"] | None = None,
    corpus: Path | None = None,
    tolerance_eer: float = 0.5,
    calibration: Literal["auto", "minmax", "percentile", "mse"] = "auto",
    calibration_clips: int = 200,
    subtract_mean: bool = False,
    name: str | None = None,
    licence: str = "unspecified",
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Export a trained model to one ONNX file that needs no PyTorch: waveform in, embedding out.

    For example: parvox export runs/student student.onnx --precision int8

    The file is written only if it gives PyTorch's embeddings on real clips, and an int8 file only if the EER of the
    dev trials rises by no more than the tolerance.

    Args:
        run: Run folder, written by parvox train or parvox distill.
        out: The ONNX file to write.
        precision: fp32, or int8 for a quarter of the size and, mostly, twice the speed.
        read: Of a student with a distillation token, which token's state is the embedding; the recipe's by default.
        corpus: Prepared corpus for checks, calibration and thresholds; the one the model was trained on by default.
        tolerance_eer: Percentage points of EER, on the dev trials, that int8 may cost.
        calibration: How the ranges of int8 numbers are taken from clips; auto tries each way and keeps the best.
        calibration_clips: Training utterances that int8 ranges are taken from.
        subtract_mean: Subtract the training utterances' mean embedding before scoring, and put it into the file.
        name: What the model is to be called; the run folder's name by default.
        licence: Licence of the weights, as it is to stand in the file.
        overwrite: Replace an existing file.
        json: Print the result as one JSON object.
    """
    from dataclasses import asdict
    from json import dumps

    from parvox.export import export_model
    from parvox.training.run import load_run

    result = export_model(
        load_run(run).reading(read) if read else run,
        out,
        corpus=corpus,
        precision=precision,
        tolerance_eer=tolerance_eer,
        calibration=calibration,
        calibration_clips=calibration_clips,
        subtract_mean=subtract_mean,
        name=name,
        licence=licence,
        overwrite=overwrite,
    )
    if json:
        print(dumps({**asdict(result), "path": str(result.path)}, ensure_ascii=False))
    else:
        print(_summary(result))


def _summary(result: ExportResult) -> str:
    int8 = result.precision == "int8"
    rows = [
        ("file", f"{result.path}, {result.precision}, {result.bytes / 1e3:,.0f} kB"),
        ("parameters", f"{result.parameters / 1e6:.2f} M"),
        ("from PyTorch", f"cosine distance {result.pytorch_distance:.1g} at the most, on real clips"),
        (
            "speed",
            f"{result.milliseconds:.2f} ms for 3 s on one core"
            + (f" (fp32 {result.milliseconds_fp32:.2f} ms)" if int8 else ""),
        ),
    ]
    if result.eer is not None:
        before = f" (fp32 {100 * result.eer_fp32:.2f} %)" if int8 and result.eer_fp32 is not None else ""
        rows.append(("dev EER", f"{100 * result.eer:.2f} %{before}"))
    if result.int8_distance is not None:
        rows.append(
            ("from fp32", f"cosine distance {result.int8_distance:.2g} on average, {result.calibration} calibration")
        )
    if result.settled is not None:
        settled = result.settled
        rows += threshold_rows(
            settled.thresholds, settled.unsupported, settled.bands, settled.calibration, settled.default
        )
    rows += [("note", note) for note in result.notes]
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)


def main(argv: list[str]) -> None:
    """Run the command."""
    call(export, argv, prog="parvox export")
