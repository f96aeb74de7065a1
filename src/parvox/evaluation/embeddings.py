"""Utterances to embeddings, each computed once."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from parvox.arrays import DamagedArraysError, read_arrays
from parvox.corpora.shards import content_of, shard_of
from parvox.errors import AudioError, CorpusError, ModelFileError, TrialError
from parvox.evaluation.ranks import Ranks, embed_in_processes
from parvox.evaluation.system import System
from parvox.files import atomic_file, output_errors
from parvox.progress import progress

if TYPE_CHECKING:
    from lhotse.cut import Cut

_SAVE_EVERY_S = 30.0


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Embeddings of utterances, all by one model.

    Attributes:
        ids: Utterance ids.
        matrix: (utterances, embedding_dim) float32, not length-normalised.
        fingerprint: The model's; only embeddings of equal fingerprints may be compared.
    """

    ids: Sequence[str]
    matrix: NDArray[np.float32] = field(repr=False)
    fingerprint: str

    def rows(self, ids: Sequence[str], what: str = "trials") -> NDArray[np.int64]:
        """Where utterances stand.

        Args:
            ids: The utterances wanted.
            what: Who wants them, for the message.

        Raises:
            TrialError: one is not there.
        """
        place = {utterance: row for row, utterance in enumerate(self.ids)}
        unknown = [utterance for utterance in ids if utterance not in place]
        if unknown:
            raise TrialError(
                f"{what}: {len(unknown)} of {len(ids)} utterances have no embedding, such as {unknown[0]!r}; "
                "embed them too, or correct the list"
            )
        return np.array([place[utterance] for utterance in ids], np.int64)


class EmbeddingCache:
    """Embeddings of one model on disk, by content: of the model and of each utterance's audio.

    Each `add` writes one new file, whole, so that several processes may share the folder and an interrupted run
    goes on where it was. Embeddings are biometric data: the folder is readable by its owner only.

    Args:
        folder: The folder for all models.
        system: The model.
        read: Whether to look for what is there, or only to add to it.
    """

    def __init__(self, folder: Path, system: System, *, read: bool = True) -> None:
        self.folder = Path(folder) / system.key[:32]
        self._dim = system.embedding_dim
        self._found: dict[bytes, NDArray[np.float32]] = {}
        for path in sorted(self.folder.glob("*.npz")) if read else ():
            try:
                arrays = read_arrays(path)
                keys, matrix = arrays["keys"], arrays["embeddings"]
            except (OSError, DamagedArraysError, KeyError):
                continue  # a damaged file only costs computing again
            if keys.dtype != np.uint8 or matrix.dtype != np.float32 or matrix.shape[1:] != (self._dim,):
                continue
            if keys.shape != (len(matrix), 32) or not np.isfinite(matrix).all():
                continue
            self._found.update(zip(map(bytes, keys), matrix, strict=True))

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: bytes) -> NDArray[np.float32] | None:
        """The embedding (embedding_dim,) of an utterance, or None."""
        return self._found.get(key)

    def add(self, keys: Sequence[bytes], matrix: NDArray[np.float32]) -> None:
        """Keep embeddings.

        Args:
            keys: From `content_key`.
            matrix: (utterances, embedding_dim).

        Raises:
            OutputError: they cannot be written.
        """
        self._found.update(zip(keys, matrix, strict=True))
        with output_errors(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = hashlib.sha256(b"".join(keys)).hexdigest()[:32]
        with (
            atomic_file(self.folder / f"{name}.npz", overwrite=True) as temporary,
            temporary.open("wb") as file,
        ):
            np.savez(file, keys=np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32), embeddings=matrix)


def default_cache() -> Path:
    """Where commands keep embeddings: ``$PARVOX_CACHE``, else ``parvox`` in the user's cache folder."""
    given = os.environ.get("PARVOX_CACHE")
    if given:
        return Path(given) / "embeddings"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "parvox" / "embeddings"


