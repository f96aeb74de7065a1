"""The errors Parvox raises on purpose.

Each message is one line that says what was given, what was expected, and what to do. The command line prints it
and exits with code 2; a library caller catches `ParvoxError` or one of its kinds.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ParvoxError(Exception):
    """Any problem with what the caller gave; never a bug of ours."""


class AudioError(ParvoxError):
    """A recording that cannot be used: missing, not audio, empty, silent, too short or too long."""


class CorpusError(ParvoxError):
    """A corpus folder or manifest that does not hold what it should."""


class TrialError(ParvoxError):
    """A trial list, or scores, from which nothing sound can be computed."""


class RecipeError(ParvoxError):
    """Settings that are unknown, mistyped, or do not go together."""


class ModelFileError(ParvoxError):
    """A model file or run folder that is missing, damaged or of another kind."""


class OutputError(ParvoxError):
    """An output that cannot be written, or that would overwrite something."""


class TrainingError(ParvoxError):
    """A training run that cannot start or go on."""


class ExportError(ParvoxError):
    """A model that cannot be exported, or whose exported file is not good enough to ship."""


class MissingExtraError(ParvoxError):
    """A part of Parvox whose optional dependencies are not installed."""

    def __init__(self, what: str, extra: str) -> None:
        install = f"pip install 'parvox[{extra}]', or in a checkout pip install '.[{extra}]'"
        super().__init__(f"{what} needs the [{extra}] extra: {install}")
        self._given = what, extra

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        """Errors travel between processes."""
        return MissingExtraError, self._given


def nearest(name: str, known: Iterable[str]) -> str:
    """A phrase for an error message that names what is known, the nearest first.

    Args:
        name: What was given.
        known: The valid names.

    Returns:
        For instance ``did you mean 'channels'? Known: channels, dilation``.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(names)}"
