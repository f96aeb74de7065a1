"""What an evaluation finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parvox.evaluation.breakdown import Breakdown
from parvox.evaluation.calibration_result import CalibrationResult
from parvox.evaluation.estimate import Estimate
from parvox.evaluation.hardest import HardTrial
from parvox.evaluation.kinds import KindResult
from parvox.evaluation.measures import DetCurve
from parvox.evaluation.thresholds import Threshold
from parvox.tables import aligned


@dataclass(frozen=True, eq=False)
class Histogram:
    """How scores are spread.

    Attributes:
        edges: (bins + 1,) scores.
        target: (bins,) share of the target scores in each bin.
        nontarget: (bins,) share of the non-target scores in each bin.
    """

    edges: NDArray[np.float64]
    target: NDArray[np.float64]
    nontarget: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DetBand:
    """A pointwise confidence band around a DET curve.

    Attributes:
        false_accept_rates: (rates,)
        low: (rates,) lower end of the miss rate.
        high: (rates,) upper end of the miss rate.
    """

    false_accept_rates: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class SystemResult:
    """One system on one trial list.

    Attributes:
        name: The system's name.
        path: Where it came from.
        kind: "model file" or "run folder".
        precision: "fp32" or "int8".
        fingerprint: SHA-256 of its weights.
        embedding_dim: Size of its embeddings.
        parameters: Its weights.
        macs_1s: Multiply-accumulates for one second; None where unknown.
        file_bytes: Size on disk; None for a run folder.
        synthetic: Whether it learned from synthetic voices; None where unknown.
        scoring: How scores were made, in words.
        eer: Equal error rate.
        eer_threshold: Where its two error rates are nearest to each other.
        min_dcf: By p_target.
        det: The curve.
        band: Its confidence band; None where unknown.
        histogram: The scores.
        scores: (trials,) in the order of the list; log-likelihood ratios where they are calibrated.
        thresholds: For wanted false-accept rates and costs.
        calibration: How well it holds; None where scores are not calibrated.
        uncalibrated: Why a calibration that was wanted could not be fitted; empty otherwise.
        breakdowns: By group of trials.
        kinds: Text-dependent trials by kind; empty elsewhere.
        hardest: The trials it gets most wrong.
    """

    name: str
    path: str
    kind: str
    precision: str
    fingerprint: str
    embedding_dim: int
    parameters: int
    macs_1s: int | None
    file_bytes: int | None
    synthetic: bool | None
    scoring: str
    eer: Estimate
    eer_threshold: float
    min_dcf: dict[float, Estimate]
    det: DetCurve = field(repr=False)
    band: DetBand | None = field(repr=False)
    histogram: Histogram = field(repr=False)
    scores: NDArray[np.float32] = field(repr=False)
    thresholds: Sequence[Threshold] = field(default=(), repr=False)
    calibration: CalibrationResult | None = field(default=None, repr=False)
    uncalibrated: str = ""
    breakdowns: Sequence[Breakdown] = field(default=(), repr=False)
    kinds: Sequence[KindResult] = field(default=(), repr=False)
    hardest: Sequence[HardTrial] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; curves and scores are left out."""
        return {
            "name": self.name,
            "path": self.path,
            "kind": self.kind,
            "precision": self.precision,
            "fingerprint": self.fingerprint,
            "embedding_dim": self.embedding_dim,
            "parameters": self.parameters,
            "macs_1s": self.macs_1s,
            "file_bytes": self.file_bytes,
            "synthetic": self.synthetic,
            "scoring": self.scoring,
            "eer": self.eer.to_dict(),
            "eer_threshold": self.eer_threshold,
            "min_dcf": {f"{p:g}": estimate.to_dict() for p, estimate in self.min_dcf.items()},
            "thresholds": [threshold.to_dict() for threshold in self.thresholds],
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "uncalibrated": self.uncalibrated,
            "breakdowns": [breakdown.to_dict() for breakdown in self.breakdowns],
            "kinds": [kind.to_dict() for kind in self.kinds],
            "hardest": [trial.to_dict() for trial in self.hardest],
        }


