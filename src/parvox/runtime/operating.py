"""What a model file knows about deciding: thresholds by length of speech, and scores as evidence.

Short recordings score otherwise than long ones, so that one threshold means one false-accept rate for words and
another for sentences. A model file therefore has thresholds for bands of net speech, measured on trials of that band,
and tells of each wanted rate that its data could not support.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parvox.errors import ModelFileError
from parvox.runtime import contract_fields as fields

_HIGHEST = 1.001
_LARGEST = 1e6  # weight or offset; what is fitted on cosines stays far below
_MOST_EVIDENCE = 100.0  # natural logarithm; to show as much would take more speakers than there are people

SCORE, SHORTER, LONGER = "score", "log_shorter_s", "log_longer_s"
"""What a log-likelihood ratio may depend on: the cosine, and the logarithms of both sides' seconds of net speech."""


@dataclass(frozen=True)
class OperatingPoint:
    """A decision threshold and what it was measured on.

    Attributes:
        threshold: Scores at or above it are accepted.
        false_accept_rate: Share of non-target trials accepted, 0 to 1.
        false_reject_rate: Share of target trials rejected, 0 to 1.
        target_trials: How many target trials these rates rest on.
        nontarget_trials: How many non-target trials these rates rest on.
        source: The trials, in words.
        interval: Where the threshold would lie with other speakers (95 %); None where unknown.
        false_accept_interval: Of the false-accept rate, likewise.
        false_reject_interval: Of the false-reject rate, likewise.
        smallest_rate: The smallest false-accept rate that so many pairs of speakers can speak of; None where unknown.
    """

    threshold: float
    false_accept_rate: float
    false_reject_rate: float
    target_trials: int
    nontarget_trials: int
    source: str
    interval: tuple[float, float] | None = None
    false_accept_interval: tuple[float, float] | None = None
    false_reject_interval: tuple[float, float] | None = None
    smallest_rate: float | None = None

    def __post_init__(self) -> None:
        shares = (self.false_accept_rate, self.false_reject_rate, *(self.false_accept_interval or ()))
        shares += self.false_reject_interval or ()
        # Scores are cosines; rounding may take a threshold a little beyond the highest.
        if not abs(self.threshold) <= _HIGHEST or not all(0 <= share <= 1 for share in shares):
            raise ModelFileError(
                f"contract: an operating point at {self.threshold:g} with {self.false_accept_rate:g} false accepts and "
                f"{self.false_reject_rate:g} false rejects given; a cosine and shares from 0 to 1 are expected"
            )
        if self.interval is not None and not self.interval[0] <= self.interval[1]:
            raise ModelFileError(f"contract: an interval of {self.interval} given; a lower and an upper end expected")
        if min(self.target_trials, self.nontarget_trials) < 0:
            raise ModelFileError(
                f"contract: {self.target_trials} target and {self.nontarget_trials} non-target trials given; 0 or more "
                "are expected"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any], inside: str) -> OperatingPoint:
        """Read it from a contract's JSON, where it stands `inside`."""
        return cls(
            threshold=fields.field(values, "threshold", float, inside),
            false_accept_rate=fields.field(values, "false_accept_rate", float, inside),
            false_reject_rate=fields.field(values, "false_reject_rate", float, inside),
            target_trials=fields.field(values, "target_trials", int, inside),
            nontarget_trials=fields.field(values, "nontarget_trials", int, inside),
            source=fields.field(values, "source", str, inside),
            interval=fields.span(values, "interval", inside),
            false_accept_interval=fields.span(values, "false_accept_interval", inside),
            false_reject_interval=fields.span(values, "false_reject_interval", inside),
            smallest_rate=fields.optional(values, "smallest_rate", float, inside),
        )


@dataclass(frozen=True)
class DurationBand:
    """Thresholds for trials whose shorter side has so much speech.

    Attributes:
        from_s: Seconds of net speech, this or more.
        to_s: Less than this; None for no upper end.
        speakers: How many speak in its trials.
        target_trials: How many it was measured on.
        nontarget_trials: How many it was measured on.
        thresholds: Operating points by name.
        unsupported: Those that its trials cannot support: why, by name.
    """

    from_s: float
    to_s: float | None
    speakers: int
    target_trials: int
    nontarget_trials: int
    thresholds: Mapping[str, OperatingPoint] = field(default_factory=dict)
    unsupported: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """Its lengths: ``1 to 2 s``, ``less than 1 s``, ``16 s and more``."""
        if self.to_s is None:
            return f"{self.from_s:g} s and more"
        return f"{self.from_s:g} to {self.to_s:g} s" if self.from_s else f"less than {self.to_s:g} s"

    def holds(self, seconds: float) -> bool:
        """Whether so much speech belongs here."""
        return self.from_s <= seconds < (math.inf if self.to_s is None else self.to_s)

    @classmethod
    def from_dict(cls, values: dict[str, Any], inside: str) -> DurationBand:
        """Read it from a contract's JSON, where it stands `inside`."""
        return cls(
            from_s=fields.field(values, "from_s", float, inside),
            to_s=fields.optional(values, "to_s", float, inside),
            speakers=fields.field(values, "speakers", int, inside),
            target_trials=fields.field(values, "target_trials", int, inside),
            nontarget_trials=fields.field(values, "nontarget_trials", int, inside),
            thresholds=operating_points(values, inside),
            unsupported=fields.texts(values, "unsupported", inside),
        )


