"""What a model file says of itself, and the file's bytes."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from numpy.typing import NDArray

from parvox import __version__
from parvox.errors import ModelFileError
from parvox.evaluation.settle import Settled
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
    Precision,
    seal,
)
from parvox.training.run import EMBEDS_LIKE, MODEL, Run

GOLDEN_DISTANCE: dict[Precision, float] = {"fp32": 1e-4, "int8": 5e-3}
"""How far the golden embedding of another machine may be off. Processors round features otherwise in the last bit,
which tips some 8-bit numbers to their neighbours: a few 1e-4. Saturating arithmetic shows as several 1e-2."""


def build_contract(
    run: Run,
    graph: onnx.ModelProto,
    *,
    precision: Precision,
    name: str,
    mean: NDArray[np.float32] | None,
    settled: Settled | None,
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
        settled: Thresholds and calibration; None without trials.
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
        thresholds={} if settled is None else settled.thresholds,
        default_threshold=None if settled is None else settled.default,
        unsupported={} if settled is None else settled.unsupported,
        bands=() if settled is None else settled.bands,
        calibration=None if settled is None else settled.calibration,
        compatible_with=tuple(map(str, run.summary.get(EMBEDS_LIKE) or ())),
        golden=Golden(DEFAULT_SIGNAL, tuple(float(value) for value in golden), GOLDEN_DISTANCE[precision]),
        fingerprint=fingerprint(run.folder, run.read),
        synthetic=synthetic,
        licence=licence,
        recipe=without_paths(run.recipe_text),
        parvox_version=__version__,
    )


def fingerprint(folder: Path, read: str = "") -> str:
    """SHA-256 of the fp32 weights in a run folder, and of what is read of them where that is not the recipe's own.

    Raises:
        ModelFileError: they cannot be read.
    """
    path = folder / MODEL
    try:
        with path.open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error}); restore the run folder") from error
    return hashlib.sha256(f"{weights} read {read}".encode()).hexdigest() if read else weights


def without_paths(recipe_text: str) -> str:
    """A recipe with the last parts of its paths alone: a file that is handed out need not tell where it was made."""
    recipe: Any = yaml.safe_load(recipe_text)
    if isinstance(recipe, dict):
        distillation = recipe.get("distillation") or {}
        paths = (
            (recipe, ("corpus", "init")),
            (recipe.get("model") or {}, ("frame_classifier",)),
            (distillation, ("teacher", "alongside")),
            (distillation.get("integrated") or {}, ("cache",)),
        )
        for section, fields in paths:
            for field in fields:
                value = section.get(field)
                if isinstance(value, str) and value:
                    section[field] = Path(value).name
                elif isinstance(value, list):
                    section[field] = [Path(str(each)).name for each in value]
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
