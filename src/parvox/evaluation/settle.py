"""What a model file carries for deciding: thresholds by length of speech and a calibration, from scored trials."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parvox.errors import TrialError
from parvox.evaluation.bootstrap import Replicates, bootstrap
from parvox.evaluation.calibration import fit_calibration
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.rates import distinct_pairs, error_rates, smallest_rate
from parvox.evaluation.resampling import MIN_SPEAKERS, Interval, Weights, check_resampling, interval, speaker_weights
from parvox.evaluation.thresholds import (
    check_wishes,
    cost_name,
    rate_name,
    threshold_at_cost,
    threshold_at_false_accept_rate,
)
from parvox.evaluation.trials import TrialIndex
from parvox.runtime.operating import LONGER, SCORE, SHORTER, DurationBand, LlrMap, OperatingPoint

EER = "eer"

_FEW_TRIALS = 20  # of either kind in a band: fewer, and it has no thresholds of its own
_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class SettleSettings:
    """Which thresholds a model file is to carry."""

    false_accept_rates: Sequence[float] = (0.01, 0.001)
    """Rates to choose thresholds for: far_1pct, far_0.1pct."""
    p_targets: Sequence[float] = (0.01, 0.05)
    """Priors to choose thresholds of least cost for: cost_0.01, cost_0.05."""
    c_miss: float = 1.0
    """Cost of a miss."""
    c_fa: float = 1.0
    """Cost of a false accept."""
    band_edges_s: Sequence[float] = (1.0, 2.0, 4.0, 8.0, 16.0)
    """Seconds of net speech of the shorter side at which a band ends and the next begins; none for no bands."""
    duration: bool = True
    """Whether the calibration may depend on both sides' seconds of speech."""
    replicates: int = 1000
    """Bootstrap replicates by speaker; 0 leaves intervals out."""
    level: float = 0.95
    """Confidence level of the intervals."""
    seed: int = 0
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        check_resampling(self.replicates, self.level, self.seed)
        check_wishes(self.false_accept_rates, self.p_targets, self.c_miss, self.c_fa)
        edges = list(self.band_edges_s)
        if any(not (0 < edge < math.inf) for edge in edges) or any(a >= b for a, b in itertools.pairwise(edges)):
            raise TrialError(f"band edges {edges} given; expected rising numbers of seconds above 0, such as 1 2 4 8")

    @property
    def names(self) -> list[str]:
        """What the operating points are called."""
        return [EER, *map(rate_name, self.false_accept_rates), *map(cost_name, self.p_targets)]

    @property
    def bands(self) -> list[tuple[float, float | None]]:
        """From and to, in seconds."""
        edges = list(self.band_edges_s)
        return list(zip([0.0, *edges], [*edges, None], strict=True)) if edges else []


@dataclass(frozen=True, eq=False)
class Judged:
    """Scored trials and how much speech they rest on.

    Attributes:
        scores: (trials,)
        target: (trials,) bool.
        enrol: (trials,) each trial's enrolment speaker, whole numbers from 0.
        test: (trials,) each trial's test speaker.
        enrol_s: (trials,) seconds of net speech of all enrolment recordings together.
        test_s: (trials,) seconds of net speech of the test recording.
        source: The trials, in words.
    """

    scores: NDArray[np.float32]
    target: NDArray[np.bool_]
    enrol: NDArray[Any]
    test: NDArray[Any]
    enrol_s: NDArray[np.float64]
    test_s: NDArray[np.float64]
    source: str

    def take(self, rows: NDArray[Any]) -> Judged:
        """Some of the trials, their speakers numbered anew."""
        numbers = np.unique(np.concatenate([self.enrol[rows], self.test[rows]]), return_inverse=True)[1]
        first, second = np.split(numbers, 2)
        columns = (self.scores, self.target, self.enrol_s, self.test_s)
        scores, target, enrol_s, test_s = (column[rows] for column in columns)
        return Judged(scores, target, first, second, enrol_s, test_s, self.source)

    @property
    def speakers(self) -> int:
        """How many speak in them."""
        return len(np.union1d(self.enrol, self.test))

    @property
    def pairs(self) -> int:
        """Different pairs of speakers among the non-target trials."""
        return distinct_pairs(self.enrol[~self.target], self.test[~self.target])


@dataclass(frozen=True)
class Settled:
    """What goes into a model file.

    Attributes:
        thresholds: Operating points over all trials, by name.
        unsupported: Those that the trials cannot support: why, by name.
        bands: The same for bands of net speech.
        calibration: Scores to log-likelihood ratios; None where none could be fitted.
        notes: What the user should know.
    """

    thresholds: dict[str, OperatingPoint]
    unsupported: dict[str, str]
    bands: tuple[DurationBand, ...]
    calibration: LlrMap | None
    notes: tuple[str, ...] = ()

    @property
    def default(self) -> str | None:
        """The operating point that a model file uses unless another is named."""
        return EER if EER in self.thresholds else None


