"""Teachers in ONNX files: a Parvox model file, or any speaker model that takes features or waveforms."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx.external_data_helper import ExternalDataInfo, uses_external_data
from torch import Tensor

from parvox.distillation.contract import Side
from parvox.errors import ModelFileError
from parvox.models.frontend import FULL_SCALE, Fbank
from parvox.runtime.embedder import SpeakerEmbedder, first_line, open_session
from parvox.runtime.model_file import CONTRACT_KEY, read_model_file
from parvox.training.run import file_checksum
from parvox.training.teacher_settings import OnnxSettings
from parvox.training.teachers.contract import Teacher
from parvox.training.teachers.onnx_convention import Convention, convention

_EPSILON = 1e-5  # under a deviation, as NeMo has it
_TRIED_S = (1.0, 1.3)  # two lengths: a graph may be fixed to one without saying so


def load_onnx(path: Path, settings: OnnxSettings, device: torch.device) -> Teacher:
    """The teacher in an ONNX file.

    Args:
        path: A file written by `parvox export`, or any other ONNX speaker model.
        settings: What it wants to be fed, where its metadata do not say it.
        device: Where the student trains; a GPU is used if onnxruntime can.

    Raises:
        ModelFileError: it cannot be read, or does not take what Parvox can give.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would be waited for
        raise ModelFileError(f"{path}: not a regular file; expected an ONNX model")
    try:
        ours = CONTRACT_KEY.encode() in path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error}); expected an ONNX model") from error
    if ours:
        return ModelFileTeacher(path, device)
    return OnnxTeacher(path, settings, device)


