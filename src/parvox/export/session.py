"""onnxruntime sessions of graphs in the making, before they are model files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from parvox.errors import ExportError
from parvox.export.onnx_graph import INPUTS, OUTPUT
from parvox.progress import progress


def open_session(data: bytes, *, threads: int = 1, optimise: bool = True) -> Any:
    """A session on the processor.

    Args:
        data: A serialised model.
        threads: Threads of the session; one gives the same result to the last bit each time.
        optimise: Whether onnxruntime may rewrite the graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_mem_pattern = False
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def embed(session: Any, waveforms: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Embed waveforms (samples,) in one padded batch.

    Returns:
        (batch, embedding_dim).
    """
    lengths = np.array([len(waveform) for waveform in waveforms], np.int64)
    padded = np.zeros((len(waveforms), lengths.max()), np.float32)
    for row, waveform in zip(padded, waveforms, strict=True):
        row[: len(waveform)] = waveform
    return run_batch(session, padded, lengths)


def run_batch(session: Any, padded: NDArray[np.float32], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
    """Embed padded waveforms (batch, samples) of valid samples (batch,).

    Returns:
        (batch, embedding_dim).

    Raises:
        ExportError: onnxruntime cannot run the graph.
    """
    try:
        embeddings: NDArray[np.float32] = session.run([OUTPUT], dict(zip(INPUTS, (padded, lengths), strict=True)))[0]
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise ExportError(
            f"onnxruntime {onnxruntime.__version__} cannot run the exported graph on {padded.shape[0]} waveforms of "
            f"{padded.shape[1]} samples ({' '.join(str(error).split())[:200]}); an operation of this model does not "
            "survive export"
        ) from error
    return embeddings


def embed_all(session: Any, waveforms: Iterable[NDArray[np.float32]], what: str) -> NDArray[np.float32]:
    """Embed waveforms (samples,) one by one, with a progress bar.

    Returns:
        (waveforms, embedding_dim).
    """
    return np.concatenate([embed(session, [waveform]) for waveform in progress(waveforms, what, unit="clip")])


def cosine_distances(one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """1 - cosine of each row of (rows, dim) with the same row of another; 1 where either is zero or not finite."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    with np.errstate(all="ignore"):
        cosines = np.einsum("ij,ij->i", one, other) / norms
    return np.where(np.isfinite(cosines), 1.0 - cosines, 1.0)
