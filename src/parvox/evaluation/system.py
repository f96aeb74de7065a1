"""What is evaluated: a model file, a run folder, somebody else's model or embeddings made before, behind one face."""

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
from parvox.errors import ModelFileError, ParvoxError, TrialError
from parvox.evaluation.stored import StoredEmbeddings
from parvox.runtime.model_file import NoContractError
from parvox.training.teacher_settings import HEAD, TRANSFORMERS, teacher_path

EmbedBatch = Callable[[NDArray[np.float32], NDArray[np.int64], Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class System:
    """A model that embeds, or the embeddings that one has made.

    Attributes:
        name: For tables and pictures.
        path: Where it came from.
        kind: "model file", "run folder", "teacher" for a model that Parvox did not make, or "embeddings".
        precision: "fp32" or "int8"; empty for embeddings.
        key: SHA-256 of everything its embeddings depend on; what they are cached under.
        fingerprint: SHA-256 of the fp32 weights; embeddings of equal fingerprints may be compared.
        sample_rate_hz: The rate it listens at; 0 for embeddings.
        min_samples: The fewest samples it accepts; 0 for embeddings.
        embedding_dim: Size of its embeddings.
        parameters: Weights, the front end's constants left out; 0 where they are not known.
        macs_1s: Multiply-accumulates for one second; None where it is not known.
        file_bytes: Size on disk of a model file, else None.
        mean: (embedding_dim,) that it wants subtracted before scoring, or None.
        synthetic: Whether it learned from synthetic voices; None where it is not known.
        embed: Padded waveforms (batch, samples), valid samples (batch,) and names to embeddings (batch, dim).
        compatible_with: Fingerprints of other models whose embeddings may be compared with its own.
        threads: Threads of a model file's session.
        device: Where a run folder or a teacher computes.
        stored: The embeddings, where they were made before; `embed` is then of no use.
        note: What a teacher is fed, and how that was found out; empty where there is no doubt.
    """

    name: str
    path: Path
    kind: Literal["model file", "run folder", "teacher", "embeddings"]
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
    compatible_with: frozenset[str] = frozenset()
    threads: int = 1
    device: str | None = None
    stored: StoredEmbeddings | None = field(default=None, repr=False)
    note: str = ""

    def goes_with(self, other: System) -> bool:
        """Whether its embeddings may be compared with those of another model."""
        return (
            self.fingerprint == other.fingerprint
            or self.fingerprint in other.compatible_with
            or other.fingerprint in self.compatible_with
        )


def load_system(path: Path, *, name: str | None = None, threads: int = 1, device: str | None = None) -> System:
    """Open a model file, a run folder or embeddings.

    Args:
        path: A file written by `parvox export`, a folder written by `parvox train` or `distill`, any other teacher of
            docs/teachers.md, or a file (.npz) written by `parvox embed`.
        name: What to call it; the file's or folder's name by default.
        threads: Threads of a model file's session.
        device: Where a run folder's model or a teacher computes, as PyTorch names it; a GPU if there is one by
            default.

    Raises:
        ParvoxError: it is none of them, or damaged.
    """
    path = Path(path)
    if str(path).startswith(TRANSFORMERS) or (path / HEAD).is_file():
        return _from_teacher(path, name or path.name, device)
    if path.is_dir():
        return _from_run(path, name or path.resolve().name, device)
    if path.suffix.lower() == ".npz":
        return _from_embeddings(path, name or path.stem)
    try:
        return _from_file(path, name or path.stem, threads)
    except NoContractError:
        return _from_teacher(path, name or path.stem, device)


def load_systems(paths: Sequence[Path], *, threads: int = 1, device: str | None = None) -> list[System]:
    """Open several, under names that differ.

    Raises:
        ParvoxError: the same path is given twice, or one cannot be used.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise ParvoxError("no model given; expected one or more model files or run folders")
    places = [os.path.realpath(teacher_path(str(path))) for path in paths]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise ParvoxError(f"{path} is given twice; expected different models")
    return [
        load_system(path, name=name, threads=threads, device=device)
        for path, name in zip(paths, names(paths), strict=True)
    ]


def expect_there(*paths: Path) -> None:
    """Raise `ParvoxError` if a model is missing, before any work."""
    for path in paths:
        if not os.path.lexists(teacher_path(str(path))):
            raise ParvoxError(
                f"{path}: no such file or folder; expected a model file, a run folder or embeddings (.npz)"
            )


def names(paths: Sequence[Path]) -> list[str]:
    """Short names that tell paths apart: the last part, with as many folders before it as that takes."""
    resolved = [Path(os.path.realpath(path)) for path in paths]  # as resolve, but bears a link to itself
    depth = 1
    while True:
        short = ["/".join(path.parts[-depth:]) for path in resolved]
        if len(set(short)) == len(set(resolved)):
            break
        depth += 1
    stems = [text.removesuffix(".onnx").removesuffix(".npz") for text in short]
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
        compatible_with=frozenset(contract.compatible_with),
        threads=threads,
    )


def _from_embeddings(path: Path, name: str) -> System:
    stored = StoredEmbeddings(path)

    def embed(waveforms: NDArray[np.float32], lengths: NDArray[np.int64], ids: Sequence[str]) -> NDArray[np.float32]:
        raise TrialError(f"{name}: embeddings made before embed nothing new; give the model itself")

    return System(
        name=name,
        path=path,
        kind="embeddings",
        precision="",
        key=_sha256(path),
        fingerprint=stored.made.fingerprint,
        sample_rate_hz=0,
        min_samples=0,
        embedding_dim=stored.made.embeddings.shape[1],
        parameters=0,
        macs_1s=None,
        file_bytes=None,
        mean=stored.made.mean,
        synthetic=None,
        embed=embed,
        compatible_with=frozenset(stored.made.compatible_with),
        stored=stored,
    )


def _from_run(path: Path, name: str, device: str | None) -> System:
    import torch

    from parvox.models.cost import count_macs
    from parvox.training.run import EMBEDS_LIKE, MODEL, RECIPE, load_run

    run = load_run(path)
    rate = run.recipe.model.features.sample_rate_hz
    macs_1s = count_macs(run.model, max(1.0, run.model.min_samples / rate))
    device = _device(device)
    model = run.model.to(device)

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
        compatible_with=frozenset(map(str, run.summary.get(EMBEDS_LIKE) or ())),
        device=device,
    )


def _from_teacher(path: Path, name: str, device: str | None) -> System:
    import torch

    from parvox.training.teachers import load_teacher

    device = _device(device)
    teacher = load_teacher(str(path), None, torch.device(device))
    teacher.show_embeddings_alone()

    def embed(waveforms: NDArray[np.float32], lengths: NDArray[np.int64], ids: Sequence[str]) -> NDArray[np.float32]:
        rows = [torch.from_numpy(row[:length]) for row, length in zip(waveforms, lengths, strict=True)]
        with torch.inference_mode():  # one by one: not every teacher knows padding
            embeddings = torch.cat([teacher.embed(row[None].to(device)) for row in rows])
        found: NDArray[np.float32] = embeddings.float().cpu().numpy()
        return found

    key = f"{teacher.checksum} {teacher.told} parvox {__version__}"
    return System(
        name=name,
        path=path,
        kind="teacher",
        precision="fp32",
        key=hashlib.sha256(key.encode()).hexdigest(),
        fingerprint=teacher.checksum,
        sample_rate_hz=teacher.sample_rate_hz,
        min_samples=teacher.min_samples,
        embedding_dim=teacher.side.embedding_dim,
        parameters=teacher.parameters,
        macs_1s=None,
        file_bytes=path.stat().st_size if path.is_file() else None,
        mean=None,
        synthetic=None,
        embed=embed,
        device=device,
        note=teacher.note,
    )


def _device(name: str | None) -> str:
    """Where to compute, if it is there; a GPU rather than none."""
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError) as error:
        raise ParvoxError(f"device {name!r}: {' '.join(str(error).split())}; give one that is there") from error
    return name


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error}); restore it") from error