@dataclass(frozen=True)
class Difference:
    """The difference of two systems on the same trials, resampled in pairs.

    Attributes:
        system: The first one.
        other: What is subtracted.
        measure: "EER" or "minDCF(0.01)" and the like.
        difference: First minus other, with its interval.
        p_value: Two-sided, by the share of replicates on the other side of zero; None where unknown.
        wins: Trials that only the first system decides rightly, each at its threshold of equal error rates.
        losses: Trials that only the other one does.
    """

    system: str
    other: str
    measure: str
    difference: Estimate
    p_value: float | None
    wins: int = 0
    losses: int = 0

    @property
    def known(self) -> bool:
        """Whether there is an interval to judge it by."""
        return self.difference.interval is not None

    @property
    def significant(self) -> bool:
        """Whether the interval leaves zero out."""
        found = self.difference.interval
        return found is not None and (found.low > 0 or found.high < 0)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "system": self.system,
            "other": self.other,
            "measure": self.measure,
            **self.difference.to_dict(),
            "p_value": self.p_value,
            "significant": self.significant,
            "wins": self.wins,
            "losses": self.losses,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Systems on one trial list.

    Attributes:
        corpus: Name of the corpus.
        corpus_fingerprint: Its SHA-256.
        synthetic: Whether its speech is made rather than recorded.
        split: Which split the utterances are of.
        trials: Where the trial list came from.
        trials_sha256: Its hash.
        target_trials: How many.
        nontarget_trials: How many.
        speakers: How many speak in the trials.
        utterances: How many utterances the trials use.
        level: Of the intervals.
        replicates: Bootstrap replicates by speaker.
        seed: Of the bootstrap.
        c_miss: Cost of a miss in the detection cost.
        c_fa: Cost of a false accept.
        systems: The results, in the order given.
        differences: Between every two systems.
        notes: What a reader must know, a sentence each.
        environment: Parvox's version and commit, the machine, the date.
    """

    corpus: str
    corpus_fingerprint: str
    synthetic: bool
    split: str
    trials: str
    trials_sha256: str
    target_trials: int
    nontarget_trials: int
    speakers: int
    utterances: int
    level: float
    replicates: int
    seed: int
    c_miss: float
    c_fa: float
    systems: Sequence[SystemResult]
    differences: Sequence[Difference]
    notes: Sequence[str]
    environment: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """All but curves and scores, for JSON."""
        return {
            "corpus": self.corpus,
            "corpus_fingerprint": self.corpus_fingerprint,
            "synthetic": self.synthetic,
            "split": self.split,
            "trials": {
                "source": self.trials,
                "sha256": self.trials_sha256,
                "target": self.target_trials,
                "nontarget": self.nontarget_trials,
                "speakers": self.speakers,
                "utterances": self.utterances,
            },
            "settings": {
                "confidence_level": self.level,
                "bootstrap": "by speaker",
                "replicates": self.replicates,
                "seed": self.seed,
                "c_miss": self.c_miss,
                "c_fa": self.c_fa,
            },
            "systems": [system.to_dict() for system in self.systems],
            "differences": [difference.to_dict() for difference in self.differences],
            "notes": list(self.notes),
            "environment": self.environment,
        }

    def summary(self) -> str:
        """A few lines for people."""
        kind = "SYNTHETIC speech, " if self.synthetic else ""
        lines = [
            f"{self.corpus}, {self.split}: {kind}{self.speakers:,} speakers, {self.utterances:,} utterances, "
            f"{self.target_trials:,} target and {self.nontarget_trials:,} non-target trials",
            "",
        ]
        priors = list(self.systems[0].min_dcf)
        table = [["system", f"EER [{100 * self.level:g} %]", *(f"minDCF({p:g})" for p in priors), "threshold"]]
        table += [
            [
                system.name,
                system.eer.percent(),
                *(system.min_dcf[p].plain() for p in priors),
                f"{system.eer_threshold:.4f}",
            ]
            for system in self.systems
        ]
        lines += aligned(table)
        kinds = self.systems[0].kinds
        if kinds:
            table = [["EER against target-correct", *(f"{kind.kind} ({kind.trials:,})" for kind in kinds)]]
            table += [[system.name, *(kind.eer.percent() for kind in system.kinds)] for system in self.systems]
            lines += ["", *aligned(table)]
        for difference in self.differences:
            if difference.measure == "EER":
                words = " (differs)" if difference.significant else " (no clear difference)"
                lines.append(
                    f"  {quoted(difference.system)} minus {quoted(difference.other)}: "
                    f"EER {difference.difference.points()}{words if difference.known else ''}"
                )
        lines += ["", *(f"note: {note}" for note in self.notes)] if self.notes else []
        return "\n".join(lines)


def quoted(name: str) -> str:
    """A system's name within a sentence: names may hold commas."""
    return f"“{name}”"


def conjoined(names: Sequence[str]) -> str:
    """Systems' names within a sentence: “a”, “b” and “c”."""
    shown = [quoted(name) for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
