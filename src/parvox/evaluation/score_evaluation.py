"""From scores to everything that can be said of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from parvox.errors import TrialError
from parvox.evaluation.bootstrap import Replicates, bootstrap
from parvox.evaluation.breakdown import break_down
from parvox.evaluation.calibration import Calibration
from parvox.evaluation.calibration_result import judge_calibration
from parvox.evaluation.comparison import differences
from parvox.evaluation.environment import environment
from parvox.evaluation.estimate import Estimate
from parvox.evaluation.groups import Groups
from parvox.evaluation.hardest import hardest_trials
from parvox.evaluation.kinds import measure_kinds
from parvox.evaluation.measures import ScoreSet, check_finite
from parvox.evaluation.rates import error_rates, smallest_rate
from parvox.evaluation.resampling import MIN_SPEAKERS, Weights, check_resampling, interval, speaker_weights
from parvox.evaluation.results import DetBand, Evaluation, Histogram, SystemResult, conjoined, quoted
from parvox.evaluation.system import System
from parvox.evaluation.thresholds import (
    Threshold,
    check_wishes,
    threshold_at_cost,
    threshold_at_false_accept_rate,
)
from parvox.evaluation.trials import Speakers, TrialIndex
from parvox.progress import progress

_BAND_RATES = 60
_HISTOGRAM_BINS = 60


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """What is measured, and how sure one wants to be."""

    p_targets: Sequence[float] = (0.01, 0.05)
    """Priors of the minDCF."""
    c_miss: float = 1.0
    """Cost of a miss."""
    c_fa: float = 1.0
    """Cost of a false accept."""
    false_accept_rates: Sequence[float] = (0.01, 0.001)
    """Rates to choose thresholds for."""
    replicates: int = 1000
    """Bootstrap replicates by speaker; 0 leaves intervals out."""
    level: float = 0.95
    """Confidence level of the intervals."""
    seed: int = 0
    """Of the bootstrap."""
    hardest: int = 20
    """How many of the hardest trials to list."""

    def __post_init__(self) -> None:
        check_resampling(self.replicates, self.level, self.seed)
        check_wishes(self.false_accept_rates, self.p_targets, self.c_miss, self.c_fa)

    def weights(self, speakers: int) -> Weights | None:
        """Bootstrap weights for so many speakers; None where intervals are unknown or unwanted."""
        if not self.replicates or speakers < MIN_SPEAKERS:
            return None
        return speaker_weights(speakers, self.replicates, self.seed)


@dataclass(frozen=True)
class Tuned:
    """What was settled for a system on other trials.

    Attributes:
        split: Whose trials.
        calibration: What turned its scores into log-likelihood ratios; None if they are not.
        thresholds: Chosen there.
        uncalibrated: Why a calibration that was wanted could not be fitted; empty otherwise.
    """

    split: str
    calibration: Calibration | None = None
    thresholds: Sequence[Threshold] = ()
    uncalibrated: str = ""


@dataclass(frozen=True, kw_only=True)
class About:
    """What the report says of where scores came from.

    Attributes:
        corpus: Name of the corpus.
        corpus_fingerprint: Its SHA-256.
        synthetic: Whether its speech is made rather than recorded.
        split: Whose utterances.
        systems: What made the scores, by system.
        scoring: How, in words, by system.
        paths: The recording of each utterance.
        notes: What a reader must know, a sentence each.
    """

    corpus: str = ""
    corpus_fingerprint: str = ""
    synthetic: bool = False
    split: str = ""
    systems: Mapping[str, System] = field(default_factory=dict)
    scoring: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def evaluate_scores(
    scores: Mapping[str, NDArray[np.float32]],
    trials: TrialIndex,
    speakers: Speakers,
    settings: MeasureSettings | None = None,
    *,
    about: About | None = None,
    groups: Sequence[Groups] = (),
    tuned: Mapping[str, Tuned] | None = None,
) -> Evaluation:
    """Evaluate scores, wherever they come from.

    Args:
        scores: By system, (trials,) in the order of the list; higher means more alike.
        trials: The trials.
        speakers: Who speaks in them.
        settings: What to measure.
        about: Where the scores came from.
        groups: Partitions to break error rates down by.
        tuned: What was settled on other trials, by system; without it thresholds are chosen on these very trials.

    Raises:
        TrialError: from these scores nothing sound can be computed; the message says why.
    """
    settings, about, tuned = settings or MeasureSettings(), about or About(), tuned or {}
    for kind, number in (("target", trials.targets), ("non-target", trials.nontargets)):
        if not number:
            raise TrialError(
                f"{trials.name}: none of its {len(trials)} trials is a {kind} trial; error rates need both kinds"
            )
    count = len(speakers.names)
    weights = settings.weights(count)
    rates = band_rates(trials.nontargets)
    resampled: dict[str, Replicates] = {}
    results = []
    for name, values in progress(scores.items(), "measure", total=len(scores), unit="system"):
        if len(values) != len(trials):
            raise TrialError(f"{name}: {len(values)} scores for {len(trials)} trials given; expected one each")
        check_finite(values, f"scores of {name}")
        if weights is not None:
            resampled[name] = bootstrap(
                values,
                trials.target,
                speakers.enrol,
                speakers.test,
                weights,
                p_targets=settings.p_targets,
                c_miss=settings.c_miss,
                c_fa=settings.c_fa,
                false_accept_rates=rates,
            )
        results.append(
            _result(
                name, values, trials, speakers, resampled.get(name), weights, settings, about, groups, tuned.get(name)
            )
        )
    notes = list(about.notes)
    if settings.replicates and weights is None:
        notes.append(
            f"{count} speakers are too few to say how sure these figures are; intervals need {MIN_SPEAKERS} or more."
        )
    notes += _zero_error_notes(results, trials, count)
    notes += [
        f"{quoted(system.name)} is not calibrated: {system.uncalibrated}. What its scores claim is unknown; its error "
        "rates hold."
        for system in results
        if system.uncalibrated
    ]
    return Evaluation(
        corpus=about.corpus,
        corpus_fingerprint=about.corpus_fingerprint,
        synthetic=about.synthetic,
        split=about.split,
        trials=trials.name,
        trials_sha256=trials.sha256,
        target_trials=trials.targets,
        nontarget_trials=trials.nontargets,
        speakers=count,
        utterances=len(trials.ids),
        level=settings.level,
        replicates=settings.replicates,
        seed=settings.seed,
        c_miss=settings.c_miss,
        c_fa=settings.c_fa,
        systems=results,
        differences=differences(results, resampled, trials, settings.level),
        notes=notes,
        environment=environment(),
    )


def choose_thresholds(
    scores: NDArray[np.float32],
    trials: TrialIndex,
    speakers: Speakers,
    settings: MeasureSettings,
    weights: Weights | None,
    replicates: Replicates | None = None,
) -> list[Threshold]:
    """Thresholds for the wanted false-accept rates and for the costs.

    Args:
        scores: (trials,)
        trials: The trials to choose them on.
        speakers: Who speaks in them.
        settings: The rates and costs.
        weights: From `MeasureSettings.weights`.
        replicates: Of the same scores and costs, if they are at hand.
    """
    columns = scores, trials.target, speakers.enrol, speakers.test
    found = [
        threshold_at_false_accept_rate(*columns, rate, weights, settings.level) for rate in settings.false_accept_rates
    ]
    found += [
        threshold_at_cost(*columns, p, settings.c_miss, settings.c_fa, weights, settings.level, replicates)
        for p in settings.p_targets
    ]
    return [dataclasses.replace(threshold, chosen_on=trials.name) for threshold in found]


def band_rates(nontargets: int) -> NDArray[np.float64]:
    """False-accept rates at which a DET band is drawn, even on a probit axis, up to one half."""
    return np.asarray(ndtr(np.linspace(ndtri(0.5 / nontargets), 0.0, _BAND_RATES)))


def _result(
    name: str,
    values: NDArray[np.float32],
    trials: TrialIndex,
    speakers: Speakers,
    resampled: Replicates | None,
    weights: Weights | None,
    settings: MeasureSettings,
    about: About,
    groups: Sequence[Groups],
    tuned: Tuned | None,
) -> SystemResult:
    scores = ScoreSet.from_labels(values, trials.target)
    costs, level = (settings.p_targets, settings.c_miss, settings.c_fa), settings.level
    threshold = scores.eer_point().threshold
    columns = values, trials.target, speakers.enrol, speakers.test
    min_dcf = {}
    for p in settings.p_targets:
        spread = None if resampled is None else interval(resampled.min_dcf[p], level)
        min_dcf[p] = Estimate(scores.min_dcf(p, settings.c_miss, settings.c_fa), spread)
    if tuned is None:
        thresholds = choose_thresholds(values, trials, speakers, settings, weights, resampled)
    else:
        thresholds = [
            each
            if each.threshold is None
            else dataclasses.replace(each, rates=error_rates(*columns, each.threshold, weights, level))
            for each in tuned.thresholds
        ]
    calibration = None
    if tuned is not None and tuned.calibration is not None:
        calibration = judge_calibration(tuned.calibration, *columns, *costs, weights, level)
    system = about.systems.get(name)
    return SystemResult(
        name=name,
        path="" if system is None else str(system.path),
        kind="scores" if system is None else system.kind,
        precision="" if system is None else system.precision,
        fingerprint="" if system is None else system.fingerprint,
        embedding_dim=0 if system is None else system.embedding_dim,
        parameters=0 if system is None else system.parameters,
        macs_1s=None if system is None else system.macs_1s,
        file_bytes=None if system is None else system.file_bytes,
        synthetic=None if system is None else system.synthetic,
        scoring=about.scoring.get(name, ""),
        eer=Estimate(scores.eer(), None if resampled is None else interval(resampled.eer, level)),
        eer_threshold=threshold,
        min_dcf=min_dcf,
        det=scores.det_curve(),
        band=_band(resampled, level),
        histogram=_histogram(values, trials.target),
        scores=values,
        thresholds=thresholds,
        calibration=calibration,
        uncalibrated="" if tuned is None else tuned.uncalibrated,
        breakdowns=[break_down(name, values, trials, speakers, each, threshold, weights, level) for each in groups],
        kinds=measure_kinds(
            values, trials, speakers, settings.p_targets, settings.c_miss, settings.c_fa, weights, level
        ),
        hardest=hardest_trials(values, trials, threshold, about.paths, settings.hardest),
    )


def _band(resampled: Replicates | None, level: float) -> DetBand | None:
    if resampled is None or resampled.miss_rates is None or resampled.false_accept_rates is None:
        return None
    if interval(resampled.eer, level) is None:
        return None
    known = resampled.miss_rates[np.isfinite(resampled.miss_rates).all(axis=1)]
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return DetBand(resampled.false_accept_rates, low, high)


def _histogram(values: NDArray[np.float32], target: NDArray[np.bool_]) -> Histogram:
    fine = values.astype(np.float64)  # scores that are nearly all the same leave no room for edges between them
    edges = np.histogram_bin_edges(fine, _HISTOGRAM_BINS)
    parts = [np.histogram(part, edges)[0] / len(part) for part in (fine[target], fine[~target])]
    return Histogram(edges, *parts)


def _zero_error_notes(results: Sequence[SystemResult], trials: TrialIndex, speakers: int) -> list[str]:
    """Where a system made no error at all, resampling cannot show how many it may make."""
    clean = [system.name for system in results if system.eer.value == 0]
    if not clean:
        return []
    return [
        f"{conjoined(clean)}: no error in {len(trials):,} trials. That does not mean none will come: with {speakers} "
        f"speakers, the share of speakers that meet one may be up to {100 * smallest_rate(speakers):.1f} % "
        "(95 % confidence)."
    ]
