"""Run folder to model file: traced, checked, quantised, measured, sealed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import onnx
from numpy.typing import NDArray

from parvox.corpora.prepared import PreparedCorpus
from parvox.errors import ExportError, OutputError, TrialError
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.scoring import cosine_scores
from parvox.evaluation.settle import Settled
from parvox.export.agreement import check_against_pytorch, check_padding
from parvox.export.compact import compact_bands, compact_frontend, strip
from parvox.export.contract import build_contract, file_bytes
from parvox.export.int8 import Calibration, Quantised, Quantiser
from parvox.export.material import Material
from parvox.export.onnx_graph import to_onnx
from parvox.export.session import open_session
from parvox.export.settled import settle_dev
from parvox.export.speed import session_milliseconds
from parvox.files import atomic_file, refuse_overwrite
from parvox.models import SpeakerModel
from parvox.processors import available_processors
from parvox.progress import progress
from parvox.runtime.embedder import SpeakerEmbedder
from parvox.runtime.model_file import Precision
from parvox.runtime.operating import OperatingPoint
from parvox.training.run import Run, load_run

SPEED_S = 3.0
"""Seconds of speech that speed is stated for."""

_PROBE_CLIPS = 48
_FASTER = 0.95
_UNSPECIFIED = "unspecified"
_last_traced: WeakKeyDictionary[SpeakerModel, tuple[bytes, bytes]] = WeakKeyDictionary()


@dataclass(frozen=True)
class ExportResult:
    """What an export gave.

    Attributes:
        path: The model file.
        precision: "fp32" or "int8".
        bytes: Size of the file.
        parameters: Weights of the model.
        pytorch_distance: Largest cosine distance between PyTorch's embeddings and the fp32 graph's, on real clips.
        milliseconds: For 3 s of speech on one core, features included.
        eer: EER of the file on the dev trials, 0 to 1; None without trials.
        eer_fp32: The same for fp32.
        milliseconds_fp32: The same speed for fp32.
        int8_distance: Mean cosine distance between int8 and fp32 embeddings on real clips; None for fp32.
        calibration: How int8 ranges were taken; None for fp32.
        left_in_fp32: Modules that int8 would have cost too much.
        settled: Thresholds and calibration in the file; None without dev trials.
        notes: What the user should know.
    """

    path: Path
    precision: Precision
    bytes: int
    parameters: int
    pytorch_distance: float
    milliseconds: float
    eer: float | None
    eer_fp32: float | None
    milliseconds_fp32: float
    int8_distance: float | None
    calibration: str | None
    left_in_fp32: tuple[str, ...]
    settled: Settled | None
    notes: tuple[str, ...]

    @property
    def thresholds(self) -> dict[str, OperatingPoint]:
        """Operating points over recordings of all lengths, by name."""
        return {} if self.settled is None else self.settled.thresholds


def export_model(
    run: Run | Path,
    out: Path,
    *,
    corpus: PreparedCorpus | Path | None = None,
    precision: Precision = "fp32",
    tolerance_eer: float = 0.5,
    calibration: Calibration = "auto",
    calibration_clips: int = 200,
    subtract_mean: bool = False,
    name: str | None = None,
    licence: str = _UNSPECIFIED,
    overwrite: bool = False,
) -> ExportResult:
    """Export a trained model to one ONNX file.

    Nothing is written unless the file gives PyTorch's embeddings on real clips to 1e-4 in cosine distance, an int8
    file raises the EER of the dev trials by no more than the tolerance, and the runtime accepts the file.

    Args:
        run: A finished run or its folder.
        out: The file to write.
        corpus: Prepared corpus for checks, calibration and thresholds; the run's own by default.
        precision: "fp32" or "int8".
        tolerance_eer: How many percentage points of dev EER int8 may cost.
        calibration: How to take int8 ranges; ``auto`` tries each way.
        calibration_clips: Training utterances to calibrate with.
        subtract_mean: Put the mean embedding of the training speakers into the file, subtracted before scoring.
        name: The model's name; the run folder's by default.
        licence: Licence of the weights, as it is to stand in the file.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ExportError: the model cannot be exported, or is not good enough; the message says by how much.
        ModelFileError: the run folder is not a finished run.
        CorpusError: the corpus is missing or does not fit the model.
        OutputError: `out` cannot be written.
    """
    if precision not in ("fp32", "int8"):
        raise ExportError(f"precision {precision!r} given; expected fp32 or int8")
    if not tolerance_eer >= 0 or calibration_clips < 1:
        raise ExportError(
            f"tolerance_eer {tolerance_eer} and calibration_clips {calibration_clips} given; expected 0 or more "
            "percentage points and 1 or more clips"
        )
    out = Path(out)
    _check_writable(out, overwrite)
    if not isinstance(run, Run):
        run = load_run(run)
    if not isinstance(corpus, PreparedCorpus):
        corpus = PreparedCorpus.load(corpus or run.corpus_folder)
    model = run.model
    features = model.settings.features
    material = Material(corpus, features.sample_rate_hz, model.min_samples)
    if precision == "int8" and material.trials is None:
        raise ExportError(
            f"int8: {corpus.folder} has no dev trials of both kinds, so what int8 costs cannot be measured; export "
            "fp32, or give a corpus with dev trials with --corpus"
        )
    traced = _traced_graph(run)
    graph = strip(compact_bands(compact_frontend(traced, features)))
    session = open_session(graph.SerializeToString(), threads=available_processors())
    probes = material.check_clips(_PROBE_CLIPS)
    pytorch_distance = check_against_pytorch(model, session, probes[::2])
    fp32 = _measure(graph, session, material, subtract_mean, "fp32")
    kept, quantised = fp32, None
    if precision == "int8":
        quantiser = Quantiser(
            traced, features, material.training_clips(calibration_clips), probes, available_processors()
        )
        quantised, kept = _within_tolerance(quantiser, calibration, material, fp32, tolerance_eer, subtract_mean)
        check_padding(kept.session, probes[::4])

    settled = None
    if kept.scores is not None and material.trials is not None:
        settled = settle_dev(material, material.trials, kept.scores)
    contract = build_contract(
        run,
        kept.graph,
        precision=precision,
        name=name or run.folder.resolve().name,
        mean=kept.mean,
        settled=settled,
        synthetic=bool(run.summary.get("synthetic", corpus.info.synthetic)),
        licence=licence,
    )
    data = file_bytes(kept.graph, contract)
    speed_fp32 = session_milliseconds(graph.SerializeToString(), round(SPEED_S * features.sample_rate_hz))
    speed = speed_fp32
    if quantised is not None:
        speed = session_milliseconds(data, round(SPEED_S * features.sample_rate_hz))
    with atomic_file(out, overwrite=overwrite) as temporary:
        temporary.write_bytes(data)
        SpeakerEmbedder.load(temporary)  # what the runtime would refuse is not shipped
    return ExportResult(
        path=out,
        precision=precision,
        bytes=len(data),
        parameters=contract.parameters,
        pytorch_distance=pytorch_distance,
        milliseconds=speed,
        eer=kept.eer,
        eer_fp32=fp32.eer,
        milliseconds_fp32=speed_fp32,
        int8_distance=quantised.mean_distance if quantised else None,
        calibration=quantised.method if quantised else None,
        left_in_fp32=quantised.excluded if quantised else (),
        settled=settled,
        notes=tuple(_notes(quantised, speed, speed_fp32, settled, corpus.info.synthetic)),
    )


def _traced_graph(run: Run) -> onnx.ModelProto:
    """The graph of a run's model; tracing takes seconds, so the last one is kept for a second precision."""
    digest = hashlib.sha256()
    for tensor in run.model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    weights, data = _last_traced.get(run.model, (b"", b""))
    if weights != digest.digest():
        (graph,) = map(to_onnx, progress([run.model], "trace the graph", unit="graph"))
        data = graph.SerializeToString(deterministic=True)
        _last_traced[run.model] = (digest.digest(), data)
    return onnx.load_model_from_string(data)


