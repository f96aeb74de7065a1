"""Thresholds, bands and calibration of a model file as lines for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from parvox.runtime.operating import DurationBand, LlrMap, OperatingPoint


def threshold_rows(
    thresholds: Mapping[str, OperatingPoint],
    unsupported: Mapping[str, str],
    bands: Sequence[DurationBand],
    calibration: LlrMap | None,
    default: str | None,
) -> list[tuple[str, str]]:
    """Pairs of label and text: the thresholds of all lengths, of each band, and the calibration."""
    rows = []
    if not thresholds:
        rows.append(("thresholds", "none: give parvox verify one with --threshold, or see parvox calibrate"))
    else:
        first = next(iter(thresholds.values()))
        rows.append(
            (
                "thresholds",
                f"any length of speech, {first.target_trials:,} target and {first.nontarget_trials:,} non-target "
                f"trials: {first.source}",
            )
        )
        rows += [("", f"  {line}") for line in _lines(thresholds, unsupported, default)]
    for band in bands:
        if not band.thresholds:
            why = next(iter(band.unsupported.values()), "Unknown: nothing was measured.")
            rows.append(("", f"{band.words} of speech: {why[0].lower()}{why[1:]}"))
            continue
        trials = f"{band.target_trials:,} target and {band.nontarget_trials:,} non-target trials"
        rows.append(("", f"{band.words} of speech, {trials} of {band.speakers} speakers"))
        rows += [("", f"  {line}") for line in _lines(band.thresholds, band.unsupported, default)]
    if calibration is not None:
        rows.append(("calibration", f"{_formula(calibration)}, {calibration.source}"))
    return rows


def _lines(points: Mapping[str, OperatingPoint], unsupported: Mapping[str, str], default: str | None) -> list[str]:
    width = max(len(name) for name in (*points, *unsupported)) + 10 * (default in points)
    lines = []
    for name, point in sorted(points.items(), key=lambda item: item[1].threshold):
        shown = f"{name} (default)" if name == default else name
        spread = "" if point.interval is None else f" [{point.interval[0]:.4f}, {point.interval[1]:.4f}]"
        lines.append(
            f"{shown:<{width}}  {point.threshold:.4f}{spread}: "
            f"{_rate(point.false_accept_rate, point.false_accept_interval)} false accepts, "
            f"{_rate(point.false_reject_rate, point.false_reject_interval)} false rejects"
        )
    return [*lines, *(f"{name:<{width}}  {why[0].lower()}{why[1:]}" for name, why in unsupported.items())]


def _rate(rate: float, spread: tuple[float, float] | None) -> str:
    return f"{rate:.2%}" if spread is None else f"{rate:.2%} [{100 * spread[0]:.2f}, {100 * spread[1]:.2f}]"


def _formula(calibration: LlrMap) -> str:
    words = {"score": "score", "log_shorter_s": "log(shorter side's s)", "log_longer_s": "log(longer side's s)"}
    terms = [f"{weight:+.3g} {words[name]}" for name, weight in calibration.weights.items()]
    low, high = calibration.limits
    return (
        f"log-likelihood ratio = {' '.join(terms).lstrip('+')} {calibration.offset:+.3g}, held within "
        f"{low:.3g} and {high:.3g}"
    )
