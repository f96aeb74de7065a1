"""Embeddings of many recordings, in one file that remembers which model they came from.

Embeddings are biometric data: they are written where the caller says and printed nowhere.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parvox.arrays import read_arrays
from parvox.audio import AUDIO_SUFFIXES
from parvox.errors import AudioError, ParvoxError
from parvox.files import atomic_file
from parvox.progress import progress
from parvox.runtime.embedder import SpeakerEmbedder
from parvox.runtime.speech import find_speech
from parvox.runtime.verify import MAX_DURATION_S, read_recording


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of recordings, all by one model.

    Attributes:
        ids: (recordings,) what was embedded: paths as given, a folder's with the folder's name in front.
        embeddings: (recordings, embedding_dim) float32, not length-normalised.
        speech_s: (recordings,) seconds of speech, by energy.
        fingerprint: The model's; only embeddings of equal fingerprints may be compared.
        model: The model's name.
        mean: (embedding_dim,) that the model wants subtracted before scoring; None if nothing.
        compatible_with: Fingerprints of other models whose embeddings these may be compared with.
        left_out: Path and problem of each recording that was left out; not saved.
    """

    ids: tuple[str, ...]
    embeddings: NDArray[np.float32] = field(repr=False)
    speech_s: NDArray[np.float32] = field(repr=False)
    fingerprint: str
    model: str
    mean: NDArray[np.float32] | None = field(default=None, repr=False)
    compatible_with: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()