@dataclass(frozen=True)
class _Measured:
    """A graph and what it gives on the corpus."""

    graph: onnx.ModelProto
    session: Any
    mean: NDArray[np.float32] | None
    scores: NDArray[np.float32] | None
    eer: float | None


def _measure(graph: onnx.ModelProto, session: Any, material: Material, subtract_mean: bool, what: str) -> _Measured:
    mean = material.mean(session) if subtract_mean else None
    if material.trials is None:
        return _Measured(graph, session, mean, None, None)
    scores = cosine_scores(material.dev_embeddings(session, f"{what}: dev trials"), material.trials, mean)
    return _Measured(graph, session, mean, scores, ScoreSet.from_labels(scores, material.trials.target).eer())


def _within_tolerance(
    quantiser: Quantiser,
    calibration: Calibration,
    material: Material,
    fp32: _Measured,
    tolerance_eer: float,
    subtract_mean: bool,
) -> tuple[Quantised, _Measured]:
    """The int8 graph, with as many of its most sensitive modules left in fp32 as the tolerance takes."""

    def measured_int8(made: Quantised) -> tuple[Quantised, _Measured]:
        session = open_session(made.graph.SerializeToString(), threads=available_processors())
        try:
            return made, _measure(made.graph, session, material, subtract_mean, "int8")
        except TrialError:  # embeddings without direction: as bad as can be
            return made, _Measured(made.graph, session, None, None, 1.0)

    best = quantiser.best(calibration)
    tried = [measured_int8(best)]
    if _rise(tried[0][1], fp32) > tolerance_eer:
        groups = quantiser.groups_by_sensitivity(best.method)
        count = 1
        while count <= len(groups) // 2:
            tried.append(measured_int8(quantiser.without(groups[:count], best.method)))
            if _rise(tried[-1][1], fp32) <= tolerance_eer:
                break
            count *= 2
    quantised, measured = min(tried, key=lambda pair: _rise(pair[1], fp32))
    rise = _rise(measured, fp32)
    if rise > tolerance_eer:
        trials = 0 if material.trials is None else len(material.trials)
        left = f", with {', '.join(quantised.excluded)} left in fp32" if quantised.excluded else ""
        raise ExportError(
            f"int8 raises the EER of {trials} dev trials from {_percent(fp32.eer)} to {_percent(measured.eer)}{left}: "
            f"by {rise:.2f} percentage points, more than the {tolerance_eer:g} allowed; nothing was written: export "
            "fp32, give more --calibration_clips, or raise --tolerance_eer"
        )
    return quantised, measured


