"""How phrases are joined from recordings of single words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from parvox.errors import CorpusError


@dataclass(frozen=True, kw_only=True)
class JoinSettings:
    """Phrases joined from recordings of single words, such as digits."""

    words: int = 0
    """Words in a phrase, each another one; 0 joins nothing."""
    phrases: int = 10
    """Phrases in the list that every speaker says."""
    orders: int = 2
    """Orders in which each choice of words is in the list: the second is the first backwards, others are drawn."""
    phrase_list: Path | None = None
    """A file with a phrase a line, words parted by spaces, instead of a drawn list."""
    takes: int | None = None
    """Times a speaker says each phrase in a session, at the most; as often as there are recordings if unset."""
    gap_s: float = 0.0
    """Seconds of digital silence between words, besides what trimming leaves of their own surroundings."""
    trim_db: float = 30.0
    """Ends of a recording that are so far below its loudest part are cut off, but for 0.05 s; 0 cuts nothing."""

    @property
    def wanted(self) -> bool:
        """Whether anything is joined."""
        return self.words > 0 or self.phrase_list is not None

    def __post_init__(self) -> None:
        _require(self.words == 0 or self.words >= 2, "words", self.words, "2 or more, or 0 to join nothing")
        _require(not (self.words and self.phrase_list), "words", self.words, "either this or phrase_list")
        _require(self.phrases >= 1, "phrases", self.phrases, "1 or more")
        _require(self.orders >= 1, "orders", self.orders, "1 or more")
        if self.words:
            most = math.factorial(min(self.words, 12))
            _require(self.orders <= most, "orders", self.orders, f"at most {most} for {self.words} words")
        _require(self.takes is None or self.takes >= 1, "takes", self.takes, "1 or more")
        _require(0 <= self.gap_s <= 10, "gap_s", self.gap_s, "0 to 10 s")
        _require(0 <= self.trim_db <= 120, "trim_db", self.trim_db, "0 to 120 dB")
        self._expect_nothing_idle()

    def _expect_nothing_idle(self) -> None:
        """Refuse values that the others make meaningless."""
        idle: tuple[str, ...]
        if not self.wanted:
            idle, missing = (
                ("phrases", "orders", "takes", "gap_s", "trim_db"),
                "join.words or join.phrase_list beside it",
            )
        else:
            idle, missing = (("phrases", "orders") if self.phrase_list else ()), "no join.phrase_list beside it"
        for name in idle:
            _require(getattr(self, name) == getattr(JoinSettings, name), name, getattr(self, name), missing)


def _require(sound: bool, name: str, given: object, expected: str) -> None:
    if not sound:
        raise CorpusError(f"join.{name}: {given} given; expected {expected}")