def settle(trials: Judged, settings: SettleSettings | None = None) -> Settled:
    """Choose thresholds over all trials and by length of speech, and fit a calibration.

    A false-accept rate that the pairs of speakers cannot show, and a band with few trials or speakers, get no threshold
    but a sentence that says why. Rates are counted at the threshold as it is written down, with six decimals.

    Args:
        trials: Of speakers that the model did not learn from.
        settings: What is wanted.

    Raises:
        TrialError: one kind of trial is missing, or a score is not finite.
    """
    settings = settings or SettleSettings()
    thresholds, unsupported = _points(trials, settings)
    bands = []
    shorter = np.minimum(trials.enrol_s, trials.test_s)
    for low, high in settings.bands:
        part = trials.take(np.flatnonzero((shorter >= low) & (shorter < (math.inf if high is None else high))))
        targets, nontargets = int(part.target.sum()), int((~part.target).sum())
        found: tuple[dict[str, OperatingPoint], dict[str, str]]
        if min(targets, nontargets) < _FEW_TRIALS or part.speakers < MIN_SPEAKERS:
            why = (
                f"Unknown: {targets:,} target and {nontargets:,} impostor trials of {part.speakers} speakers; "
                f"{_FEW_TRIALS} of each from {MIN_SPEAKERS} speakers are needed."
            )
            found = {}, dict.fromkeys([*thresholds, *unsupported], why)
        else:
            found = _points(part, settings)
        bands.append(DurationBand(low, high, part.speakers, targets, nontargets, *found))
    calibration, notes = _calibrated(trials, settings)
    return Settled(thresholds, unsupported, tuple(bands), calibration, notes)


def source_words(trials: TrialIndex, speakers: int, synthetic: bool) -> str:
    """What the thresholds were measured on: the trials, how many speakers, and the list's hash."""
    made = "SYNTHETIC voices, " if synthetic else ""
    return f"{trials.name}, {made}{speakers} speakers, sha256 {trials.sha256[:16]}"


def _points(trials: Judged, settings: SettleSettings) -> tuple[dict[str, OperatingPoint], dict[str, str]]:
    """Operating points by name, and why others are missing."""
    columns = trials.scores, trials.target, trials.enrol, trials.test
    costs = {"c_miss": settings.c_miss, "c_fa": settings.c_fa}
    weights, replicates = _resampled(trials, settings)
    spread = None if replicates is None else interval(replicates.eer_threshold, settings.level)
    chosen: list[tuple[str, float | None, Interval | None, str]] = []
    threshold = ScoreSet.from_labels(trials.scores, trials.target).eer_point().threshold
    if math.isfinite(threshold):
        chosen.append((EER, threshold, spread, ""))
    else:
        chosen.append((EER, None, None, "Unknown: all scores are alike."))
    found = [
        threshold_at_false_accept_rate(*columns, rate, weights, settings.level) for rate in settings.false_accept_rates
    ]
    found += [
        threshold_at_cost(*columns, p, **costs, weights=weights, level=settings.level, replicates=replicates)
        for p in settings.p_targets
    ]
    chosen += [(each.name, each.threshold, each.interval, each.advice) for each in found]
    points, missing = {}, {}
    for name, value, spread, advice in chosen:
        if value is None:
            missing[name] = advice
        else:
            points[name] = _point(trials, value, spread, weights, settings.level)
    return points, missing


def _point(
    trials: Judged, threshold: float, spread: Interval | None, weights: Weights | None, level: float
) -> OperatingPoint:
    # Upwards: the false-accept rate stays what the name says.
    threshold = math.ceil(threshold * 10**_DIGITS) / 10**_DIGITS
    rates = error_rates(trials.scores, trials.target, trials.enrol, trials.test, threshold, weights, level)
    accepts, misses = rates.false_accept_rate, rates.miss_rate
    assert accepts is not None
    assert misses is not None
    return OperatingPoint(
        threshold=threshold,
        false_accept_rate=accepts.value,
        false_reject_rate=misses.value,
        target_trials=rates.target_trials,
        nontarget_trials=rates.nontarget_trials,
        source=trials.source,
        interval=_ends(spread),
        false_accept_interval=_ends(accepts.interval),
        false_reject_interval=_ends(misses.interval),
        smallest_rate=_rounded(smallest_rate(rates.speaker_pairs, level)),
    )


def _resampled(trials: Judged, settings: SettleSettings) -> tuple[Weights | None, Replicates | None]:
    if not settings.replicates or trials.speakers < MIN_SPEAKERS:
        return None, None
    weights = speaker_weights(int(max(trials.enrol.max(), trials.test.max())) + 1, settings.replicates, settings.seed)
    replicates = bootstrap(
        trials.scores,
        trials.target,
        trials.enrol,
        trials.test,
        weights,
        p_targets=settings.p_targets,
        c_miss=settings.c_miss,
        c_fa=settings.c_fa,
    )
    return weights, replicates


def _calibrated(trials: Judged, settings: SettleSettings) -> tuple[LlrMap | None, tuple[str, ...]]:
    side: Mapping[str, NDArray[np.float64]] = {}
    if settings.duration:
        enrol, test = (np.log(np.maximum(seconds, 1e-3)) for seconds in (trials.enrol_s, trials.test_s))
        side = {SHORTER: np.minimum(enrol, test), LONGER: np.maximum(enrol, test)}
    try:
        fitted = fit_calibration(trials.scores, trials.target, side)
    except TrialError as error:
        return None, (f"no calibration, so scores are no log-likelihood ratios: {error}",)
    names = [name for name in fitted.weights if name != SCORE]
    targets = len(np.unique(trials.enrol[trials.target]))
    found = LlrMap(
        weights=dict(fitted.weights),
        offset=fitted.offset,
        ranges={name: (float(side[name].min()), float(side[name].max())) for name in names},
        limits=(math.log(smallest_rate(targets)), -math.log(smallest_rate(trials.pairs))),
        source=trials.source,
    )
    return found, ()


def _ends(spread: Interval | None) -> tuple[float, float] | None:
    if spread is None or not (math.isfinite(spread.low) and math.isfinite(spread.high)):
        return None
    return _rounded(spread.low), _rounded(spread.high)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
