"""Trial lists in VoxCeleb's format: ``1 enrol-id test-id`` for a target, ``0 …`` for a non-target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from parvox.corpora.text_lines import numbered_lines
from parvox.errors import TrialError
from parvox.files import atomic_file


class Trial(NamedTuple):
    """One question put to a system: is the voice of `enrol` that of `test`?"""

    enrol: str
    """Utterance id; of a voice, where several utterances enrol one."""
    test: str
    """Utterance id."""
    target: bool
    """Whether it is the same speaker, and the same phrase where phrases count."""


@dataclass
class TrialList:
    """Trials that come with a corpus."""

    trials: list[Trial]
    name: str
    """The file they come from, for people."""
    voices: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Which utterances enrol which voice, where the trials' first sides name voices; else empty."""

    def utterances(self) -> set[str]:
        """Ids of all utterances that it needs."""
        named = {trial.test for trial in self.trials}
        if self.voices:
            return named | {utterance for utterances in self.voices.values() for utterance in utterances}
        return named | {trial.enrol for trial in self.trials}


def read_trials(path: Path) -> list[Trial]:
    """Read a trial list.

    Args:
        path: Text file of lines ``1 enrol-id test-id`` or ``0 enrol-id test-id``; blank lines do not count.

    Raises:
        TrialError: The file is missing, empty or not text, or a line is not a trial; the message names the line.
    """
    expected = "expected lines '1 enrol-id test-id'"
    trials: list[Trial] = []
    for number, line in numbered_lines(path, what="trial list", expected=expected, error=TrialError):
        fields = line.split()
        if len(fields) != 3 or fields[0] not in ("0", "1"):
            raise TrialError(
                f"{path} line {number}: {line[:60]!r} is no trial; expected '1 enrol-id test-id' for a target "
                "or '0 enrol-id test-id' for a non-target"
            )
        trials.append(Trial(fields[1], fields[2], fields[0] == "1"))
    if not trials:
        raise TrialError(f"{path} holds no trials; {expected}")
    return trials


def write_trials(path: Path, trials: Iterable[Trial], *, overwrite: bool = False) -> None:
    """Write a trial list, whole or not at all.

    Raises:
        TrialError: An id holds white space, which the format cannot express.
        OutputError: `path` exists and `overwrite` is false, or it cannot be written.
    """
    with atomic_file(path, overwrite=overwrite) as temporary, temporary.open("w", encoding="utf-8") as file:
        for trial in trials:
            if len(trial.enrol.split()) != 1 or len(trial.test.split()) != 1:
                raise TrialError(
                    f"trial ids {trial.enrol!r} and {trial.test!r}: empty or with white space; rename them"
                )
            file.write(f"{int(trial.target)} {trial.enrol} {trial.test}\n")


def write_enrolments(path: Path, voices: Mapping[str, Sequence[str]], *, overwrite: bool = False) -> None:
    """Write lines ``voice-id utterance-id …``, whole or not at all.

    Raises:
        TrialError: An id holds white space, which the format cannot express.
        OutputError: `path` exists and `overwrite` is false, or it cannot be written.
    """
    with atomic_file(path, overwrite=overwrite) as temporary, temporary.open("w", encoding="utf-8") as file:
        for voice, utterances in sorted(voices.items()):
            if any(len(name.split()) != 1 for name in (voice, *utterances)):
                raise TrialError(f"voice {voice!r}: an id is empty or has white space; rename it")
            file.write(" ".join((voice, *utterances)) + "\n")