def embed_cuts(
    system: System,
    cuts: Iterable[Cut],
    *,
    cache: Path | None = None,
    workers: int | None = None,
    processes: int = 1,
    ranks: Ranks | None = None,
    what: str = "utterances",
) -> Embeddings:
    """Embed whole utterances, those of like length together.

    What is done is kept from time to time, so that an interrupted call goes on where it was.

    Args:
        system: The model.
        cuts: Lhotse cuts; an id that comes twice is embedded once.
        cache: Folder of an `EmbeddingCache`; nothing is kept without one.
        workers: Loading processes; chosen by the processors at hand if None.
        processes: Processes of this machine that embed; with more than one, none are needed to load.
        ranks: The processes that torchrun started; each embeds its share, and all get the whole. Then all must make
            the same calls.
        what: What they are, for the progress bar and messages.

    Returns:
        One row for each id, in the order given.

    Raises:
        AudioError: an utterance is too short for the model.
        CorpusError: the cuts are at another rate than the model's, or a recording cannot be read.
        ModelFileError: the model gives embeddings that are not finite.
    """
    by_id = {cut.id: cut for cut in cuts}
    if not by_id:
        raise CorpusError(f"no {what} to embed; expected at least one")
    if system.stored is not None:
        return Embeddings(list(by_id), system.stored.find(list(by_id.values())), system.fingerprint)
    for cut in by_id.values():
        _check(cut, system)
    kept = None if cache is None else EmbeddingCache(cache, system, read=ranks is None or ranks.first)
    made = _Making(system, list(by_id.values()), kept, what)
    if ranks is None:
        made.look_up()
        made.embed(made.missing, workers, processes)
        return made.result()
    made.keys, missing = ranks.tell(lambda: (made.look_up(), [cut.id for cut in made.missing]))
    mine = ranks.share([by_id[utterance] for utterance in missing])
    for ids, matrix in ranks.gather(lambda: made.embed(mine, workers, 1)):
        made.fill(ids, matrix)
    return made.result()


class _Making:
    """Embeddings of some utterances in the making."""

    def __init__(self, system: System, cuts: Sequence[Cut], kept: EmbeddingCache | None, what: str) -> None:
        self._system, self._cuts, self._kept, self._what = system, cuts, kept, what
        self._matrix = np.full((len(cuts), system.embedding_dim), np.nan, np.float32)  # until they are known
        self._row = {cut.id: index for index, cut in enumerate(cuts)}
        self.keys: dict[str, bytes] = {}
        self.missing = list(cuts)

    def look_up(self) -> dict[str, bytes]:
        """Take what is kept, and see what is missing; the content key of every utterance."""
        if self._kept is None:
            return {}
        hashes: dict[str, bytes] = {}
        self.missing = []
        for cut in progress(self._cuts, f"{self._system.name}: look up {self._what}", unit="utterance"):
            self.keys[cut.id] = content_key(cut, hashes)
            found = self._kept.get(self.keys[cut.id])
            if found is None:
                self.missing.append(cut)
            else:
                self._matrix[self._row[cut.id]] = found
        return self.keys

    def embed(self, cuts: Sequence[Cut], workers: int | None, processes: int) -> tuple[list[str], NDArray[np.float32]]:
        """Embed some of them, and keep them; ids and embeddings (utterances, embedding_dim)."""
        if not cuts:
            return [], self._matrix[:0]
        embedded = (
            embed_in_processes(self._system, cuts, processes)
            if processes > 1
            else embed_directly(self._system, cuts, workers)
        )
        ids: list[str] = []
        saved, saved_at = 0, time.monotonic()
        bar = progress(embedded, f"{self._system.name}: embed {self._what}", total=len(cuts), unit="utterance")
        try:
            for utterance, embedding in bar:
                self._matrix[self._row[utterance]] = embedding
                ids.append(utterance)
                if time.monotonic() - saved_at > _SAVE_EVERY_S:
                    self._keep(ids[saved:])
                    saved, saved_at = len(ids), time.monotonic()
        finally:
            self._keep(ids[saved:])
        return ids, self._matrix[[self._row[each] for each in ids]]

    def fill(self, ids: Sequence[str], matrix: NDArray[np.float32]) -> None:
        """Take embeddings that another process made."""
        self._matrix[[self._row[each] for each in ids]] = matrix

    def result(self) -> Embeddings:
        """All of them."""
        return Embeddings(list(self._row), self._matrix, self._system.fingerprint)

    def _keep(self, ids: Sequence[str]) -> None:
        if self._kept is not None and ids:
            self._kept.add([self.keys[each] for each in ids], self._matrix[[self._row[each] for each in ids]])