@dataclass(frozen=True)
class Evidence:
    """A score as a log-likelihood ratio.

    Attributes:
        llr: Natural logarithm: above zero speaks for one voice, below for two.
        note: What is to be known of it; empty if nothing.
    """

    llr: float
    note: str = ""


@dataclass(frozen=True)
class LlrMap:
    """A linear map from score and seconds of speech to a log-likelihood ratio.

    Nothing is claimed beyond what the trials behind it show: seconds are taken as the nearest of the range that it was
    fitted on, and the ratio ends where so few speakers could not have told it from a larger one.

    Attributes:
        weights: By name: ``score``, and ``log_shorter_s`` and ``log_longer_s`` where seconds tell something.
        offset: Added.
        ranges: Of each side information, the lowest and highest value it was fitted on.
        limits: The lowest and highest ratio that the speakers behind it can show.
        source: The trials, in words.
    """

    weights: Mapping[str, float]
    offset: float
    ranges: Mapping[str, tuple[float, float]]
    limits: tuple[float, float]
    source: str

    def __post_init__(self) -> None:
        unknown = sorted(set(self.weights) - {SCORE, SHORTER, LONGER})
        if SCORE not in self.weights or unknown or set(self.ranges) != set(self.weights) - {SCORE}:
            raise ModelFileError(
                f"contract: calibration with weights for {', '.join(self.weights) or 'nothing'} given; {SCORE} is "
                f"expected, {SHORTER} and {LONGER} are allowed, each of these two with a range"
            )
        if not all(abs(value) <= _LARGEST for value in (*self.weights.values(), self.offset)):
            raise ModelFileError(f"contract: calibration with weights beyond {_LARGEST:g} given; smaller ones expected")
        if not all(abs(end) <= _MOST_EVIDENCE for ends in (self.limits, *self.ranges.values()) for end in ends):
            raise ModelFileError(
                f"contract: calibration with limits or ranges beyond {_MOST_EVIDENCE:g} given; expected natural "
                "logarithms within that"
            )

    def evidence(self, score: float, enrol_s: float, test_s: float) -> Evidence:
        """The log-likelihood ratio of a score.

        Args:
            score: The cosine.
            enrol_s: Seconds of net speech of all enrolment recordings together.
            test_s: Seconds of net speech of the recording to test.
        """
        shorter, longer = (math.log(max(seconds, 1e-3)) for seconds in sorted((enrol_s, test_s)))
        total, notes = self.offset + self.weights[SCORE] * score, []
        for name, value in ((SHORTER, shorter), (LONGER, longer)):
            if name in self.weights:
                low, high = self.ranges[name]
                held = min(max(value, low), high)
                total += self.weights[name] * held
                if abs(held - value) > math.log(1.1):
                    notes.append(
                        f"fitted on {math.exp(low):.2g} to {math.exp(high):.2g} s of speech on that side, asked about "
                        f"{math.exp(value):.2g} s"
                    )
        low, high = self.limits
        if not low <= total <= high:
            notes.append("more evidence than so few speakers can show is not claimed")
        return Evidence(min(max(total, low), high), "; ".join(notes))

    @classmethod
    def from_dict(cls, values: dict[str, Any], inside: str = "calibration.") -> LlrMap:
        """Read it from a contract's JSON."""
        weights = fields.field(values, "weights", dict, inside)
        ranges = fields.field(values, "ranges", dict, inside)
        limits = fields.span(values, "limits", inside)
        ends = {name: fields.span(ranges, name, f"{inside}ranges.") for name in ranges}
        if limits is None or None in ends.values():
            raise ModelFileError("contract: calibration.limits or ranges are missing; export the model again")
        return cls(
            weights={name: fields.field(weights, name, float, f"{inside}weights.") for name in weights},
            offset=fields.field(values, "offset", float, inside),
            ranges={name: found for name, found in ends.items() if found is not None},
            limits=limits,
            source=fields.field(values, "source", str, inside),
        )


def operating_points(values: dict[str, Any], inside: str = "") -> dict[str, OperatingPoint]:
    """The field ``thresholds`` of a contract or band."""
    given, here = fields.field(values, "thresholds", dict, inside), f"{inside}thresholds."
    return {name: OperatingPoint.from_dict(fields.field(given, name, dict, here), f"{here}{name}.") for name in given}


def bands(values: dict[str, Any]) -> tuple[DurationBand, ...]:
    """The field ``bands`` of a contract; none where it was not yet written."""
    given = fields.optional(values, "bands", list) or []
    numbered = {str(number): value for number, value in enumerate(given)}
    return tuple(
        DurationBand.from_dict(fields.field(numbered, number, dict, "bands."), f"bands.{number}.")
        for number in numbered
    )


def check_bands(given: Sequence[DurationBand]) -> None:
    """Refuse bands that overlap, leave gaps, or are out of order.

    Raises:
        ModelFileError: they do.
    """
    for below, above in itertools.pairwise(given):
        if below.to_s != above.from_s:
            raise ModelFileError(
                f"contract: a band of {below.words} before one of {above.words} given; each is expected to begin "
                "where the one before ends"
            )
    for band in given:
        if band.from_s < 0 or (band.to_s is not None and not band.from_s < band.to_s):
            raise ModelFileError(
                f"contract: a band of {band.from_s:g} to {band.to_s} s given; rising ends are expected"
            )
