"""`parvox verify`."""

from __future__ import annotations

import json as json_format
import math
from pathlib import Path
from typing import TYPE_CHECKING

from parvox.cli.parsing import call

if TYPE_CHECKING:
    from parvox.runtime.verify import Decision

_CODES = {"accept": 0, "reject": 1, "refuse": 2}


def main(argv: list[str]) -> int:
    """Compare, print, and return 0 for accept, 1 for reject, 2 for no decision."""
    code: int = call(verify, argv, prog="parvox verify")
    return code


def verify(
    model: Path,
    first: Path,
    second: Path,
    *,
    enrol: list[Path] | None = None,
    operating_point: str | None = None,
    threshold: float | None = None,
    max_duration_s: float = 300.0,
    cut: bool = False,
    threads: int = 1,
    json: bool = False,
) -> int:
    """Say whether two recordings hold the same voice.

    parvox verify student.onnx a.wav b.flac

    WAV, FLAC, OGG and MP3, any rate, mono or stereo. Exit code: 0 accepted, 1 rejected, 2 no decision (too little
    speech, or something given cannot be used), so a shell script can say `if parvox verify ...`.

    Args:
        model: Model file written by parvox export.
        first: Recording of the enrolled voice.
        second: Recording to test.
        enrol: More recordings of the enrolled voice, averaged with the first.
        operating_point: Threshold of the model file to use, by name (parvox info lists them); its default if left out.
        threshold: Threshold of your own instead: scores at or above it are accepted.
        max_duration_s: Longest recording allowed.
        cut: Use the first max_duration_s of longer recordings instead of refusing them.
        threads: Threads to compute with.
        json: Print one JSON object.
    """
    from parvox.runtime.verify import verify_files

    decision = verify_files(
        model,
        [first, *(enrol or [])],
        second,
        operating_point=operating_point,
        threshold=threshold,
        max_duration_s=max_duration_s,
        cut=cut,
        threads=threads,
    )
    print(json_format.dumps(decision.to_dict(), allow_nan=False) if json else _text(decision))
    return _CODES[decision.decision]


def _text(decision: Decision) -> str:
    lines = [
        f"decision   {decision.decision}",
        f"reason     {decision.reason}",
        "score      " + ("none" if decision.score is None else f"{decision.score:.4f}"),
    ]
    if decision.llr is not None:
        lines.append(f"evidence   log-likelihood ratio {decision.llr:+.2f}: {_odds(decision.llr)}")
    lines.append(f"threshold  {decision.threshold:.4f}{_interval(decision)}  ({_where(decision)})")
    width = max(len(heard.name) for heard in decision.recordings)
    for index, heard in enumerate(decision.recordings):
        what = "speech" if index == 0 else ""
        lines.append(f"{what:<11}{heard.name:<{width}}  {heard.speech_s:5.1f} s of {heard.duration_s:.1f} s")
    lines.append(f"model      {decision.model} ({decision.precision}), fingerprint {decision.fingerprint[:12]}")
    lines.extend(f"note       {reason}" for reason in decision.reasons)
    return "\n".join(lines)


def _odds(llr: float) -> str:
    times = math.exp(abs(llr))
    if times < 1.05:
        return "as likely from one voice as from two"
    likelier, than = ("one voice", "two") if llr > 0 else ("two voices", "one")
    return f"{times:,.3g} times likelier from {likelier} than from {than}"


def _interval(decision: Decision) -> str:
    found = decision.threshold_interval
    return "" if found is None else f" [{found[0]:.4f}, {found[1]:.4f}]"


def _where(decision: Decision) -> str:
    if decision.operating_point is None:
        return "given"
    words = f"operating point {decision.operating_point}, {decision.band or 'any length'} of speech"
    if decision.false_accept_rate is not None and decision.false_reject_rate is not None:
        words += (
            f"; {decision.false_accept_rate:.2%} false accepts and {decision.false_reject_rate:.2%} false rejects "
            f"on {decision.source}"
        )
    return words
