"""What a run writes down while it trains: a CSV table by epoch, and TensorBoard."""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path
from typing import Any

from parvox.errors import OutputError
from parvox.files import atomic_file, output_errors
from parvox.training.run import METRICS, TENSORBOARD


class RunLog:
    """Metrics of a run, by epoch.

    Args:
        folder: The run folder.
        rows: Rows of the epochs that a resumed run has done already.
    """

    def __init__(self, folder: Path, rows: list[dict[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = folder / METRICS
        self.rows = rows
        try:
            str(folder).encode()
        except UnicodeEncodeError as error:
            raise OutputError(f"{str(folder)!a} is not UTF-8, which TensorBoard needs; choose another name") from error
        with output_errors(folder):
            purge = int(rows[-1]["step"]) + 1 if rows else 0
            self._writer = SummaryWriter(str(folder / TENSORBOARD), purge_step=purge)

    def epoch(self, row: dict[str, Any]) -> None:
        """Write down one epoch.

        Args:
            row: `epoch`, `step` and whatever was measured; missing measurements are left out.
        """
        self.rows.append(row)
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with atomic_file(self._path, overwrite=True) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
        with output_errors(self._path.parent):
            for name, value in row.items():
                if name not in ("epoch", "step"):
                    self._writer.add_scalar(name, value, row["step"])
            self._writer.flush()

    def close(self) -> None:
        """Finish writing, as far as the disk lets it: TensorBoard's files are for looking at, nothing reads them."""
        with contextlib.suppress(OSError):
            self._writer.close()
