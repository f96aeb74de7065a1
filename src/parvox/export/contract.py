"""What a model file says of itself, and the file's bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from numpy.typing import NDArray

from parvox import __version__
from parvox.errors import ModelFileError
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.rates import smallest_rate
from parvox.evaluation.trials import TrialIndex
from parvox.export.session import embed, open_session
from parvox.models import SpeakerModel
from parvox.models.cost import count_macs, count_parameters
from parvox.runtime.golden import DEFAULT_SIGNAL, golden_signal
from parvox.runtime.model_file import (
    CHECKSUM_KEY,
    CONTRACT_KEY,
    UNSEALED,
    Golden,
    ModelContract,
    OperatingPoint,
    Precision,
    seal,
)
from parvox.training.run import MODEL, Run

GOLDEN_DISTANCE: dict[Precision, float] = {"fp32": 1e-4, "int8": 5e-3}
"""How far the golden embedding of another machine may be off. Processors round features otherwise in the last bit,
which tips some 8-bit numbers to their neighbours: a few 1e-4. Saturating arithmetic shows as several 1e-2."""

_FALSE_ACCEPTS = {"far_1pct": 0.01, "far_0.1pct": 0.001}


def operating_points(scores: ScoreSet, trials: TrialIndex, speaker_pairs: int) -> dict[str, OperatingPoint]:
    """Thresholds from scored trials: ``eer``, and ``far_1pct`` and ``far_0.1pct`` where there are speakers enough.

    ``eer`` is where both error rates are nearest to each other; ``far_1pct`` is the lowest threshold at which no more
    than 1 % of the non-target trials are accepted. Rates are counted anew at the rounded threshold.

    Args:
        scores: Of the trials.
        trials: Where they come from.
        speaker_pairs: Different pairs of speakers among the non-target trials. A rate that so few could not show is
            left out, by the rule that `parvox evaluate` follows.
    """
    found = {"eer": scores.eer_point().threshold}
    for name, rate in _FALSE_ACCEPTS.items():
        accepted = math.floor(rate * len(scores.nontarget))
        if accepted and rate >= smallest_rate(speaker_pairs):  # else the threshold would be a guess
            found[name] = _threshold_accepting(scores, accepted)
    points = {}
    for name, threshold in found.items():
        if not math.isfinite(threshold):
            continue
        threshold = math.ceil(threshold * 1e6) / 1e6  # upwards: the false-accept rate stays what the name says
        point = scores.at(threshold)
        points[name] = OperatingPoint(
            threshold=threshold,
            false_accept_rate=point.false_accept_rate,
            false_reject_rate=point.miss_rate,
            target_trials=trials.targets,
            nontarget_trials=trials.nontargets,
            source=f"{trials.name}, sha256 {trials.sha256[:16]}",
        )
    return points


def _threshold_accepting(scores: ScoreSet, accepted: int) -> float:
    """Half-way between the lowest non-target score still accepted, ties left out, and the next one below."""
    rejected = scores.nontarget[: len(scores.nontarget) - accepted]
    highest = float(rejected[-1])
    above = scores.nontarget[np.searchsorted(scores.nontarget, rejected[-1], "right") :]
    return highest + (float(above[0]) - highest) / 2 if len(above) else float(np.nextafter(highest, np.inf))


def build_contract(
    run: Run,
    graph: onnx.ModelProto,
    *,
    precision: Precision,
    name: str,
    mean: NDArray[np.float32] | None,
    thresholds: dict[str, OperatingPoint],
    synthetic: bool,
    licence: str,
) -> ModelContract:
    """Gather the contract of docs/architecture.md.

    Args:
        run: What is exported.
        graph: The finished graph; it gives the golden embedding.
        precision: Of the graph.
        name: The model's name.
        mean: (embedding_dim,) to subtract before scoring, or None.
        thresholds: From `operating_points`.
        synthetic: Whether the speech behind it was made rather than recorded.
        licence: Of the weights.
    """
    model, features = run.model, run.model.settings.features
    signal = golden_signal(DEFAULT_SIGNAL, features.sample_rate_hz)
    golden = embed(open_session(graph.SerializeToString()), [signal])[0]
    return ModelContract(
        name=name,
        precision=precision,
        sample_rate_hz=features.sample_rate_hz,
        min_samples=model.min_samples,
        embedding_dim=model.settings.embedding_dim,
        features=dataclasses.asdict(features),
        parameters=count_parameters(model),
        macs_1s=count_macs(model, _seconds(model)),
        mean=None if mean is None else tuple(float(value) for value in mean),
        thresholds=thresholds,
        default_threshold="eer" if "eer" in thresholds else None,
        golden=Golden(DEFAULT_SIGNAL, tuple(float(value) for value in golden), GOLDEN_DISTANCE[precision]),
        fingerprint=fingerprint(run.folder),
        synthetic=synthetic,
        licence=licence,
        recipe=without_paths(run.recipe_text),
        parvox_version=__version__,
    )


def fingerprint(folder: Path) -> str:
    """SHA-256 of the fp32 weights in a run folder.

    Raises:
        ModelFileError: they cannot be read.
    """
    path = folder / MODEL
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error}); restore the run folder") from error


def without_paths(recipe_text: str) -> str:
    """A recipe with the last parts of its paths alone: a file that is handed out need not tell where it was made."""
    recipe: Any = yaml.safe_load(recipe_text)
    if isinstance(recipe, dict):
        for section, field in ((recipe, "corpus"), (recipe.get("distillation"), "teacher")):
            if isinstance(section, dict) and isinstance(section.get(field), str):
                section[field] = Path(section[field]).name
    return yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)


def file_bytes(graph: onnx.ModelProto, contract: ModelContract) -> bytes:
    """The sealed model file: metadata last, so that a reader of the outermost fields finds it without the weights."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    del model.metadata_props[:]
    for key, value in ((CONTRACT_KEY, contract.to_json()), (CHECKSUM_KEY, UNSEALED)):
        model.metadata_props.add(key=key, value=value)
    return seal(model.SerializeToString(deterministic=True))


def _seconds(model: SpeakerModel) -> float:
    """One second, or the least the model accepts where that is more."""
    return max(1.0, model.min_samples / model.settings.features.sample_rate_hz)