def _rise(measured: _Measured, fp32: _Measured) -> float:
    """Percentage points of EER that a graph costs, rounded to what can be told apart."""
    if measured.eer is None or fp32.eer is None:
        return 0.0
    return round(100 * (measured.eer - fp32.eer), 9)


def _notes(
    quantised: Quantised | None,
    speed: float,
    speed_fp32: float,
    settled: Settled | None,
    synthetic: bool,
) -> list[str]:
    notes = []
    if synthetic:
        notes.append("the corpus is synthetic: error rates and thresholds say nothing about real speech")
    if settled is None:
        notes.append("no dev trials of both kinds: the file carries no threshold; parvox calibrate adds some")
    else:
        notes += settled.notes
    if quantised is not None and quantised.excluded:
        notes.append(f"left in fp32, for the EER's sake: {', '.join(quantised.excluded)}")
    if quantised is not None and speed > _FASTER * speed_fp32:
        notes.append(
            f"int8 is not faster than fp32 on this processor ({speed:.2f} and {speed_fp32:.2f} ms): take the fp32 "
            "file unless size matters"
        )
    return notes


def _check_writable(out: Path, overwrite: bool) -> None:
    """Find out before the work, not after it, that a file cannot be written."""
    refuse_overwrite(out, overwrite)
    if out.is_dir():
        raise OutputError(f"cannot write {out}: it is a folder, a file name is expected")


def _percent(rate: float | None) -> str:
    return "?" if rate is None else f"{100 * rate:.2f} %"
