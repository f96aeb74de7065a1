"""One side of trials: a model, what it has embedded so far, and what the training split tells it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from parvox.evaluation.embeddings import Embeddings, embed_cuts
from parvox.evaluation.normalisation import check_cohort, speaker_means
from parvox.evaluation.questions import TRAIN
from parvox.evaluation.ranks import Ranks
from parvox.evaluation.scoring import normalise
from parvox.evaluation.system import System

if TYPE_CHECKING:
    from lhotse.cut import Cut

    from parvox.corpora.prepared import PreparedCorpus

Mean = Literal["model", "train", "none"]

_MEAN_UTTERANCES = 2000


class Ways(TypedDict):
    """How to embed; see `embed_cuts`."""

    cache: Path | None
    workers: int | None
    processes: int
    ranks: Ranks | None


class Side:
    """What a model gives for one side of trials; nothing is embedded twice.

    Args:
        system: The model.
        corpus: Whose training split gives mean and cohort.
        mean: What to subtract from embeddings.
        ways: How to embed.
        space: The model whose embeddings these are compared with, and whose own mean both sides then lose; `system`
            itself by default.
    """

    def __init__(
        self, system: System, corpus: PreparedCorpus, mean: Mean, ways: Ways, space: System | None = None
    ) -> None:
        self.system, self.corpus, self._space = system, corpus, space or system
        self._mean, self._ways = mean, ways
        self._known: dict[str, NDArray[np.float32]] = {}
        self._subtracted: tuple[NDArray[np.float32] | None, str] | None = None
        self._cohort: Embeddings | None = None

    def embeddings(self, cuts: Iterable[Cut], what: str = "utterances") -> Embeddings:
        """Embeddings of utterances, in the order given.

        Args:
            cuts: The utterances.
            what: What they are, for the progress bar.

        Raises:
            ParvoxError: one cannot be embedded; the message says why.
        """
        wanted = {cut.id: cut for cut in cuts}
        missing = [cut for name, cut in wanted.items() if name not in self._known]
        if missing:
            found = embed_cuts(self.system, missing, what=what, **self._ways)
            if len(missing) == len(wanted):
                self._known.update(zip(found.ids, found.matrix, strict=True))
                return found
            self._known.update(zip(found.ids, found.matrix, strict=True))
        matrix = np.stack([self._known[name] for name in wanted])
        return Embeddings(list(wanted), matrix, self.system.fingerprint)

    def train(self) -> tuple[list[Cut], Embeddings]:
        """The training utterances and their embeddings."""
        cuts = list(self.corpus.cuts(TRAIN))
        return cuts, self.embeddings(cuts, "training utterances")

    def unit(self, embeddings: Embeddings) -> NDArray[np.float32]:
        """Embeddings freed of the mean and brought to length one."""
        return normalise(embeddings, self.subtracted[0])

    @property
    def subtracted(self) -> tuple[NDArray[np.float32] | None, str]:
        """The mean to subtract, and how to say so."""
        if self._subtracted is None:
            mean, words = None, "cosine"
            if self._mean == "model" and self._space.mean is not None:
                mean, words = self._space.mean, "cosine, the model's mean subtracted"
            elif self._mean == TRAIN:
                cuts = _spread(list(self.corpus.cuts(TRAIN)), _MEAN_UTTERANCES)
                matrix = self.embeddings(cuts, "training utterances").matrix
                mean = matrix.mean(axis=0, dtype=np.float64).astype(np.float32)
                words = f"cosine, mean of {len(cuts):,} training utterances subtracted"
            self._subtracted = mean, words
        return self._subtracted

    def cohort(self, speakers: Sequence[str]) -> NDArray[np.float32]:
        """One vector a training speaker, (speakers, dim) of length one.

        Args:
            speakers: Those of the trials, who must not be among them.

        Raises:
            TrialError: they are, or there are too few training speakers.
        """
        if self._cohort is None:
            speaker_of = {cut.id: cut.supervisions[0].speaker for cut in self.corpus.cuts(TRAIN)}
            check_cohort(list(speaker_of.values()), speakers)
            self._cohort = speaker_means(self.train()[1], speaker_of, self.subtracted[0])
        check_cohort(list(self._cohort.ids), speakers)
        return normalise(self._cohort)


def _spread(cuts: list[Cut], most: int) -> list[Cut]:
    if len(cuts) <= most:
        return cuts
    return [cuts[row] for row in np.linspace(0, len(cuts) - 1, most).astype(int)]
