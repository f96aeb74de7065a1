"""What is said when: labels of frames, from alignments or, where there are none, from the texts of single words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from parvox.corpora.phrases import phrase_of
from parvox.corpora.text_lines import numbered_lines
from parvox.errors import CorpusError
from parvox.models.frame_classifier import NO_LABEL
from parvox.models.frontend import FbankSettings

if TYPE_CHECKING:
    from lhotse.cut import Cut

_LEAST_SAID = 2


class Span(NamedTuple):
    """One label.

    Attributes:
        start_s: From when.
        end_s: Until when.
        label: Phone or word.
    """

    start_s: float
    end_s: float
    label: str


class FrameLabels:
    """The labels of each utterance.

    Args:
        cuts: The training utterances.
        others: Utterances whose labels are wanted too, but make no classes.
        alignments: A CTM file. Without one, alignments of phones in the manifest are taken, else of words, else the
            text of an utterance is the label of all of it.

    Attributes:
        source: Where the labels come from, in words.
        names: The labels in training, sorted.

    Raises:
        CorpusError: The labels are damaged, missing, or hardly any comes twice.
    """

    def __init__(self, cuts: Sequence[Cut], others: Sequence[Cut] = (), alignments: Path | None = None) -> None:
        if alignments is not None:
            listed, self.source = read_ctm(alignments), alignments.name
            self._spans = {cut.id: listed.get(cut.id, []) for cut in (*cuts, *others)}
        else:
            tier = _tier(cuts)
            self.source = {"phone": "aligned phones", "word": "aligned words"}.get(tier, "texts of whole utterances")
            self._spans = {cut.id: _spans(cut, tier) for cut in (*cuts, *others)}
        said = [span.label for cut in cuts for span in self._spans[cut.id]]
        self.names = sorted(set(said))
        self._place = {name: index for index, name in enumerate(self.names)}
        if len(self.names) < 2:
            found = f"only {self.names[0]!r}" if self.names else "no label"
            raise CorpusError(
                f"{self.source}: {found} in {len(cuts)} utterances; expected two labels or more, of utterances of this "
                "corpus"
            )
        if len(said) < _LEAST_SAID * len(self.names):
            raise CorpusError(
                f"{self.source}: {len(self.names)} different labels among {len(said)}, most of which come once; "
                "expected words or phones that recur: give alignments in a CTM file"
            )

    def targets(self, utterance: str, frames: int, settings: FbankSettings) -> Tensor:
        """(frames,) int64, the place in `names` of what is said at the middle of each frame, `NO_LABEL` elsewhere.

        Args:
            utterance: Its id.
            frames: How many frames.
            settings: When they are.
        """
        found = torch.full((frames,), NO_LABEL)
        for span in self._spans[utterance]:
            first, end = (_frame_from(seconds, settings) for seconds in span[:2])
            found[first:end] = self._place.get(span.label, NO_LABEL)
        return found


def _frame_from(seconds: float, settings: FbankSettings) -> int:
    """The first frame whose middle is at or after a time, 0 or more."""
    if math.isinf(seconds):
        return 1 << 62
    return max(0, math.ceil((seconds * 1000 - settings.frame_length_ms / 2) / settings.frame_shift_ms - 1e-6))


def read_ctm(path: Path) -> dict[str, list[Span]]:
    """Labels by utterance from lines ``utterance channel start_s duration_s label …``, as NIST's CTM files have them.

    Raises:
        CorpusError: The file cannot be read, or a line is none of these.
    """
    expected = "expected 'utterance channel start_s duration_s label'"
    found: dict[str, list[Span]] = {}
    for number, line in numbered_lines(path, what="alignments", expected=expected, error=CorpusError):
        if line.startswith(";;"):
            continue
        try:
            utterance, _, start, duration, label = line.split()[:5]
            span = Span(float(start), float(start) + float(duration), label)
        except ValueError:
            span = Span(math.nan, math.nan, "")
        if not (0 <= span.start_s <= span.end_s < math.inf):
            raise CorpusError(f"{path} line {number}: {line[:80]!r} given; {expected}")
        found.setdefault(utterance, []).append(span)
    return found


def _tier(cuts: Sequence[Cut]) -> str:
    """Which alignments the manifest has: phone, word, or text for none."""
    tiers = {tier for cut in cuts for supervision in cut.supervisions for tier in supervision.alignment or {}}
    return next((tier for tier in ("phone", "word") if tier in tiers), "text")


def _spans(cut: Cut, tier: str) -> list[Span]:
    if tier == "text":
        return [Span(0.0, math.inf, phrase_of(cut))]
    items = (cut.supervisions[0].alignment or {}).get(tier, [])
    return [Span(item.start, item.end, item.symbol) for item in items]
