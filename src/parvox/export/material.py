"""Real clips from a prepared corpus: to check with, to calibrate with, to set thresholds with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from parvox.corpora.prepared import PreparedCorpus
from parvox.data import iterate_utterances
from parvox.errors import CorpusError, ExportError
from parvox.evaluation.embeddings import Embeddings
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.rates import distinct_pairs
from parvox.evaluation.scoring import cosine_scores
from parvox.evaluation.trials import TrialIndex
from parvox.export.calibrate import Clip
from parvox.export.session import run_batch
from parvox.progress import progress

if TYPE_CHECKING:
    from lhotse.cut import Cut

_SEED = 0
_CROP_S = 4.0  # calibration and checks need variety, not length
_MEAN_UTTERANCES = 2000


@dataclass
class Material:
    """What a corpus gives for an export.

    Attributes:
        corpus: The prepared corpus.
        sample_rate_hz: The model's rate.
        min_samples: The fewest samples the model accepts.
        trials: The dev trials; None where there are not both kinds.
    """

    corpus: PreparedCorpus
    sample_rate_hz: int
    min_samples: int
    trials: TrialIndex | None = field(init=False)

    def __post_init__(self) -> None:
        rate = self.corpus.info.sample_rate_hz
        if rate != self.sample_rate_hz:
            raise CorpusError(
                f"{self.corpus.folder} is at {rate} Hz, the model listens at {self.sample_rate_hz} Hz: give a corpus "
                "prepared at the model's rate with --corpus"
            )
        self.trials = None
        dev = self.corpus.info.splits.get("dev")
        if dev is not None and dev.trials_from:
            trials = TrialIndex.from_trials(
                self.corpus.utterance_trials("dev"), f"dev trials of {self.corpus.info.name}"
            )
            if trials.targets and trials.nontargets:
                self.trials = trials

    def speaker_pairs(self) -> int:
        """Different pairs of speakers among the non-target dev trials: what rates of false accepts can rest on."""
        if self.trials is None:
            return 0
        said = {cut.id: cut.supervisions[0] for cut in self.corpus.cuts("dev", lazy=True)}
        speaker_of = {name: segment.speaker for name, segment in said.items()}
        text_of = {name: segment.text or "" for name, segment in said.items()}
        speakers = self.trials.speakers(speaker_of, text_of if self.corpus.info.text_dependent else None)
        others = speakers.enrol != speakers.test
        return distinct_pairs(speakers.enrol[others], speakers.test[others])

    def check_clips(self, count: int) -> list[Clip]:
        """Clips to compare two graphs on: whole utterances from the shortest to the longest, none over 4 s.

        Taken from the dev split, or where there is none from the training split.
        """
        split = "dev" if "dev" in self.corpus.info.splits else "train"
        cuts = [cut for cut in self.corpus.cuts(split) if cut.num_samples >= self.min_samples]
        if not cuts:
            raise CorpusError(
                f"{self.corpus.folder}: no {split} utterance is as long as the {self.min_samples} samples the model "
                "needs; give another corpus with --corpus"
            )
        cuts.sort(key=lambda cut: (cut.num_samples, cut.id))
        chosen = np.unique(np.linspace(0, len(cuts) - 1, count).round().astype(int))
        return self._read([cuts[index] for index in chosen])

    def training_clips(self, count: int) -> list[Clip]:
        """Randomly chosen training utterances, the same ones each time, at most 4 s of each."""
        clips = self._read([cut for cut in self._sample("train", count) if cut.num_samples >= self.min_samples])
        if not clips:
            raise CorpusError(
                f"{self.corpus.folder}: no training utterance is long enough for the model; give another with --corpus"
            )
        return clips

    def mean(self, session: Any) -> NDArray[np.float32]:
        """The mean embedding, (embedding_dim,), over up to 2000 training utterances."""
        cuts = [cut for cut in self._sample("train", _MEAN_UTTERANCES) if cut.num_samples >= self.min_samples]
        total = sum(matrix.sum(0, dtype=np.float64) for _, matrix in self._embedded(session, cuts, "training mean"))
        mean: NDArray[np.float32] = np.asarray(total / len(cuts), np.float32)
        return mean

    def dev_embeddings(self, session: Any, what: str) -> Embeddings:
        """Embeddings of all utterances of the dev trials, whole."""
        trials = self._some_trials()
        wanted = set(trials.ids)
        cuts = [cut for cut in self.corpus.cuts("dev") if cut.id in wanted]
        short = [cut.id for cut in cuts if cut.num_samples < self.min_samples]
        if short:
            raise CorpusError(
                f"{len(short)} utterances of the dev trials, such as {short[0]}, are shorter than the "
                f"{self.min_samples / self.sample_rate_hz:.2g} s the model needs; prepare the corpus with a higher "
                "minimum"
            )
        parts = list(self._embedded(session, cuts, what))
        ids = [utterance for batch, _ in parts for utterance in batch]
        return Embeddings(ids, np.concatenate([matrix for _, matrix in parts]), "")

    def dev_scores(self, embeddings: Embeddings, mean: NDArray[np.float32] | None) -> ScoreSet:
        """Cosine scores of the dev trials, after subtraction of a mean."""
        trials = self._some_trials()
        return ScoreSet.from_labels(cosine_scores(embeddings, trials, mean), trials.target)

    def _some_trials(self) -> TrialIndex:
        if self.trials is None:
            raise ExportError(
                f"{self.corpus.folder} has no dev trials of both kinds; give another corpus with --corpus"
            )
        return self.trials

    def _sample(self, split: str, count: int) -> list[Cut]:
        total = self.corpus.info.splits[split].utterances if split in self.corpus.info.splits else 0
        rng = np.random.default_rng(_SEED)
        chosen = set(rng.choice(total, min(count, total), replace=False).tolist())
        return [cut for number, cut in enumerate(self.corpus.cuts(split, lazy=True)) if number in chosen]

    def _read(self, cuts: list[Cut]) -> list[Clip]:
        if not cuts:
            return []
        most = max(int(_CROP_S * self.sample_rate_hz), self.min_samples)
        clips: dict[str, Clip] = {}
        for batch in iterate_utterances(cuts, workers=0):
            for utterance, waveform, length in zip(batch.ids, batch.waveforms, batch.lengths.tolist(), strict=True):
                first, count = max(0, length - most) // 2, min(length, most)
                clips[utterance] = waveform[first : first + count].numpy().copy()
        return [clips[cut.id] for cut in cuts]

    def _embedded(self, session: Any, cuts: list[Cut], what: str) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
        bar = progress(iterate_utterances(cuts), what, unit="batch")
        for batch in bar:
            yield batch.ids, run_batch(session, batch.waveforms.numpy(), batch.lengths.numpy())
