"""`parvox demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from parvox.cli.parsing import call


def demo(
    *,
    out: Path = Path("demo"),
    corpus: Path | None = None,
    size: Literal["full", "small"] = "full",
    seed: int = 1,
    offline: bool = False,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Show the whole way: teach, distil, measure, ship, verify.

    Takes a corpus, trains a teacher, distils a student from it and trains the same student alone, evaluates all on
    speakers none of them heard, exports the student to one ONNX file, fp32 and int8, and verifies two pairs of
    recordings with it. Called again, it goes on where it stopped.

    Args:
        out: Folder for everything it makes.
        corpus: Folder of recordings with manifests; by default $PARVOX_CORPUS, else a small public corpus is
            downloaded, else synthetic voices are made.
        size: full takes about five minutes on two cores; small is a quick check of every step, with poor accuracy.
        seed: Decides the split, weights and every random draw.
        offline: Do not use the network.
        overwrite: Begin anew instead of going on.
        json: Print the table as JSON.
    """
    from parvox.demo import run_demo

    run_demo(out, corpus=corpus, size=size, seed=seed, offline=offline, overwrite=overwrite, as_json=json)


def main(argv: list[str]) -> None:
    """Parse the arguments and run the demo."""
    call(demo, argv, prog="parvox demo")
