"""Recordings to speaker embeddings with a model file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from parvox.errors import AudioError, ModelFileError, ParvoxError
from parvox.runtime.golden import golden_signal
from parvox.runtime.model_file import ModelContract, read_model_file

Samples = NDArray[np.float32]

_INPUTS = {"waveform": ("tensor(float)", 2), "lengths": ("tensor(int64)", 1)}
_OUTPUT = "embedding"
CPU = ("CPUExecutionProvider",)
_BATCH_S = 60.0  # padded seconds per run: enough to keep a core busy, little enough to bound memory
_MOST_THREADS = 1024  # onnxruntime starts as many as it is told to
_ALIKE = 1.125  # longest over shortest waveform of a run


class SpeakerEmbedder:
    """A speaker model in one onnxruntime session; may be shared by threads.

    Memory goes back to the system after each run, so that one long recording does not swell a service for good:
    with onnxruntime's arena, 150 recordings of 0.5 to 125 s left 86 MB behind on a five-layer TDNN, without it 4 MB,
    at much the same speed; padding to fewer distinct lengths did not help.

    Args:
        data: The bytes of a model file.
        contract: Its contract.
        threads: Threads of the session.
        name: What to call the model in messages.
        providers: What onnxruntime computes on, the best first.

    Raises:
        ModelFileError: onnxruntime cannot load it, its inputs and outputs are others, or it does not give its golden
            embedding here.
    """

    def __init__(
        self,
        data: bytes,
        contract: ModelContract,
        *,
        threads: int = 1,
        name: str = "model",
        providers: Sequence[str] = CPU,
    ) -> None:
        if not 1 <= threads <= _MOST_THREADS:
            raise ParvoxError(f"threads: {threads} given; 1 to {_MOST_THREADS} is expected")
        self.contract = contract
        self.name = name
        self._session = open_session(data, providers, threads, name)
        _check_signature(self._session, contract, name)
        self._check_golden()

    @classmethod
    def load(cls, path: str | os.PathLike[str], threads: int = 1) -> SpeakerEmbedder:
        """Load a model file and check it: checksum, contract, signature and golden embedding.

        Args:
            path: A file written by `parvox export`.
            threads: Threads of the session; one per stream is best in a server.

        Raises:
            ModelFileError: it cannot be used; the message says why.
        """
        data, contract = read_model_file(path)
        return cls(data, contract, threads=threads, name=os.fspath(path))

    def embed(self, samples: Samples) -> NDArray[np.float32]:
        """Embed one waveform.

        Args:
            samples: (samples,) float in [-1, 1] at the contract's rate.

        Returns:
            (embedding_dim,), not length-normalised.

        Raises:
            AudioError: too short, not finite, or not one channel.
        """
        embedding: NDArray[np.float32] = self.embed_batch([samples])[0]
        return embedding

    def embed_batch(self, waveforms: Sequence[Samples], names: Sequence[str] = ()) -> NDArray[np.float32]:
        """Embed waveforms of any lengths.

        Args:
            waveforms: Each (samples,) float in [-1, 1] at the contract's rate.
            names: What to call them in messages; "waveform 0" and so on by default.

        Returns:
            (batch, embedding_dim), in the order given, not length-normalised.

        Raises:
            AudioError: one is too short, not finite, or not one channel.
        """
        names = names or [f"waveform {index}" for index in range(len(waveforms))]
        checked = [self._checked(waveform, name) for waveform, name in zip(waveforms, names, strict=True)]
        embeddings = np.empty((len(checked), self.contract.embedding_dim), np.float32)
        for rows in self._batches([len(waveform) for waveform in checked]):
            embeddings[rows] = self._run([checked[row] for row in rows])
        return embeddings

    def _checked(self, waveform: Samples, name: str) -> Samples:
        samples = np.asarray(waveform, dtype=np.float32)
        if samples.ndim != 1:
            raise AudioError(f"{name}: shape {samples.shape} given; (samples,), one channel, is expected")
        if len(samples) < self.contract.min_samples:
            rate = self.contract.sample_rate_hz
            raise AudioError(
                f"{name}: {len(samples) / rate:.3g} s; "
                f"{self.name} needs at least {self.contract.min_samples / rate:.3g} s"
            )
        if not np.isfinite(samples).all():
            raise AudioError(f"{name}: NaN or infinite samples; every sample must be a finite number")
        return samples

    def _batches(self, lengths: list[int]) -> list[list[int]]:
        """Rows to run together: alike in length, so that little is padding, and few enough to bound memory."""
        limit = _BATCH_S * self.contract.sample_rate_hz
        batches: list[list[int]] = []
        for row in sorted(range(len(lengths)), key=lengths.__getitem__):  # shortest first
            last = batches[-1] if batches else []
            size = lengths[row]
            if last and size <= _ALIKE * lengths[last[0]] and (len(last) + 1) * size <= limit:
                last.append(row)
            else:
                batches.append([row])
        return batches

    def _run(self, waveforms: list[Samples]) -> NDArray[np.float32]:
        lengths = np.array([len(waveform) for waveform in waveforms], np.int64)
        padded = np.zeros((len(waveforms), lengths.max()), np.float32)
        for row, waveform in zip(padded, waveforms, strict=True):
            row[: len(waveform)] = waveform
        try:
            (embeddings,) = self._session.run([_OUTPUT], {"waveform": padded, "lengths": lengths})
        except Exception as error:  # onnxruntime's errors share no base class of their own
            seconds = padded.size / self.contract.sample_rate_hz
            raise ModelFileError(
                f"{self.name}: onnxruntime failed on {seconds:.1f} s of audio ({first_line(error)}); "
                "try a shorter recording"
            ) from error
        if embeddings.shape != (len(waveforms), self.contract.embedding_dim) or not np.isfinite(embeddings).all():
            raise ModelFileError(
                f"{self.name}: gave embeddings that are not {self.contract.embedding_dim} finite numbers; "
                "export the model again"
            )
        result: NDArray[np.float32] = embeddings
        return result

    def _check_golden(self) -> None:
        golden = self.contract.golden
        wanted = np.asarray(golden.embedding)
        try:
            got = self.embed(golden_signal(golden.signal, self.contract.sample_rate_hz)).astype(np.float64)
        except ParvoxError as error:
            raise ModelFileError(f"{self.name}: its golden signal cannot be embedded: {error}") from error
        norms = float(np.linalg.norm(wanted) * np.linalg.norm(got))
        distance = 1.0 - float(wanted @ got) / norms if norms > 0 else np.inf
        if not distance <= golden.max_cosine_distance:
            raise ModelFileError(
                f"{self.name}: its embedding of the signal {golden.signal!r} is {distance:.2g} away from the one at "
                f"export, more than the {golden.max_cosine_distance:.2g} allowed: this machine or its onnxruntime "
                f"{onnxruntime.__version__} computes something else; use the fp32 file or another onnxruntime"
            )


def open_session(model: bytes | str, providers: Sequence[str], threads: int, name: str) -> Any:
    """An onnxruntime session.

    Args:
        model: The model, or its path.
        providers: What to compute on, the best first.
        threads: Of the session.
        name: What to call the model in messages.

    Raises:
        ModelFileError: onnxruntime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised; it need not be printed as well
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False  # a plan of memory per shape, kept for ever
    try:
        return onnxruntime.InferenceSession(model, options, providers=list(providers))
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise ModelFileError(
            f"{name}: onnxruntime {onnxruntime.__version__} cannot load it ({first_line(error)}); "
            "export it again or use a newer onnxruntime"
        ) from error


def _check_signature(session: Any, contract: ModelContract, name: str) -> None:
    inputs = {given.name: (given.type, len(given.shape)) for given in session.get_inputs()}
    outputs = {given.name: given for given in session.get_outputs()}
    if inputs != _INPUTS:
        raise ModelFileError(f"{name}: inputs {inputs} given; {_INPUTS} (type, dimensions) is expected")
    if _OUTPUT not in outputs or outputs[_OUTPUT].type != "tensor(float)":
        raise ModelFileError(f"{name}: outputs {sorted(outputs)} given; a float tensor {_OUTPUT!r} is expected")
    size = outputs[_OUTPUT].shape[-1] if outputs[_OUTPUT].shape else None
    if isinstance(size, int) and size != contract.embedding_dim:
        raise ModelFileError(
            f"{name}: embeddings of {size} numbers, but its contract says {contract.embedding_dim}; export it again"
        )


def first_line(error: Exception) -> str:
    """What an error says, on one line of bearable length."""
    words = " ".join(str(error).split())
    return words if len(words) <= 160 else words[:157] + "..."
