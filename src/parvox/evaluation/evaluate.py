"""From models and a prepared corpus to error rates with intervals."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from parvox.errors import TrialError
from parvox.evaluation.bootstrap import Replicates, bootstrap
from parvox.evaluation.embeddings import embed_cuts
from parvox.evaluation.environment import environment
from parvox.evaluation.measures import ScoreSet, check_finite
from parvox.evaluation.resampling import MIN_SPEAKERS, Interval, interval, speaker_weights
from parvox.evaluation.results import DetBand, Difference, Estimate, Evaluation, Histogram, SystemResult
from parvox.evaluation.scoring import cosine_scores
from parvox.evaluation.system import System, load_systems
from parvox.evaluation.trials import Speakers, TrialIndex
from parvox.progress import progress

if TYPE_CHECKING:
    from lhotse.cut import Cut

    from parvox.corpora.prepared import PreparedCorpus

Mean = Literal["model", "train", "none"]

_BAND_RATES = 60
_HISTOGRAM_BINS = 60
_MEAN_UTTERANCES = 2000


def evaluate(
    models: Sequence[Path],
    corpus: PreparedCorpus,
    *,
    split: str = "test",
    trials: Path | None = None,
    keep_duplicates: bool = False,
    mean: Mean = "model",
    p_targets: Sequence[float] = (0.01, 0.05),
    c_miss: float = 1.0,
    c_fa: float = 1.0,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    cache: Path | None = None,
    threads: int = 1,
    device: str | None = None,
    workers: int | None = None,
    names: Sequence[str] | None = None,
) -> Evaluation:
    """Evaluate models on the trials of a corpus.

    Args:
        models: Model files and run folders.
        corpus: What to evaluate on.
        split: Whose utterances and trials.
        trials: A trial list in VoxCeleb's format instead of the split's own.
        keep_duplicates: Count trials twice that stand twice in the list, instead of refusing it.
        mean: What to subtract from embeddings before scoring: the mean that the model file carries, the mean of the
            corpus's training utterances, or nothing.
        p_targets: Priors of the minDCF.
        c_miss: Cost of a miss.
        c_fa: Cost of a false accept.
        replicates: Bootstrap replicates; 0 leaves intervals out.
        level: Confidence level of the intervals.
        seed: Of the bootstrap.
        cache: Folder to keep embeddings in; see `EmbeddingCache`.
        threads: Threads for model files.
        device: Where run folders compute, as PyTorch names it.
        workers: Loading processes.
        names: What to call the models, if not by their paths.

    Raises:
        ParvoxError: a model, the corpus or the trials cannot be used; the message says why.
    """
    _check_settings(replicates, level)
    if trials is not None:
        index = TrialIndex.read(trials)
    else:
        index = TrialIndex.from_trials(corpus.trials(split), f"{corpus.folder / split}.trials")
    if not keep_duplicates:
        index.refuse_duplicates()
    wanted = set(index.ids)
    cuts = {cut.id: cut for cut in corpus.cuts(split, lazy=True) if cut.id in wanted}
    speakers = index.speakers({name: cut.supervisions[0].speaker for name, cut in cuts.items()})
    _check_kinds(index)
    systems = load_systems(models, threads=threads, device=device)
    labels = [system.name for system in systems] if names is None else list(names)
    if len(labels) != len(systems) or len(set(labels)) != len(labels):
        raise TrialError(f"names {labels} given for {len(systems)} models; expected as many, all different")
    ordered = [cuts[utterance] for utterance in index.ids]
    scores: dict[str, NDArray[np.float32]] = {}
    scoring: dict[str, str] = {}
    for name, system in zip(labels, systems, strict=True):
        embeddings = embed_cuts(system, ordered, cache=cache, workers=workers)
        subtracted, scoring[name] = _mean(system, corpus, split, mean, cache, workers)
        scores[name] = cosine_scores(embeddings, index, subtracted)
    return evaluate_scores(
        scores,
        index,
        speakers,
        systems=dict(zip(labels, systems, strict=True)),
        scoring=scoring,
        p_targets=p_targets,
        c_miss=c_miss,
        c_fa=c_fa,
        replicates=replicates,
        level=level,
        seed=seed,
        corpus=corpus.info.name,
        corpus_fingerprint=corpus.info.fingerprint,
        synthetic=corpus.info.synthetic,
        split=split,
    )


def evaluate_scores(
    scores: Mapping[str, NDArray[np.float32]],
    trials: TrialIndex,
    speakers: Speakers,
    *,
    systems: Mapping[str, System] | None = None,
    scoring: Mapping[str, str] | None = None,
    p_targets: Sequence[float] = (0.01, 0.05),
    c_miss: float = 1.0,
    c_fa: float = 1.0,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    corpus: str = "",
    corpus_fingerprint: str = "",
    synthetic: bool = False,
    split: str = "",
) -> Evaluation:
    """Evaluate scores, wherever they come from.

    Args:
        scores: By system, (trials,) in the order of the list; higher means more alike.
        trials: The trials.
        speakers: Who speaks in them.
        systems: What made the scores, where that is known.
        scoring: How, in words, by system.
        p_targets: Priors of the minDCF.
        c_miss: Cost of a miss.
        c_fa: Cost of a false accept.
        replicates: Bootstrap replicates; 0 leaves intervals out.
        level: Confidence level of the intervals.
        seed: Of the bootstrap.
        corpus: For the report.
        corpus_fingerprint: For the report.
        synthetic: Whether the speech is made rather than recorded.
        split: For the report.

    Raises:
        TrialError: from these scores nothing sound can be computed; the message says why.
    """
    _check_settings(replicates, level)
    _check_kinds(trials)
    notes: list[str] = []
    count = len(speakers.names)
    if replicates and count < MIN_SPEAKERS:
        notes.append(
            f"{count} speakers are too few to say how sure these figures are; intervals need {MIN_SPEAKERS} or more."
        )
    sets, resampled = {}, {}
    weights = speaker_weights(count, replicates, seed) if replicates and count >= MIN_SPEAKERS else None
    rates = band_rates(trials.nontargets)
    for name, values in progress(scores.items(), "measure", total=len(scores), unit="system"):
        if len(values) != len(trials):
            raise TrialError(f"{name}: {len(values)} scores for {len(trials)} trials given; expected one each")
        check_finite(values, f"scores of {name}")
        sets[name] = ScoreSet.from_labels(values, trials.target)
        if weights is not None:
            resampled[name] = bootstrap(
                values,
                trials.target,
                speakers.enrol,
                speakers.test,
                weights,
                p_targets=p_targets,
                c_miss=c_miss,
                c_fa=c_fa,
                false_accept_rates=rates,
            )
    results = [
        _result(
            name,
            values,
            trials,
            sets[name],
            resampled.get(name),
            None if systems is None else systems[name],
            "" if scoring is None else scoring[name],
            [(p, c_miss, c_fa) for p in p_targets],
            level,
        )
        for name, values in scores.items()
    ]
    notes += _zero_error_notes(results, trials, count)
    return Evaluation(
        corpus=corpus,
        corpus_fingerprint=corpus_fingerprint,
        synthetic=synthetic,
        split=split,
        trials=trials.name,
        trials_sha256=trials.sha256,
        target_trials=trials.targets,
        nontarget_trials=trials.nontargets,
        speakers=count,
        utterances=len(trials.ids),
        level=level,
        replicates=replicates,
        seed=seed,
        c_miss=c_miss,
        c_fa=c_fa,
        systems=results,
        differences=differences(results, resampled, level),
        notes=notes,
        environment=environment(),
    )


def differences(results: Sequence[SystemResult], resampled: Mapping[str, Replicates], level: float) -> list[Difference]:
    """Every two systems against each other, in EER and minDCF, replicate by replicate."""
    found = []
    for first, other in itertools.combinations(results, 2):
        measures: list[tuple[str, float, Any]] = [("EER", first.eer.value - other.eer.value, lambda r: r.eer)]
        measures += [
            (f"minDCF({p:g})", first.min_dcf[p].value - other.min_dcf[p].value, lambda r, p=p: r.min_dcf[p])
            for p in first.min_dcf
        ]
        for measure, value, replicated in measures:
            spread: Interval | None = None
            p_value = None
            if first.name in resampled and other.name in resampled:
                each = replicated(resampled[first.name]) - replicated(resampled[other.name])
                spread = interval(each, level)
                p_value = None if spread is None else _p_value(each)
            found.append(Difference(first.name, other.name, measure, Estimate(value, spread), p_value))
    return found


def band_rates(nontargets: int) -> NDArray[np.float64]:
    """False-accept rates at which a DET band is drawn, even on a probit axis, up to one half."""
    return np.asarray(ndtr(np.linspace(ndtri(0.5 / nontargets), 0.0, _BAND_RATES)))


def _p_value(each: NDArray[np.float64]) -> float:
    known = each[np.isfinite(each)]
    side = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
    return min(1.0, 2 * (side + 1) / (len(known) + 1))  # never zero: more replicates might have found one


def _result(
    name: str,
    values: NDArray[np.float32],
    trials: TrialIndex,
    scores: ScoreSet,
    resampled: Replicates | None,
    system: System | None,
    scoring: str,
    costs: Sequence[tuple[float, float, float]],
    level: float,
) -> SystemResult:
    band = None
    if resampled is not None and resampled.miss_rates is not None and resampled.false_accept_rates is not None:
        known = resampled.miss_rates[np.isfinite(resampled.miss_rates).all(axis=1)]
        if interval(resampled.eer, level) is not None:
            low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2], axis=0)
            band = DetBand(resampled.false_accept_rates, low, high)
    edges = np.histogram_bin_edges(values, _HISTOGRAM_BINS)
    parts = [np.histogram(part, edges)[0] / len(part) for part in (values[trials.target], values[~trials.target])]
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
        scoring=scoring,
        eer=Estimate(scores.eer(), None if resampled is None else interval(resampled.eer, level)),
        eer_threshold=scores.eer_point().threshold,
        min_dcf={
            cost[0]: Estimate(
                scores.min_dcf(*cost), None if resampled is None else interval(resampled.min_dcf[cost[0]], level)
            )
            for cost in costs
        },
        det=scores.det_curve(),
        band=band,
        histogram=Histogram(edges.astype(np.float64), *parts),
        scores=values,
    )


def _mean(
    system: System, corpus: PreparedCorpus, split: str, mean: Mean, cache: Path | None, workers: int | None
) -> tuple[NDArray[np.float32] | None, str]:
    """What to subtract, and how to say so."""
    if mean == "none":
        return None, "cosine"
    if mean == "model":
        return system.mean, "cosine" if system.mean is None else "cosine, the model's mean subtracted"
    if split == "train":
        raise TrialError("mean train given with split train: the mean would be of the very speakers in the trials")
    cuts = _spread(list(corpus.cuts("train")), _MEAN_UTTERANCES)
    embeddings = embed_cuts(system, cuts, cache=cache, workers=workers, what="training utterances")
    subtracted: NDArray[np.float32] = embeddings.matrix.mean(axis=0, dtype=np.float64).astype(np.float32)
    return subtracted, f"cosine, mean of {len(cuts):,} training utterances subtracted"


def _spread(cuts: list[Cut], most: int) -> list[Cut]:
    if len(cuts) <= most:
        return cuts
    return [cuts[row] for row in np.linspace(0, len(cuts) - 1, most).astype(int)]


def _check_settings(replicates: int, level: float) -> None:
    if replicates and replicates < 100:
        raise TrialError(f"{replicates} bootstrap replicates given; expected 100 or more, or 0 for no intervals")
    if not 0.5 <= level < 1:
        raise TrialError(f"confidence level {level} given; expected 0.5 to below 1, such as 0.95")


def _check_kinds(trials: TrialIndex) -> None:
    for kind, count in (("target", trials.targets), ("non-target", trials.nontargets)):
        if not count:
            raise TrialError(
                f"{trials.name}: none of its {len(trials)} trials is a {kind} trial; error rates need both kinds"
            )


def _zero_error_notes(results: Sequence[SystemResult], trials: TrialIndex, speakers: int) -> list[str]:
    """Where a system made no error at all, resampling cannot show how many it may make."""
    clean = [system.name for system in results if system.eer.value == 0]
    if not clean:
        return []
    bound = 1 - 0.05 ** (1 / speakers)
    return [
        f"{', '.join(clean)}: no error in {len(trials):,} trials. That does not mean none will come: with "
        f"{speakers} speakers, the share of speakers that meet one may be up to {100 * bound:.1f} % (95 % confidence)."
    ]