def find_recordings(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Files as given, and every recording below the folders given, in order of name, each once.

    Args:
        paths: Files, taken whatever their name, and folders, searched for `AUDIO_SUFFIXES`; hidden files are passed.

    Raises:
        AudioError: a folder holds no recording.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            found[path] = None
            continue
        inside = [
            each
            for each in sorted(path.rglob("*"))
            if each.suffix.lower() in AUDIO_SUFFIXES
            and not any(part.startswith(".") for part in each.relative_to(path).parts)
            and each.is_file()
        ]
        if not inside:
            raise AudioError(f"{path}: a folder without recordings; files such as .wav, .flac, .ogg or .mp3 expected")
        found.update(dict.fromkeys(inside))
    return list(found)


def embed_files(
    embedder: SpeakerEmbedder,
    paths: Sequence[str | os.PathLike[str]],
    *,
    max_duration_s: float = MAX_DURATION_S,
    cut: bool = False,
    skip_bad: bool = False,
) -> Embeddings:
    """Embed recordings on disk, one after the other.

    Args:
        embedder: The model.
        paths: Recordings, and folders to search for them.
        max_duration_s: The longest recording allowed.
        cut: Use the beginning of longer recordings instead of refusing them.
        skip_bad: Leave out recordings that cannot be used, and list them, instead of stopping at the first.

    Raises:
        AudioError: a recording cannot be used, or none can.
    """
    ids, rows, speech, left_out = [], [], [], []
    for path in progress(find_recordings(paths), "embed", unit="recording"):
        try:
            audio = read_recording(embedder, path, max_duration_s=max_duration_s, cut=cut)
            rows.append(embedder.embed_batch([audio.samples], [audio.name])[0])
        except AudioError as error:
            if not skip_bad:
                raise
            left_out.append((str(path), str(error)))
            continue
        ids.append(path.as_posix())
        speech.append(find_speech(audio.samples, audio.sample_rate_hz).seconds)
    if not rows:
        first = f", the first: {left_out[0][1]}" if left_out else ""
        raise AudioError(f"no recording that can be embedded; {len(left_out)} left out{first}")
    contract = embedder.contract
    return Embeddings(
        ids=tuple(ids),
        embeddings=np.stack(rows),
        speech_s=np.array(speech, np.float32),
        fingerprint=contract.fingerprint,
        model=contract.name,
        mean=None if contract.mean is None else np.array(contract.mean, np.float32),
        compatible_with=contract.compatible_with,
        left_out=tuple(left_out),
    )


def embed_to_file(
    model: str | os.PathLike[str],
    paths: Sequence[str | os.PathLike[str]],
    out: Path,
    *,
    max_duration_s: float = MAX_DURATION_S,
    cut: bool = False,
    skip_bad: bool = False,
    threads: int = 1,
    overwrite: bool = False,
) -> Embeddings:
    """Embed recordings on disk and save the result, whole or not at all.

    Args:
        model: A model file.
        paths: Recordings, and folders to search for them.
        out: The file to write, see `save_embeddings`.
        max_duration_s: The longest recording allowed.
        cut: Use the beginning of longer recordings instead of refusing them.
        skip_bad: Leave out recordings that cannot be used instead of stopping at the first.
        threads: Threads to compute with.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ParvoxError: the model, a recording or `out` cannot be used; nothing is written.
    """
    embedder = SpeakerEmbedder.load(model, threads)
    with atomic_file(out, overwrite=overwrite) as temporary:  # before the work, to learn early that it cannot be
        made = embed_files(embedder, paths, max_duration_s=max_duration_s, cut=cut, skip_bad=skip_bad)
        _write(made, temporary)
    return made


def save_embeddings(made: Embeddings, path: Path, *, overwrite: bool = False) -> None:
    """Write a NumPy ``.npz`` with the attributes of `Embeddings` as plain arrays, without pickle.

    Raises:
        OutputError: it exists and `overwrite` is false, or it cannot be written.
    """
    with atomic_file(path, overwrite=overwrite) as temporary:
        _write(made, temporary)


def load_embeddings(path: str | os.PathLike[str], fingerprint: str | None = None) -> Embeddings:
    """Read what `save_embeddings` wrote.

    Args:
        path: The file.
        fingerprint: That of the model whose embeddings they shall be compared with; any if left out.

    Raises:
        ParvoxError: it is missing, damaged, no such file, or from another model.
    """
    try:
        arrays = read_arrays(Path(path))
        made = Embeddings(
            ids=tuple(map(str, arrays["ids"])),
            embeddings=_numbers(arrays["embeddings"]),
            speech_s=_numbers(arrays["speech_s"]),
            fingerprint=str(arrays["fingerprint"]),
            model=str(arrays["model"]),
            mean=_numbers(arrays["mean"]) if "mean" in arrays else None,
            compatible_with=tuple(map(str, arrays["compatible_with"])) if "compatible_with" in arrays else (),
        )
    except FileNotFoundError:
        raise ParvoxError(f"{path}: no such file; embeddings written by parvox embed are expected") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise ParvoxError(f"{path}: damaged or no embeddings; a file written by parvox embed is expected") from None
    if not made.embeddings.ndim == 2 or not len(made.ids) == len(made.embeddings) == len(made.speech_s):
        raise ParvoxError(f"{path}: ids and embeddings differ in number; a file written by parvox embed is expected")
    if not made.embeddings.shape[1]:
        raise ParvoxError(f"{path}: embeddings of no numbers; a file written by parvox embed is expected")
    if len(set(made.ids)) < len(made.ids):
        twice = next(name for name, count in collections.Counter(made.ids).items() if count > 1)
        raise ParvoxError(f"{path}: several embeddings of {twice!r}; one is expected: embed the recordings again")
    bad = ~np.isfinite(made.embeddings).all(axis=1)
    if bad.any() or not (made.mean is None or np.isfinite(made.mean).all()):
        which = f"the embedding of {made.ids[int(bad.argmax())]!r}" if bad.any() else "the mean"
        raise ParvoxError(f"{path}: {which} is not finite; the model is broken: embed the recordings with a sound one")
    if made.mean is not None and made.mean.shape != made.embeddings.shape[1:]:
        raise ParvoxError(
            f"{path}: embeddings and their mean differ in size; a file written by parvox embed is expected"
        )
    if fingerprint is not None and made.fingerprint != fingerprint:
        raise ParvoxError(
            f"{path}: embeddings of the model {made.model} ({made.fingerprint[:12]}), not of the model at hand "
            f"({fingerprint[:12]}): embed the recordings again"
        )
    return made


def _numbers(array: NDArray[Any]) -> NDArray[np.float32]:
    """As float32; `TypeError` for what are no real numbers."""
    if array.dtype.kind != "f":
        raise TypeError(f"{array.dtype} is no type of real numbers")
    return array.astype(np.float32)


def _write(made: Embeddings, path: Path) -> None:
    arrays: dict[str, Any] = {
        "ids": np.array(made.ids, dtype=np.str_),
        "embeddings": made.embeddings,
        "speech_s": made.speech_s,
        "fingerprint": np.array(made.fingerprint),
        "model": np.array(made.model),
        "compatible_with": np.array(made.compatible_with, dtype=np.str_),
    }
    if made.mean is not None:
        arrays["mean"] = made.mean
    with path.open("wb") as file:
        np.savez(file, **arrays)
