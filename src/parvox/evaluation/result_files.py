"""An evaluation as JSON and CSV."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

from parvox.evaluation.estimate import Estimate
from parvox.evaluation.results import Evaluation
from parvox.files import atomic_file


def write_json(path: Path, evaluation: Evaluation, *, overwrite: bool = False) -> None:
    """Write what `Evaluation.to_dict` gives.

    Raises:
        OutputError: `path` exists and `overwrite` is false, or it cannot be written.
    """
    with atomic_file(path, overwrite=overwrite) as temporary:
        text = json.dumps(finite(evaluation.to_dict()), indent=2, allow_nan=False, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def write_csv(path: Path, evaluation: Evaluation, *, overwrite: bool = False) -> None:
    """Write one row a system, with all that tells where it came from.

    Raises:
        OutputError: `path` exists and `overwrite` is false, or it cannot be written.
    """
    rows = []
    for system in evaluation.systems:
        row: dict[str, Any] = {
            "system": system.name,
            "corpus": evaluation.corpus,
            "synthetic": evaluation.synthetic,
            "split": evaluation.split,
            "trials_sha256": evaluation.trials_sha256,
            "target_trials": evaluation.target_trials,
            "nontarget_trials": evaluation.nontarget_trials,
            "speakers": evaluation.speakers,
            "parameters": system.parameters,
            "precision": system.precision,
            "scoring": system.scoring,
            **_columns("eer", system.eer),
            "eer_threshold": system.eer_threshold,
        }
        for p, estimate in system.min_dcf.items():
            row |= _columns(f"min_dcf_{p:g}", estimate)
        for kind in system.kinds:
            row |= _columns(f"eer_{kind.kind}", kind.eer)
        row |= {"level": evaluation.level, "replicates": evaluation.replicates, "seed": evaluation.seed}
        rows.append(row | evaluation.environment)
    with (
        atomic_file(path, overwrite=overwrite) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def finite(value: Any) -> Any:
    """`value` with NaN and infinities replaced by None, which JSON can say."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _columns(name: str, estimate: Estimate) -> dict[str, float | None]:
    values = estimate.to_dict()
    return {name: values["value"], f"{name}_low": values["low"], f"{name}_high": values["high"]}
