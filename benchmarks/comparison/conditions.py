"""The conditions that students are compared under: what is done to the test side of each trial."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from parvox.corpora.prepared import PreparedCorpus
from parvox.data import iterate_utterances
from parvox.data.augmentation import active_power, reverberate
from parvox.evaluation.bootstrap import Replicates, bootstrap
from parvox.evaluation.kinds import wrong_trials
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.questions import load_questions
from parvox.evaluation.resampling import speaker_weights
from parvox.evaluation.scoring import pair_products
from parvox.evaluation.system import System
from parvox.evaluation.trials import TrialIndex

SNR_DB = (0.0, 15.0)
SHORT_S = 0.5
MIN_SPEAKERS = 20  # a source with fewer test speakers gives no rate worth the name
REPLICATES = 500
P_TARGET = 0.01
RATES = ("eer", "min_dcf")
CLEAN, ALL = "clean", "all"  # what models are compared by first, on words and on phrases

Waveform = NDArray[np.float32]
Change = Callable[[Waveform, np.random.Generator], Waveform]


@dataclass(frozen=True, eq=False)
class Source:
    """The trials of one source.

    Attributes:
        name: Of the source.
        rows: (trials,) which of the list's trials.
        enrol: (trials,) number of the enrolment speaker.
        test: (trials,) number of the test speaker.
        speakers: How many there are.
    """

    name: str
    rows: NDArray[np.int64]
    enrol: NDArray[np.int32]
    test: NDArray[np.int32]
    speakers: int


class Conditions:
    """Scores a model on the trials of a split, under each condition.

    Preparation never draws two pieces of one recording as a target trial.

    Error rates are taken within each source of at least `MIN_SPEAKERS` speakers and averaged, so that no threshold is
    shared by recordings of unlike origin.

    Args:
        corpus: The prepared corpus.
        split: Whose trials.
        only: Names of conditions; all if None.
    """

    def __init__(self, corpus: PreparedCorpus, split: str, only: tuple[str, ...] | None = None) -> None:
        self.cuts = list(corpus.cuts(split))
        self.trials = TrialIndex.from_trials(corpus.utterance_trials(split), split)
        rate = corpus.info.sample_rate_hz
        noises = [_load(cut) for cut in corpus.noise(test=True) or ()]
        rooms = [_load(cut) for cut in corpus.rirs(test=True) or ()]
        changes: dict[str, Change] = {
            CLEAN: lambda wave, _: wave,
            "noise": lambda wave, draw: _noisy(wave, noises[draw.integers(len(noises))], rate, draw),
            "room": lambda wave, draw: _in_a_room(wave, rooms[draw.integers(len(rooms))]),
            "short": lambda wave, _: _middle(wave, round(SHORT_S * rate)),
        }
        self.changes = {name: change for name, change in changes.items() if only is None or name in only}
        self.sources = self._sources(corpus, split)

    def scores(self, system: System) -> dict[str, NDArray[np.float32]]:
        """Cosine of every trial, by condition, (trials,) each; only the test side is changed."""
        embedded = {}
        for name, change in self.changes.items():
            found = _embedded(system, self.cuts, change)
            embedded[name] = np.stack([found[each] for each in self.trials.ids])
        return {
            name: pair_products(embedded[CLEAN], changed, self.trials.enrol, self.trials.test)
            for name, changed in embedded.items()
        }

    def rates(self, condition: str, scores: NDArray[np.float32]) -> tuple[float, float]:
        """EER and minDCF, each the mean over the sources; all conditions have the same trials."""
        sets = [ScoreSet.from_labels(scores[s.rows], self.trials.target[s.rows]) for s in self.sources]
        eers = [each.eer() for each in sets]
        costs = [each.min_dcf(P_TARGET) for each in sets]
        return float(np.mean(eers)), float(np.mean(costs))

    def replicates(self, condition: str, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """(2, `REPLICATES`): EER and minDCF with speakers drawn anew within each source, alike for every model."""
        parts: list[Replicates] = []
        for source in self.sources:
            weights = speaker_weights(source.speakers, REPLICATES)
            target = self.trials.target[source.rows]
            parts.append(
                bootstrap(scores[source.rows], target, source.enrol, source.test, weights, p_targets=(P_TARGET,))
            )
        mean: NDArray[np.float64] = np.mean([_measures(part) for part in parts], axis=0)
        return mean

    def _sources(self, corpus: PreparedCorpus, split: str) -> list[Source]:
        speech = {cut.id: cut.supervisions[0] for cut in self.cuts}
        speakers = self.trials.speakers({name: each.speaker for name, each in speech.items()})
        of_id = np.array([speech[name].custom["source"] for name in self.trials.ids])
        of_trial = of_id[self.trials.test]
        sources = []
        for name in sorted(set(of_trial)):
            rows = np.flatnonzero(of_trial == name)
            names, numbers = np.unique([speakers.enrol[rows], speakers.test[rows]], return_inverse=True)
            enrol, test = numbers.reshape(2, -1).astype(np.int32)
            if len(names) >= MIN_SPEAKERS and self.trials.target[rows].any():
                sources.append(Source(str(name), rows, enrol, test, len(names)))
        return sources


class Kinds:
    """Scores a model on text-dependent trials, kind by kind: a target says the right phrase, the others do not.

    Args:
        corpus: The prepared corpus.
        split: Whose trials.
        only: Kinds; all if None.
    """

    def __init__(self, corpus: PreparedCorpus, split: str, only: tuple[str, ...] | None = None) -> None:
        self.questions = load_questions(corpus, split)
        trials, speakers = self.questions.trials, self.questions.speakers
        wrong = wrong_trials(trials, speakers) | {ALL: ~trials.target}
        self.rows = {
            kind: np.flatnonzero(trials.target | mask) for kind, mask in wrong.items() if only is None or kind in only
        }

    def scores(self, system: System) -> dict[str, NDArray[np.float32]]:
        """Cosine of the trials of each kind and of all target trials, (trials,) each; `ALL` is all kinds."""
        trials = self.questions.trials
        found = _embedded(system, list(self.questions.cuts.values()))
        unit = np.stack([found[name] for name in trials.ids])
        scores = pair_products(unit, unit, trials.enrol, trials.test)
        return {kind: scores[rows] for kind, rows in self.rows.items()}

    def rates(self, condition: str, scores: NDArray[np.float32]) -> tuple[float, float]:
        """EER and minDCF."""
        scored = ScoreSet.from_labels(scores, self.questions.trials.target[self.rows[condition]])
        return scored.eer(), scored.min_dcf(P_TARGET)

    def replicates(self, condition: str, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """(2, `REPLICATES`): EER and minDCF with speakers drawn anew."""
        rows, speakers = self.rows[condition], self.questions.speakers
        weights = speaker_weights(len(speakers.names), REPLICATES)
        target = self.questions.trials.target[rows]
        enrol, test = speakers.enrol[rows], speakers.test[rows]
        return _measures(bootstrap(scores, target, enrol, test, weights, p_targets=(P_TARGET,)))


def conditions_of(corpus: PreparedCorpus, split: str, only: tuple[str, ...] | None = None) -> Conditions | Kinds:
    """What models are compared under: kinds of trials where phrases count, otherwise what is done to recordings."""
    return (Kinds if corpus.info.text_dependent else Conditions)(corpus, split, only)


def _measures(found: Replicates) -> NDArray[np.float64]:
    return np.stack([found.eer, found.min_dcf[P_TARGET]])


def _embedded(system: System, cuts: list[Any], change: Change | None = None) -> dict[str, NDArray[np.float32]]:
    """Embeddings of unit length by utterance, of recordings to which something was done."""
    found: dict[str, NDArray[np.float32]] = {}
    for batch in iterate_utterances(cuts, workers=0):
        rows = []
        for wave, length, name in zip(batch.waveforms.numpy(), batch.lengths.tolist(), batch.ids, strict=True):
            draw = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
            rows.append(change(wave[:length], draw) if change else wave[:length])
        lengths = np.array([len(row) for row in rows], np.int64)
        padded = np.zeros((len(rows), lengths.max()), np.float32)
        for place, row in enumerate(rows):
            padded[place, : len(row)] = row
        embeddings = system.embed(padded, lengths, batch.ids)
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        found.update(zip(batch.ids, embeddings, strict=True))
    return found


def _load(cut: Any) -> Waveform:
    audio: Waveform = cut.load_audio()[0].astype(np.float32)
    return audio


def _noisy(wave: Waveform, noise: Waveform, rate: int, draw: np.random.Generator) -> Waveform:
    start = draw.integers(max(1, len(noise) - len(wave)))
    noise = np.resize(np.roll(noise, -start), len(wave))
    frame = round(0.02 * rate)
    speech_power, noise_power = (float(active_power(torch.from_numpy(x)[None], frame)) for x in (wave, noise))
    wanted = speech_power / 10 ** (draw.uniform(*SNR_DB) / 10)
    return wave + noise * np.float32(np.sqrt(wanted / max(noise_power, 1e-20)))


def _in_a_room(wave: Waveform, room: Waveform) -> Waveform:
    room = np.concatenate([np.zeros(32, np.float32), room[np.abs(room).argmax() :]])  # the direct path where expected
    wet: Waveform = reverberate(torch.from_numpy(wave.copy())[None], torch.from_numpy(room)[None])[0].numpy()
    return wet


def _middle(wave: Waveform, samples: int) -> Waveform:
    start = max(0, (len(wave) - samples) // 2)
    return wave[start : start + samples]
