"""Voices enrolled with several utterances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from parvox.corpora.text_lines import numbered_lines
from parvox.errors import TrialError
from parvox.evaluation.embeddings import Embeddings

Enrolment = Literal["mean", "scores", "quality"]
"""How several utterances become one voice: the mean of their length-normalised embeddings, the mean of their scores,
or a mean weighted by how much speech each holds."""


@dataclass(frozen=True)
class EnrolmentList:
    """Which utterances enrol which voice.

    Attributes:
        voices: Utterance ids by the voice's id.
        name: Where the list came from.
    """

    voices: Mapping[str, Sequence[str]]
    name: str = "enrolments"

    @classmethod
    def read(cls, path: Path) -> EnrolmentList:
        """Read lines of a voice's id followed by its utterances' ids.

        Raises:
            TrialError: the file is missing or empty, or a line is no enrolment; the message names it.
        """
        voices: dict[str, list[str]] = {}
        expected = "expected lines 'voice-id utterance-id …'"
        for number, line in numbered_lines(path, what="enrolments", expected=expected, error=TrialError):
            fields = line.split()
            if len(fields) < 2:
                raise TrialError(f"{path} line {number}: {line[:60]!r}; expected 'voice-id utterance-id …'")
            if fields[0] in voices:
                raise TrialError(f"{path} line {number}: {fields[0]} is enrolled twice; give all its utterances once")
            if len(set(fields[1:])) < len(fields[1:]):
                raise TrialError(f"{path} line {number}: {fields[0]} has an utterance twice; name each once")
            voices[fields[0]] = fields[1:]
        if not voices:
            raise TrialError(f"{path} holds no enrolments; {expected}")
        return cls(voices, str(path))

    def utterances(self) -> list[str]:
        """All utterances, each once."""
        return list(dict.fromkeys(utterance for each in self.voices.values() for utterance in each))

    def speakers(self, speaker_of: Mapping[str, str]) -> dict[str, str]:
        """The speaker of each voice.

        Raises:
            TrialError: an utterance is unknown, or a voice is enrolled with more than one speaker.
        """
        found = {}
        for voice, utterances in self.voices.items():
            unknown = [utterance for utterance in utterances if utterance not in speaker_of]
            if unknown:
                raise TrialError(
                    f"{self.name}: {voice} is enrolled with {unknown[0]!r}, which is unknown; is the list of another "
                    "corpus or split?"
                )
            speakers = sorted({speaker_of[utterance] for utterance in utterances})
            if len(speakers) > 1:
                raise TrialError(
                    f"{self.name}: {voice} is enrolled with speakers {' and '.join(speakers)}; expected one"
                )
            found[voice] = speakers[0]
        return found


def enrol_voices(
    unit: NDArray[np.float32],
    embeddings: Embeddings,
    enrolments: EnrolmentList,
    method: Enrolment = "mean",
    quality: Mapping[str, float] | None = None,
) -> NDArray[np.float32]:
    """One vector a voice, whose inner product with a test embedding is the voice's score.

    The mean of a test utterance's cosines with several enrolment utterances is its inner product with the mean of
    their length-normalised embeddings, so that averaging scores costs no more than averaging embeddings: it only
    leaves that mean as short as disagreement makes it, and so scores voices lower whose utterances differ.

    Args:
        unit: (utterances, dim) length-normalised, as `embeddings` has them.
        embeddings: Whose rows they are.
        enrolments: The voices.
        method: See `Enrolment`.
        quality: A weight above zero for each utterance, for the method "quality": seconds of speech, in most cases.

    Returns:
        (voices, dim) float32, in the list's order; of length one unless the method is "scores".

    Raises:
        TrialError: an utterance has no embedding or weight, or a voice's embeddings cancel out.
    """
    rows = embeddings.rows(enrolments.utterances(), enrolments.name)
    row_of = dict(zip(enrolments.utterances(), rows, strict=True))
    vectors = np.empty((len(enrolments.voices), unit.shape[1]), np.float32)
    for vector, (voice, utterances) in zip(vectors, enrolments.voices.items(), strict=True):
        weights = np.ones(len(utterances))
        if method == "quality":
            weights = np.array([(quality or {}).get(utterance, np.nan) for utterance in utterances])
            if not (weights > 0).all():
                raise TrialError(f"{enrolments.name}: {voice} has utterances without a quality above zero")
        vector[:] = np.average(unit[[row_of[utterance] for utterance in utterances]], axis=0, weights=weights)
        if method != "scores":
            norm = float(np.linalg.norm(vector))
            if norm < 1e-6:
                raise TrialError(f"{enrolments.name}: the embeddings of {voice} cancel out; the model is broken")
            vector /= norm
    return vectors
