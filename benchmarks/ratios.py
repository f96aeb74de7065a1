"""Ratios of error rates that papers lead one to expect, with intervals by speaker."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from draws import Draws, Rate, ratio
from parvox.corpora.phrases import REORDERED
from parvox.corpora.prepared import PreparedCorpus
from parvox.evaluation.bootstrap import bootstrap
from parvox.evaluation.kinds import wrong_trials
from parvox.evaluation.questions import load_questions
from parvox.evaluation.resampling import speaker_weights
from rows import Rows, markdown

REPLICATES = 500
ALL = "all"


class Comparison(NamedTuple):
    """One expectation.

    Attributes:
        what: In words.
        recipe: The recipe that is expected to be better.
        baseline: The one it is compared with.
        expected: The ratio of their EERs.
        trials: Which count: all, or of the non-targets re-ordered phrases alone.
    """

    what: str
    recipe: str
    baseline: str
    expected: str
    trials: str = ALL


_TOKEN, _MEAN, _SAMPLED, _UNPLACED, _PHONETIC = (
    f"text-dependent/{name}"
    for name in (
        "class_token",
        "average_pooling",
        "sampled_class_token",
        "average_pooling_without_positions",
        "phonetic_positions",
    )
)
COMPARISONS = (
    Comparison("class token / mean, re-ordered phrases", _TOKEN, _MEAN, "below 1", REORDERED),
    Comparison("class token / mean without positions, re-ordered phrases", _TOKEN, _UNPLACED, "below 1", REORDERED),
    Comparison("phonetic / sinusoidal positions, re-ordered phrases", _PHONETIC, _TOKEN, "–", REORDERED),
    Comparison("class token / mean, all trials", _TOKEN, _MEAN, "below 1"),
    Comparison("sampled / plain token, all trials", _SAMPLED, _TOKEN, "at most 1"),
    Comparison("class token / mean, speakers", "memory_attention", "memory_attention_mean", "–"),
    Comparison("sampled / plain token, speakers", "memory_attention_sampled", "memory_attention", "at most 1"),
    Comparison("attention over time / over both", "bc_cmt", "bc_cmt_2d", "0.91"),
    Comparison("MQMHA / attentive statistics", "ecapa_mqmha", "ecapa_asp", "0.93 to 1.0"),
    Comparison("inter-topK / plain margin", "ecapa_asp_top_k", "ecapa_asp", "0.94 to 0.97"),
    Comparison("both / MQMHA alone", "ecapa_mqmha_top_k", "ecapa_mqmha", "at most 1"),
    Comparison("both / inter-topK alone", "ecapa_mqmha_top_k", "ecapa_asp_top_k", "at most 1"),
    Comparison("both / neither", "ecapa_mqmha_top_k", "ecapa_asp", "at most 1"),
    Comparison("large-margin fine-tuning / its start", "large_margin", "ecapa_mqmha_top_k", "0.81 to 0.92"),
)


def draws_of(corpus: PreparedCorpus, scores: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """By the trials that count, (1, `REPLICATES`) EER with speakers drawn anew: the same for every system."""
    questions = load_questions(corpus)
    trials, speakers = questions.trials, questions.speakers
    rows = {ALL: np.arange(len(trials))}
    if speakers.reordered is not None:
        rows[REORDERED] = np.flatnonzero(trials.target | wrong_trials(trials, speakers)[REORDERED])
    weights = speaker_weights(len(speakers.names), REPLICATES)
    drawn = {}
    for name, chosen in rows.items():
        sides = speakers.enrol[chosen], speakers.test[chosen]
        drawn[name] = bootstrap(scores[chosen], trials.target[chosen], *sides, weights, p_targets=(0.01,)).eer[None]
    return drawn


def format_ratios(rows: Rows, draws: Draws) -> str:
    """A table of the comparisons of which both recipes were run."""
    lines = []
    for comparison in COMPARISONS:
        above, below = (
            _rates(name, comparison.trials, rows, draws) for name in (comparison.recipe, comparison.baseline)
        )
        found = ratio(above, below)
        if found is not None:
            seeds = sorted(above.keys() & below.keys())
            each = [ratio({seed: above[seed]}, {seed: below[seed]}) for seed in seeds]
            told = ", ".join(f"{one.value:.2f}" for one in each if one is not None)
            lines.append([comparison.what, comparison.expected, found.plain(2), told])
    if not lines:
        return ""
    head = ["ratio of EER", "expected", "found [95 %]", "each seed"]
    return "\n".join(["", "Expectations:", "", markdown(head, lines)])


def _rates(recipe: str, trials: str, rows: Rows, draws: Draws) -> dict[int, Rate]:
    """A recipe's EER on some trials, by seed."""
    column = "eer" if trials == ALL else f"eer_{trials}"
    found = {}
    for row in rows.rows:
        drawn = draws.get(recipe=recipe, seed=row["seed"], trials=trials)
        if row["recipe"] == recipe and drawn is not None:
            found[int(row["seed"])] = Rate(float(row[column]), drawn[0])
    return found
