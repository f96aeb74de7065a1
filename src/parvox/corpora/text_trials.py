"""Draw trials of the four kinds of text-dependent verification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from parvox.corpora.entries import Entry
from parvox.corpora.phrases import word_key
from parvox.corpora.trial_pairs import Integers, nontargets_wanted, other_speaker_pairs, same_speaker_pairs
from parvox.corpora.trials import Trial


def draw_text_trials(
    entries: Sequence[Entry], *, total: int, nontargets_per_target: int, seed: Sequence[int]
) -> list[Trial]:
    """Draw target-correct trials, and of each other kind a third of the non-targets.

    Half of the target-wrong trials set a phrase against its own words in another order, where there are such phrases.
    What `draw_trials` says of recordings, sessions, sources, genders and shares holds here too: in particular no two
    utterances of one recording ever meet, whatever they say.

    Args:
        entries: The utterances of a split, no two of the same content. Those without a text take no part.
        total: Trials wanted at the most.
        nontargets_per_target: How many non-targets for each target, all kinds together.
        seed: Integers that start the generator.

    Returns:
        Trials sorted by ids; empty if there is no target or no non-target.
    """
    entries = sorted((entry for entry in entries if entry.text), key=lambda entry: entry.id)
    if not entries:
        return []
    rng = np.random.default_rng(list(seed))
    texts = np.unique([str(entry.text) for entry in entries], return_inverse=True)[1]
    words = np.unique([word_key(str(entry.text)) for entry in entries], return_inverse=True)[1]

    def same_text(pairs: Integers) -> NDArray[np.bool_]:
        return np.asarray(texts[pairs[:, 0]] == texts[pairs[:, 1]])

    def other_order(pairs: Integers) -> NDArray[np.bool_]:
        return np.asarray(words[pairs[:, 0]] == words[pairs[:, 1]]) & ~same_text(pairs)

    def other_words(pairs: Integers) -> NDArray[np.bool_]:
        return np.asarray(words[pairs[:, 0]] != words[pairs[:, 1]])

    targets = same_speaker_pairs(entries, max(total // (1 + nontargets_per_target), 1), rng, same_text)
    each = -(-nontargets_wanted(len(targets), total, nontargets_per_target) // 3)
    again = same_speaker_pairs(entries, each // 2, rng, other_order)
    wrong = same_speaker_pairs(entries, each - len(again), rng, other_words)
    # Impostors who say the same are those of one phrase, just as other impostors are those of one source.
    by_phrase = [replace(entry, source=f"{entry.source}\0{entry.text}") for entry in entries]
    correct = other_speaker_pairs(by_phrase, each, rng)
    impostors = other_speaker_pairs(entries, 2 * each, rng)
    impostors = impostors[~same_text(impostors)]
    impostors = impostors[rng.permutation(len(impostors))[:each]]
    nontargets = np.concatenate([again, wrong, correct, impostors])
    if not len(targets) or not len(nontargets):
        return []
    ids = [entry.id for entry in entries]
    trials = [Trial(ids[enrol], ids[test], True) for enrol, test in targets.tolist()]
    trials += [Trial(ids[enrol], ids[test], False) for enrol, test in nontargets.tolist()]
    return sorted(trials)
