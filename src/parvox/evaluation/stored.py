"""Embeddings from a file of `parvox embed`, found again for the utterances of a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from parvox.errors import TrialError
from parvox.runtime.embeddings import Embeddings, load_embeddings

if TYPE_CHECKING:
    from lhotse.cut import Cut


class StoredEmbeddings:
    """Embeddings of whole recordings, by utterance.

    An utterance's embedding is the one of its id, else that of its recording: the one whose path, as it was given to
    `parvox embed`, is the end of the recording's path. An utterance that is only a part of its recording has none.

    Args:
        path: A file written by `parvox embed`.

    Raises:
        ParvoxError: it is missing or no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.made: Embeddings = load_embeddings(path)
        self._row = {name: row for row, name in enumerate(self.made.ids)}
        self._by_name: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        for name, row in self._row.items():
            parts = _parts(name)
            if parts:
                self._by_name.setdefault(parts[-1], []).append((parts, row))

    def find(self, cuts: Sequence[Cut]) -> NDArray[np.float32]:
        """Embeddings (utterances, embedding_dim), in the order of the cuts.

        Raises:
            TrialError: an utterance has no embedding, or two utterances have the same one.
        """
        rows = [self._find(cut) for cut in cuts]
        missing = [cut.id for cut, row in zip(cuts, rows, strict=True) if row is None]
        if missing:
            raise TrialError(
                f"{self.path}: no embedding of {len(missing)} of {len(rows)} utterances, such as {missing[0]!r}; embed "
                "their recordings too, named as the corpus has them"
            )
        first: dict[int, str] = {}
        for cut, row in zip(cuts, rows, strict=True):
            assert row is not None
            other = first.setdefault(row, cut.id)
            if other != cut.id:
                raise TrialError(
                    f"{self.path}: the embedding of {self.made.ids[row]!r} could be that of {other!r} and of "
                    f"{cut.id!r}; embed the recordings from a folder above, so that their names tell them apart"
                )
        found: NDArray[np.float32] = self.made.embeddings[np.array(rows, np.int64)]
        return found

    def _find(self, cut: Cut) -> int | None:
        if cut.id in self._row:
            return self._row[cut.id]
        sources = cut.recording.sources if cut.has_recording else []
        if len(sources) != 1 or sources[0].type != "file":
            return None
        if cut.start > 0 or cut.num_samples < cut.recording.num_samples:
            return None
        parts = _parts(str(sources[0].source))
        fitting = [
            (len(known), row) for known, row in self._by_name.get(parts[-1], []) if parts[-len(known) :] == known
        ]
        return max(fitting)[1] if fitting else None


def _parts(name: str) -> tuple[str, ...]:
    """The parts of a path, without what leads up to it."""
    return tuple(part for part in PurePosixPath(name).parts if part not in ("/", ".", ".."))