class ModelFileTeacher(Teacher):
    """A model file written by `parvox export`: waveforms in, its own contract says the rest.

    Args:
        path: The file.
        device: Where the student trains.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        data, contract = read_model_file(path)
        self._embedder = SpeakerEmbedder(
            data, contract, threads=torch.get_num_threads(), name=str(path), providers=_providers(device)
        )
        self.side = Side(str(path), contract.embedding_dim, 0)
        self.sample_rate_hz = contract.sample_rate_hz
        self.min_samples = contract.min_samples
        self.checksum = file_checksum(path)
        self.note = f"{path}: waveforms at {contract.sample_rate_hz} Hz (Parvox model file, {contract.precision})"

    def embed(self, waveforms: Tensor) -> Tensor:
        """See `Teacher.embed`."""
        embeddings = self._embedder.embed_batch(list(waveforms.float().cpu().numpy()))
        return torch.from_numpy(embeddings).to(waveforms.device)


class OnnxTeacher(Teacher):
    """Any ONNX speaker model with one input, features or waveforms.

    Args:
        path: The file.
        settings: What it wants to be fed, where its metadata do not say it.
        device: Where features are computed.

    Raises:
        ModelFileError: it does not take what Parvox can give.
    """

    def __init__(self, path: Path, settings: OnnxSettings, device: torch.device) -> None:
        session = open_session(str(path), _providers(device), torch.get_num_threads(), str(path))
        self._path, self._session = path, session
        given = _only_input(path, session)
        metadata = session.get_modelmeta().custom_metadata_map
        self.convention = convention(path, given.shape, metadata, settings)
        self._input, self._output = given.name, _embedding_output(path, session, self.convention.output)
        self.note = self.convention.note + _where(session, device)
        self.sample_rate_hz = self.convention.sample_rate_hz
        graph = onnx.load(path, load_external_data=False).graph
        self.parameters = _weights(graph)
        self.told = f"{dataclasses.replace(self.convention, note='')!r} {self._output}"
        self.checksum = hashlib.sha256(f"{_checksum(path, graph)} {self.told}".encode()).hexdigest()
        features = self.convention.features
        self._fbank = None if features is None else Fbank(features).to(device)
        if features is not None:
            self.min_samples = features.samples(1)
        self.side = Side(str(path), self._try(device), 0)

    def embed(self, waveforms: Tensor) -> Tensor:
        """See `Teacher.embed`."""
        with torch.no_grad(), torch.autocast(waveforms.device.type, enabled=False):
            fed = self._fed(waveforms.float(), self.convention).cpu().numpy()
        pieces = np.split(fed, len(fed)) if self.convention.one_by_one else [fed]
        try:
            embeddings = [self._session.run([self._output], {self._input: piece})[0] for piece in pieces]
        except Exception as error:  # onnxruntime's errors share no base class of their own
            raise ModelFileError(
                f"{self._path}: onnxruntime failed on {len(fed)} utterances of "
                f"{waveforms.shape[1] / self.sample_rate_hz:.2f} s ({first_line(error)}); export it with batch and "
                "length free"
            ) from error
        return torch.from_numpy(np.concatenate(embeddings)).float().to(waveforms.device)

    def _fed(self, waveforms: Tensor, how: Convention) -> Tensor:
        """What goes in for waveforms (batch, samples)."""
        if self._fbank is None:
            scaled = waveforms * how.scale
            return scaled.unsqueeze(1) if how.channels else scaled
        features = self._fbank.log_energies(waveforms * (how.scale / FULL_SCALE))
        if how.normalise != "none":
            features = features - features.mean(1, keepdim=True)
        if how.normalise == "mean_std":
            features = features / (features.std(1, keepdim=True) + _EPSILON)
        return features.transpose(1, 2) if how.bins_first else features

    def _try(self, device: torch.device) -> int:
        """Embed noise of two lengths; the size of the embeddings."""
        generator = torch.Generator().manual_seed(0)
        sizes = set()
        for seconds in _TRIED_S:
            noise = 0.1 * torch.randn(2, round(seconds * self.sample_rate_hz), generator=generator)
            embeddings = self.embed(noise.to(device))
            if embeddings.dim() != 2 or len(embeddings) != 2 or not embeddings.isfinite().all():
                raise ModelFileError(
                    f"{self._path}: gave {tuple(embeddings.shape)} for 2 utterances of noise; expected finite "
                    "embeddings (batch, embedding_dim); name the right output as onnx.output"
                )
            if torch.equal(embeddings[0], embeddings[1]):
                raise ModelFileError(
                    f"{self._path}: gave the same embedding for two different utterances of noise; expected a model "
                    "that tells utterances apart"
                )
            sizes.add(embeddings.shape[1])
        if len(sizes) > 1:
            raise ModelFileError(
                f"{self._path}: its output {self._output} grows with the length ({sorted(sizes)} numbers); expected an "
                "embedding; name another as onnx.output"
            )
        return sizes.pop()


def _checksum(path: Path, graph: onnx.GraphProto) -> str:
    """SHA-256 of a graph and, where they lie in files beside it, of its weights."""
    beside = {ExternalDataInfo(tensor).location for tensor in graph.initializer if uses_external_data(tensor)}
    sums = [file_checksum(each) for each in (path, *(path.parent / name for name in sorted(beside)))]
    return sums[0] if len(sums) == 1 else hashlib.sha256(" ".join(sums).encode()).hexdigest()


def _weights(graph: onnx.GraphProto) -> int:
    """How many numbers of floating point a graph's initialisers hold."""
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    return sum(math.prod(tensor.dims) for tensor in graph.initializer if tensor.data_type in floats)


def _only_input(path: Path, session: Any) -> Any:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs)
        raise ModelFileError(f"{path}: {len(inputs)} inputs given ({names}); expected one, features or waveforms")
    if inputs[0].type != "tensor(float)":
        raise ModelFileError(
            f"{path}: input {inputs[0].name} of type {inputs[0].type} given; expected tensor(float): export the model "
            "in float32, without int8 or fp16 inputs"
        )
    return inputs[0]


def _embedding_output(path: Path, session: Any, wanted: str | None) -> str:
    types = {each.name: each.type for each in session.get_outputs()}
    if wanted is None and len(types) > 1:
        raise ModelFileError(f"{path}: {len(types)} outputs given ({', '.join(types)}); say which: onnx.output")
    if wanted is not None and wanted not in types:
        raise ModelFileError(f"{path}: onnx.output {wanted!r} given; it has {', '.join(types)}")
    name = wanted or next(iter(types))
    if types[name] not in ("tensor(float)", "tensor(float16)", "tensor(double)"):
        raise ModelFileError(f"{path}: output {name} of type {types[name]} given; expected an embedding of floats")
    return name


def _providers(device: torch.device) -> list[str]:
    """What onnxruntime is to compute on, the best first."""
    cuda = device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    return [*(["CUDAExecutionProvider"] if cuda else []), "CPUExecutionProvider"]


def _where(session: Any, device: torch.device) -> str:
    if device.type == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        return "; on the processor, for this onnxruntime has no CUDA (pip install onnxruntime-gpu)"
    return ""