def content_key(cut: Cut, hashes: dict[str, bytes] | None = None) -> bytes:
    """SHA-256 of what an utterance sounds like: its file's bytes and which part of them, else its samples.

    Of an utterance in a shard the manifest tells what its bytes hash to, and reading checks it.

    Args:
        cut: The utterance.
        hashes: Files hashed so far, filled in; spares reading a recording once for each cut of it.

    Raises:
        CorpusError: its audio cannot be read.
    """
    if shard_of(cut) is not None:
        return hashlib.sha256(f"shard {content_of(cut)}".encode()).digest()
    hashes = {} if hashes is None else hashes
    path = _plain_file(cut)
    if path is None:
        try:
            samples = cut.load_audio()
        except Exception as error:  # Lhotse's audio errors share no base class
            raise _unreadable(cut, error) from error
        return hashlib.sha256(np.ascontiguousarray(samples, np.float32).tobytes()).digest()
    if path not in hashes:
        try:
            with open(path, "rb") as file:
                hashes[path] = hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise _unreadable(cut, error) from error
    part = f"{round(cut.start * cut.sampling_rate)} {cut.num_samples} {cut.sampling_rate} {cut.channel}"
    return hashlib.sha256(hashes[path] + part.encode()).digest()


def embed_directly(
    system: System, cuts: Sequence[Cut], workers: int | None = None
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Embed utterances in this process: id and embedding (embedding_dim,) of each, the longest first.

    Raises:
        ParvoxError: a recording cannot be read, or the model is broken.
    """
    from parvox.data import iterate_utterances

    for batch in iterate_utterances(cuts, workers=workers):
        embeddings = system.embed(batch.waveforms.numpy(), batch.lengths.numpy(), batch.ids)
        bad = ~np.isfinite(embeddings).all(axis=1)
        if bad.any():
            raise ModelFileError(
                f"{system.name}: the embedding of {batch.ids[int(bad.argmax())]} is not finite; the model is broken: "
                "train or export it again"
            )
        yield from zip(batch.ids, embeddings, strict=True)


def _check(cut: Cut, system: System) -> None:
    if cut.sampling_rate != system.sample_rate_hz:
        raise CorpusError(
            f"{cut.id} is at {cut.sampling_rate} Hz, {system.name} listens at {system.sample_rate_hz} Hz: "
            "prepare the corpus at the model's rate"
        )
    if cut.num_samples < system.min_samples:
        raise AudioError(
            f"{cut.id}: {cut.duration:.3g} s; {system.name} needs at least "
            f"{system.min_samples / system.sample_rate_hz:.3g} s: prepare the corpus with a higher minimum"
        )


def _plain_file(cut: Any) -> str | None:
    """The file that a cut is simply part of; None if Lhotse has to do more than read it."""
    from lhotse.cut import MonoCut

    if not isinstance(cut, MonoCut) or cut.recording.transforms or len(cut.recording.sources) != 1:
        return None
    source = cut.recording.sources[0]
    return str(source.source) if source.type == "file" else None


def _unreadable(cut: Cut, error: Exception) -> CorpusError:
    words = " ".join(str(error).split())[:200] or type(error).__name__
    return CorpusError(f"cannot read the audio of {cut.id} ({words}); put it back, or prepare the corpus again")
