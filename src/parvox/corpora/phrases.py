"""What is said, where the words count as well as the voice: text-dependent verification.

The phrase of an utterance is the text of its supervision. Texts that are equal to the letter are one phrase, however
much white space parts their words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from parvox.corpora.trials import Trial
from parvox.errors import CorpusError

if TYPE_CHECKING:
    from lhotse.cut import Cut

TARGET_CORRECT = "target-correct"
KINDS = ("target-wrong", "impostor-correct", "impostor-wrong")
"""Kinds of trials to be rejected (Larcher et al., "Text-dependent speaker verification: Classifiers, databases and
RSR2015", Speech Communication 60, 2014)."""

REORDERED = "target-wrong-reordered"
"""Those target-wrong trials whose two phrases hold the same words in another order."""


def phrase_of(cut: Cut) -> str:
    """The phrase that an utterance of a prepared corpus says.

    Raises:
        CorpusError: The corpus does not know it.
    """
    text = cut.supervisions[0].text if cut.supervisions else None
    if not text or text.isspace():
        raise CorpusError(
            f"utterance {cut.id!r} has no text, so its phrase is unknown; prepare the corpus from recordings with texts"
        )
    return normal_phrase(str(text))


def normal_phrase(text: str) -> str:
    """The words of a text, parted by one space each."""
    return " ".join(text.split())


def word_key(phrase: str) -> str:
    """The words of a phrase without their order; they are parted by white space."""
    return " ".join(sorted(phrase.split()))


def reordered(one: str, other: str) -> bool:
    """Whether two phrases hold the same words in different orders."""
    return normal_phrase(one) != normal_phrase(other) and word_key(one) == word_key(other)


def count_kinds(trials: Iterable[Trial], speaker_of: Mapping[str, str], text_of: Mapping[str, str]) -> dict[str, int]:
    """How many trials there are of each kind; kinds that do not occur are absent.

    Args:
        trials: Between utterances, or voices and utterances.
        speaker_of: The speaker of each utterance and voice.
        text_of: What each says.

    Returns:
        By kind, `TARGET_CORRECT` first. Trials of the kind `REORDERED` count as target-wrong too.
    """
    counts = dict.fromkeys((TARGET_CORRECT, KINDS[0], REORDERED, *KINDS[1:]), 0)
    for enrol, test, _ in trials:
        same_text = text_of[enrol] == text_of[test]
        if speaker_of[enrol] == speaker_of[test]:
            counts[TARGET_CORRECT if same_text else KINDS[0]] += 1
            counts[REORDERED] += reordered(text_of[enrol], text_of[test])
        else:
            counts[KINDS[1] if same_text else KINDS[2]] += 1
    return {kind: count for kind, count in counts.items() if count}
