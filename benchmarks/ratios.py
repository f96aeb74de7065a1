"""Ratios of error rates that papers lead one to expect, with intervals by speaker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parvox.corpora.phrases import REORDERED
from parvox.corpora.prepared import PreparedCorpus
from parvox.evaluation.bootstrap import bootstrap
from parvox.evaluation.estimate import Estimate
from parvox.evaluation.kinds import wrong_trials
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.questions import load_questions
from parvox.evaluation.resampling import interval, speaker_weights
from parvox.evaluation.trials import Speakers, TrialIndex
from parvox.files import atomic_file
from rows import markdown

REPLICATES = 500


class Comparison(NamedTuple):
    """One expectation.

    Attributes:
        what: In words.
        recipe: The recipe that is expected to be better.
        baseline: The one it is compared with.
        expected: The ratio of their EERs.
        reordered: Whether only re-ordered phrases count as non-targets.
    """

    what: str
    recipe: str
    baseline: str
    expected: str
    reordered: bool = False


_TEXT = "text-dependent"
COMPARISONS = (
    Comparison(
        "class token / mean, re-ordered phrases", f"{_TEXT}/class_token", f"{_TEXT}/average_pooling", "below 1", True
    ),
    Comparison("class token / mean, all trials", f"{_TEXT}/class_token", f"{_TEXT}/average_pooling", "below 1"),
    Comparison(
        "sampled / plain token, all trials", f"{_TEXT}/sampled_class_token", f"{_TEXT}/class_token", "at most 1"
    ),
    Comparison("class token / mean, speakers", "memory_attention", "memory_attention_mean", "–"),
    Comparison("sampled / plain token, speakers", "memory_attention_sampled", "memory_attention", "at most 1"),
    Comparison("attention over time / over both", "bc_cmt", "bc_cmt_2d", "0.91"),
    Comparison("MQMHA / attentive statistics", "ecapa_mqmha", "ecapa_asp", "0.93 to 1.0"),
    Comparison("inter-topK / plain margin", "ecapa_asp_top_k", "ecapa_asp", "0.94 to 0.97"),
    Comparison("both / MQMHA alone", "ecapa_mqmha_top_k", "ecapa_mqmha", "at most 1"),
    Comparison("both / inter-topK alone", "ecapa_mqmha_top_k", "ecapa_asp_top_k", "at most 1"),
    Comparison("both / neither", "ecapa_mqmha_top_k", "ecapa_asp", "at most 1"),
)


class Kept:
    """Scores of runs, so that they can be compared later.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, slug: str) -> bool:
        """Whether the scores of a run are there."""
        return (self.folder / f"{slug}.npy").is_file()

    def put(self, slug: str, scores: NDArray[np.float32]) -> None:
        """Keep the scores (trials,) of a run, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.folder / f"{slug}.npy", overwrite=True) as temporary, temporary.open("wb") as file:
            np.save(file, scores)

    def get(self, slug: str) -> NDArray[np.float32]:
        """The scores of a run."""
        scores: NDArray[np.float32] = np.load(self.folder / f"{slug}.npy", allow_pickle=False)
        return scores


def format_ratios(kept: Kept, corpus_of: Callable[[str, int], PreparedCorpus], seeds: int) -> str:
    """A table of the comparisons for which there are scores of all seeds."""

    def slug(name: str, seed: int) -> str:
        return f"{name.replace('/', '-')}-seed{seed}"

    asked: dict[Path, tuple[TrialIndex, Speakers]] = {}
    lines = []
    for comparison in COMPARISONS:
        pair = (comparison.recipe, comparison.baseline)
        if not all(kept.has(slug(name, seed)) for name in pair for seed in range(1, seeds + 1)):
            continue
        eers: dict[str, list[float]] = {name: [] for name in pair}
        drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in pair}
        for seed in range(1, seeds + 1):
            corpus = corpus_of(comparison.recipe, seed)
            if corpus.folder not in asked:
                questions = load_questions(corpus)
                asked[corpus.folder] = questions.trials, questions.speakers
            trials, speakers = asked[corpus.folder]
            for name in pair:
                value, replicates = _rates(kept.get(slug(name, seed)), trials, speakers, comparison.reordered)
                eers[name].append(value)
                drawn[name].append(replicates)
        first, second = (np.mean(drawn[name], axis=0) for name in pair)
        found = Estimate(float(np.mean(eers[pair[0]]) / np.mean(eers[pair[1]])), interval(first / second))
        each = ", ".join(f"{a / b:.2f}" for a, b in zip(eers[pair[0]], eers[pair[1]], strict=True))
        lines.append([comparison.what, comparison.expected, found.plain(2), each])
    if not lines:
        return ""
    head = ["ratio of EER", "expected", "found [95 %]", "each seed"]
    return "\n".join(["", "Expectations:", "", markdown(head, lines)])


def _rates(
    scores: NDArray[np.float32], trials: TrialIndex, speakers: Speakers, reordered: bool
) -> tuple[float, NDArray[np.float64]]:
    """EER, and (`REPLICATES`,) EER with speakers drawn anew: the same draws for every system on the same trials."""
    rows = np.arange(len(trials))
    if reordered and speakers.reordered is not None:
        rows = np.flatnonzero(trials.target | wrong_trials(trials, speakers)[REORDERED])
    target, scores = trials.target[rows], scores[rows]
    weights = speaker_weights(len(speakers.names), REPLICATES)
    replicates = bootstrap(scores, target, speakers.enrol[rows], speakers.test[rows], weights, p_targets=(0.01,))
    return ScoreSet.from_labels(scores, target).eer(), replicates.eer
