"""What is evaluated: a model file or a run folder, behind one face."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from parvox import __version__
from parvox.errors import ModelFileError, ParvoxError

EmbedBatch = Callable[[NDArray[np.float32], NDArray[np.int64], Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class System:
    """A model that embeds.

    Attributes:
        name: For tables and pictures.
        path: Where it came from.
        kind: "model file" or "run folder".
        precision: "fp32" or "int8".
        key: SHA-256 of everything its embeddings depend on; what they are cached under.
        fingerprint: SHA-256 of the fp32 weights; embeddings of equal fingerprints may be compared.
        sample_rate_hz: The rate it listens at.
        min_samples: The fewest samples it accepts.
        embedding_dim: Size of its embeddings.
        parameters: Weights, the front end's constants left out.
        macs_1s: Multiply-accumulates for one second; None where it is not known.
        file_bytes: Size on disk; None for a run folder.
        mean: (embedding_dim,) that it wants subtracted before scoring, or None.
        synthetic: Whether it learned from synthetic voices; None where it is not known.
        embed: Padded waveforms (batch, samples), valid samples (batch,) and names to embeddings (batch, dim).
    """

    name: str
    path: Path
    kind: Literal["model file", "run folder"]
    precision: str
    key: str
    fingerprint: str
    sample_rate_hz: int
    min_samples: int
    embedding_dim: int
    parameters: int
    macs_1s: int | None
    file_bytes: int | None
    mean: NDArray[np.float32] | None
    synthetic: bool | None
    embed: EmbedBatch = field(repr=False)


def load_system(path: Path, *, name: str | None = None, threads: int = 1, device: str | None = None) -> System:
    """Open a model file or a run folder.

    Args:
        path: A file written by `parvox export` or a folder written by `parvox train` or `distill`.
        name: What to call it; the file's or folder's name by default.
        threads: Threads of a model file's session.
        device: Where a run folder's model computes, as PyTorch names it; a GPU if there is one by default.

    Raises:
        ModelFileError: it is neither, or damaged.
    """
    path = Path(path)
    if path.is_dir():
        return _from_run(path, name or path.resolve().name, device)
    return _from_file(path, name or path.stem, threads)


def load_systems(paths: Sequence[Path], *, threads: int = 1, device: str | None = None) -> list[System]:
    """Open several, under names that differ.

    Raises:
        ParvoxError: the same path is given twice, or one cannot be used.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise ParvoxError("no model given; expected one or more model files or run folders")
    for path in paths:
        if paths.count(path) > 1:
            raise ParvoxError(f"{path} is given twice; expected different models")
    return [
        load_system(path, name=name, threads=threads, device=device)
        for path, name in zip(paths, names(paths), strict=True)
    ]


def names(paths: Sequence[Path]) -> list[str]:
    """Short names that tell paths apart: the last part, with as many folders before it as that takes."""
    resolved = [Path(os.path.realpath(path)) for path in paths]  # as resolve, but bears a link to itself
    depth = 1
    while True:
        short = ["/".join(path.parts[-depth:]) for path in resolved]
        if len(set(short)) == len(set(resolved)):
            break
        depth += 1
    stems = [text.removesuffix(".onnx") for text in short]
    return [stem if stems.count(stem) == 1 else text for stem, text in zip(stems, short, strict=True)]


def _from_file(path: Path, name: str, threads: int) -> System:
    from parvox.runtime.embedder import SpeakerEmbedder

    embedder = SpeakerEmbedder.load(path, threads)
    contract = embedder.contract

    def embed(waveforms: NDArray[np.float32], lengths: NDArray[np.int64], ids: Sequence[str]) -> NDArray[np.float32]:
        rows = [waveform[:length] for waveform, length in zip(waveforms, lengths, strict=True)]
        return embedder.embed_batch(rows, ids)

    return System(
        name=name,
        path=path,
        kind="model file",
        precision=contract.precision,
        key=_sha256(path),
        fingerprint=contract.fingerprint,
        sample_rate_hz=contract.sample_rate_hz,
        min_samples=contract.min_samples,
        embedding_dim=contract.embedding_dim,
        parameters=contract.parameters,
        macs_1s=contract.macs_1s,
        file_bytes=path.stat().st_size,
        mean=None if contract.mean is None else np.array(contract.mean, np.float32),
        synthetic=contract.synthetic,
        embed=embed,
    )


def _from_run(path: Path, name: str, device: str | None) -> System:
    import torch

    from parvox.models.cost import count_macs
    from parvox.training.run import MODEL, RECIPE, load_run

    run = load_run(path)
    rate = run.recipe.model.features.sample_rate_hz
    macs_1s = count_macs(run.model, max(1.0, run.model.min_samples / rate))
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = run.model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ParvoxError(f"device {device!r}: {' '.join(str(error).split())}; give one that is there") from error

    def embed(waveforms: NDArray[np.float32], lengths: NDArray[np.int64], ids: Sequence[str]) -> NDArray[np.float32]:
        with torch.inference_mode():
            output = model(torch.from_numpy(waveforms).to(device), torch.from_numpy(lengths).to(device))
        embeddings: NDArray[np.float32] = output.embedding.float().cpu().numpy()
        return embeddings

    weights = _sha256(path / MODEL)
    key = hashlib.sha256(f"{weights} {_sha256(path / RECIPE)} parvox {__version__}".encode()).hexdigest()
    synthetic: Any = run.summary.get("synthetic")
    return System(
        name=name,
        path=path,
        kind="run folder",
        precision="fp32",
        key=key,
        fingerprint=weights,
        sample_rate_hz=rate,
        min_samples=run.model.min_samples,
        embedding_dim=run.recipe.model.embedding_dim,
        parameters=sum(parameter.numel() for parameter in run.model.parameters()),
        macs_1s=macs_1s,
        file_bytes=None,
        mean=None,
        synthetic=synthetic if isinstance(synthetic, bool) else None,
        embed=embed,
    )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error}); restore it") from error
