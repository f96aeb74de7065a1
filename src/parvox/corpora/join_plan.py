"""Which recordings of single words make which phrases."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from parvox.corpora.entries import Entry, utterance_id
from parvox.corpora.join_settings import JoinSettings
from parvox.corpora.text_lines import numbered_lines
from parvox.errors import CorpusError

Phrase = tuple[str, ...]

_LONGEST_TITLE = 120  # bytes; file systems allow 255 for a name, of which number and suffix need some
_UNSAFE = re.compile(r'[\x00-\x1f\x7f\s%/\\:*?"<>|-]|^\.')


@dataclass(frozen=True)
class Joint:
    """A phrase to be joined.

    Attributes:
        id: Of the utterance.
        words: The recordings, in the phrase's order.
        recording: What it shares with every utterance that is made, wholly or in part, of the same recordings.
    """

    id: str
    words: tuple[Entry, ...]
    recording: str

    @property
    def text(self) -> str:
        """The words, parted by spaces."""
        return " ".join(str(entry.text) for entry in self.words)


@dataclass
class JoinPlan:
    """All phrases of a corpus.

    Attributes:
        phrases: The list.
        joints: What is to be joined, sorted by id.
        notes: What a reader should know.
    """

    phrases: list[Phrase]
    joints: list[Joint]
    notes: list[str] = field(default_factory=list)


def plan_joins(entries: Sequence[Entry], settings: JoinSettings, seed: int) -> JoinPlan:
    """Choose the phrases, and for each speaker and session the recordings that say them.

    A *take* uses each recording of a word once: the first take of every phrase is joined from the first recordings of
    its words, the second from the second ones. Within a session, recordings come in an order drawn by hash. So no
    recording is in two takes of one phrase. Utterances that share a recording, or any part of one continuous recording,
    get the same `recording`, which keeps them from ever meeting in a trial.

    Args:
        entries: Recordings of single words, their word as text.
        settings: What to join.
        seed: Draws.

    Raises:
        CorpusError: No recording is of a single word, the words do not suffice, the phrase list is damaged or has words
            that nobody says, or two utterances would have one id.
    """
    words = [entry for entry in entries if entry.text and len(entry.text.split()) == 1]
    if not words:
        raise CorpusError(
            f"none of the {len(entries)} recordings has a text of one word, which phrases are joined from; expected "
            "recordings of single words, such as digits"
        )
    if settings.phrase_list:
        phrases = read_phrases(settings.phrase_list)
        _expect_said(phrases, {str(entry.text) for entry in words}, settings.phrase_list)
    else:
        phrases = _draw_phrases(words, settings, seed)
    joints: list[Joint] = []
    sittings: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in sorted(words, key=lambda entry: entry.id):
        sittings.setdefault((entry.speaker, entry.session, entry.source), []).append(entry)
    sessions = Counter(speaker for speaker, _, _ in sittings)
    for (speaker, session, source), clips in sittings.items():
        name = speaker if sessions[speaker] == 1 else f"{speaker}/{session}/{source}"
        made = list(_takes(name, clips, phrases, settings.takes, seed))
        joints += _grouped(made)
    speakers, speaking = {entry.speaker for entry in words}, {joint.words[0].speaker for joint in joints}
    if not joints:
        raise CorpusError(
            f"no speaker has the words of any phrase, such as {' '.join(phrases[0])!r}; give another list, or join "
            "fewer words"
        )
    _expect_own_ids(joints)
    plan = JoinPlan(phrases, sorted(joints, key=lambda joint: joint.id))
    if len(words) < len(entries):
        plan.notes.append(f"join: {len(entries) - len(words)} recordings are not of a single word and were left out")
    if silent := speakers - speaking:
        plan.notes.append(f"join: {len(silent)} of {len(speakers)} speakers lack the words of every phrase")
    if unsaid := len(phrases) - len({joint.text for joint in joints}):
        plan.notes.append(
            f"join: {unsaid} of {len(phrases)} phrases are said by nobody, as no speaker has all their words"
        )
    return plan


def _expect_said(phrases: Sequence[Phrase], said: set[str], path: Path) -> None:
    """Refuse a list with words that no recording is of: a typing error would lose its phrases."""
    unsaid = [(phrase, word) for phrase in phrases for word in phrase if word not in said]
    if unsaid:
        phrase, word = unsaid[0]
        raise CorpusError(
            f"phrase list {path}: {' '.join(phrase)!r} has the word {word!r}, which no usable recording is of "
            f"({len(dict(unsaid))} of {len(phrases)} phrases have such words); correct them or leave them out"
        )


def _expect_own_ids(joints: Sequence[Joint]) -> None:
    """Refuse utterances that would overwrite each other."""
    repeated = [name for name, count in Counter(joint.id for joint in joints).items() if count > 1]
    if repeated:
        raise CorpusError(
            f"join: {len(repeated)} ids, such as {repeated[0]!r}, would each name several utterances; rename the "
            "speakers, sessions or sources so that joined by '/' they differ"
        )


def _draw_phrases(words: Sequence[Entry], settings: JoinSettings, seed: int) -> list[Phrase]:
    """Distinct choices of words, each in several orders.

    They are of the words that at least half of the speakers say, each in as many choices as any other if that can be.
    """
    said = {(entry.speaker, str(entry.text)) for entry in words}
    speakers = len({speaker for speaker, _ in said})
    counts = Counter(word for _, word in said)
    known = sorted(word for word, count in counts.items() if 2 * count >= speakers)
    choices = -(-settings.phrases // settings.orders)
    possible = math.comb(len(known), settings.words)
    if possible < choices:
        raise CorpusError(
            f"join: {choices} different choices of {settings.words} words wanted, but only {possible} can be made of "
            f"the {len(known)} words that half of the speakers say ({', '.join(known[:12]) or 'none'}); ask for fewer "
            "phrases, fewer words or more orders, or give a phrase_list"
        )
    rng = np.random.default_rng([seed, settings.words])
    uses = np.zeros(len(known), np.int64)
    drawn: dict[Phrase, None] = {}
    while len(drawn) < choices:
        places = np.lexsort((rng.random(len(known)), uses))[: settings.words]  # those in fewest phrases so far
        while (choice := tuple(known[place] for place in sorted(places))) in drawn:
            places = rng.choice(len(known), settings.words, replace=False)
        drawn[choice] = None
        uses[places] += 1
    phrases: list[Phrase] = []
    for choice in drawn:
        first = tuple(choice[place] for place in rng.permutation(settings.words))
        orders = dict.fromkeys([first, first[::-1]])
        while len(orders) < min(settings.orders, settings.phrases):
            orders[tuple(choice[place] for place in rng.permutation(settings.words))] = None
        phrases += list(orders)[: settings.orders]
    return phrases[: settings.phrases]


def read_phrases(path: Path) -> list[Phrase]:
    """Read a phrase a line, words parted by spaces.

    Raises:
        CorpusError: The file is missing, empty or not text, or holds a phrase twice.
    """
    expected = "expected a phrase a line, words parted by spaces"
    numbered = numbered_lines(path, what="phrase list", expected=expected, error=CorpusError)
    lines = [tuple(line.split()) for _, line in numbered]
    if not lines:
        raise CorpusError(f"phrase list {path} is empty; {expected}")
    repeated = [line for line, count in Counter(lines).items() if count > 1]
    if repeated:
        raise CorpusError(f"phrase list {path} holds {' '.join(repeated[0])!r} twice; expected each phrase once")
    return lines


def _takes(
    name: str, clips: Sequence[Entry], phrases: Sequence[Phrase], most: int | None, seed: int
) -> Iterator[tuple[str, tuple[Entry, ...]]]:
    """Ids and recordings of what one speaker says in one session."""

    def rank(entry: Entry) -> tuple[bytes, str]:
        recording = entry.recording or entry.id
        return hashlib.sha256(f"{seed}\0{recording}".encode()).digest(), entry.id

    by_word: dict[str, list[Entry]] = {}
    for clip in sorted(clips, key=rank):
        by_word.setdefault(str(clip.text), []).append(clip)
    for phrase in phrases:
        needed = Counter(phrase)
        takes = min(len(by_word.get(word, ())) // count for word, count in needed.items())
        title = _title(phrase)
        for take in range(takes if most is None else min(takes, most)):
            places = {word: iter(range(take * count, (take + 1) * count)) for word, count in needed.items()}
            chosen = tuple(by_word[word][next(places[word])] for word in phrase)
            yield f"{_safe(name)}/{title}_{take}", chosen


def _grouped(made: Sequence[tuple[str, tuple[Entry, ...]]]) -> list[Joint]:
    """Utterances joined from the same recordings, directly or through others, get one name."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]
        return name

    recordings = [[entry.recording or entry.id for entry in words] for _, words in made]
    for names in recordings:
        for name in names[1:]:
            one, other = sorted((root(names[0]), root(name)))
            parent[other] = one
    return [Joint(id, words, root(names[0])) for (id, words), names in zip(made, recordings, strict=True)]


def _title(phrase: Phrase) -> str:
    """The words as part of a file's name, different for different phrases.

    Characters that part words or that file systems refuse are percent-encoded. Long titles end in a hash instead of
    their last words.
    """
    title = "-".join(_UNSAFE.sub(_percent, word) for word in phrase)
    whole = title.encode()
    if len(whole) <= _LONGEST_TITLE:
        return title
    end = f"~{hashlib.sha256(whole).hexdigest()[:16]}"
    return whole[: _LONGEST_TITLE - len(end)].decode(errors="ignore") + end


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def _safe(name: str) -> str:
    """`name` as part of an id and of a path below a folder."""
    parts = [utterance_id(f"{part}.") for part in name.split("/")]
    return "/".join(f"%2E{part[1:]}" if part.startswith(".") else part or "%" for part in parts)
