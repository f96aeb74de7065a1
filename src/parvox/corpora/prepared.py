"""A prepared corpus, as `parvox prepare` wrote it."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parvox.corpora.entries import SPLITS
from parvox.corpora.phrases import phrase_of
from parvox.corpora.shards import SHAR, audio_file, check_address, manifests
from parvox.corpora.trials import Trial, read_trials
from parvox.errors import CorpusError, nearest

if TYPE_CHECKING:
    from lhotse import CutSet
    from lhotse.cut import Cut

FORMAT = 1
INFO = "corpus.json"
AGAIN = "prepare the corpus again"
_TRANSFORMS = {"Resample", "ParvoxDownmix"}
_CLIPS = {"noise", "noise-test", "rir", "rir-test"}


@dataclass(frozen=True, kw_only=True)
class SplitInfo:
    """What one split holds."""

    speakers: int
    utterances: int
    hours: float
    target_trials: int = 0
    nontarget_trials: int = 0
    trials_from: str = ""
    """How its trial list came about; empty without one."""
    voices: int = 0
    """Voices enrolled with several utterances, which the trials' first sides then name."""
    phrases: int = 0
    """Different phrases, where they count."""
    shards: int = 0
    """Shards that hold its speech; 0 where every recording is a file of its own."""
    kinds: dict[str, int] = field(default_factory=dict)
    """Trials by kind, where phrases count; those of the kind target-wrong-reordered are target-wrong too."""


@dataclass(frozen=True, kw_only=True)
class CorpusInfo:
    """What `corpus.json` says."""

    name: str
    importer: str
    synthetic: bool
    """Whether the speech is made rather than recorded."""
    sample_rate_hz: int
    fingerprint: str
    """SHA-256 over manifests and trial lists; equal for the same recordings, labels and trials, wherever they lie."""
    text_dependent: bool = False
    """Whether a target must say the same phrase; the phrase is the text of the supervision."""
    sources: list[str] = field(default_factory=list)
    licences: list[str] = field(default_factory=list)
    splits: dict[str, SplitInfo] = field(default_factory=dict)
    """By name; splits without speakers are absent."""
    clips: dict[str, int] = field(default_factory=dict)
    """Noises and impulse responses, by manifest: noise, noise-test, rir, rir-test."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Recordings left out, by reason."""
    notes: list[str] = field(default_factory=list)
    audio: str = ""
    """The address below which the audio of shards lies; empty where it lies beside their manifests."""
    options: dict[str, Any] = field(default_factory=dict)
    """The settings that made the corpus."""
    parvox_version: str = ""
    format: int = FORMAT


class PreparedCorpus:
    """A folder of manifests, splits and trial lists.

    Args:
        folder: Where it lies.
        info: What its `corpus.json` says.
    """

    def __init__(self, folder: Path, info: CorpusInfo) -> None:
        self.folder = folder
        self.info = info

    @classmethod
    def load(cls, folder: Path) -> PreparedCorpus:
        """Open a prepared corpus; manifests are read when asked for.

        Raises:
            CorpusError: `folder` is missing, is no prepared corpus, or lacks a file that it should hold.
        """
        folder = Path(folder).absolute()
        if not folder.is_dir():
            what = f"{folder} is a file" if folder.exists() else f"no such folder: {folder}"
            raise CorpusError(f"{what}; expected a corpus made by 'parvox prepare'")
        try:
            data = json.loads((folder / INFO).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise CorpusError(f"{folder} has no {INFO}; expected a corpus made by 'parvox prepare'") from error
        except (OSError, ValueError) as error:
            raise CorpusError(f"{folder / INFO} cannot be read ({error}); {AGAIN}") from error
        corpus = cls(folder, _info(data, folder / INFO))
        if corpus.info.audio:
            check_address(corpus.info.audio)
        for name in (*corpus.info.splits, *corpus.info.clips):
            for path in corpus._manifests(name):
                corpus._require(path)
        return corpus

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that hold speech."""
        return tuple(self.info.splits)

    def cuts(self, split: str, *, lazy: bool = False) -> CutSet:
        """The utterances of a split, one cut each; in a sharded corpus they name their shard, not a file.

        Args:
            split: train, dev or test.
            lazy: Read the manifest anew with each pass instead of keeping it in memory.

        Raises:
            CorpusError: There is no such split, or its manifest is damaged (when lazy, on the way).
        """
        self._known(split)
        return self._read(split, self.info.splits[split].utterances, lazy)

    def speakers(self, split: str) -> list[str]:
        """The speakers of a split, sorted.

        Raises:
            CorpusError: There is no such split, or its manifest is damaged.
        """
        return sorted({cut.supervisions[0].speaker for cut in self.cuts(split, lazy=True)} - {None})

    def phrases(self, split: str) -> list[str]:
        """The phrases that the utterances of a split say, sorted; `parvox.corpora.phrases.phrase_of` tells each one's.

        Utterances of free text, which have none, do not count.

        Raises:
            CorpusError: There is no such split, or its manifest is damaged.
        """
        return sorted(
            {phrase_of(cut) for cut in self.cuts(split, lazy=True) if (cut.supervisions[0].text or "").strip()}
        )

    def enrolments(self, split: str) -> Path | None:
        """The list of voices that the trials of a split name, lines ``voice-id utterance-id …``.

        None where the trials name utterances on both sides.

        Raises:
            CorpusError: There is no such split, or the list is missing.
        """
        self._known(split)
        return self._require(f"{split}.enrolments") if self.info.splits[split].voices else None

    def trials(self, split: str) -> list[Trial]:
        """The trials of a split. Where it has `enrolments`, their first sides name voices.

        Raises:
            CorpusError: There is no such split, or it has no trial list.
            TrialError: The trial list is damaged.
        """
        self._known(split)
        if not self.info.splits[split].trials_from:
            notes = [note for note in self.info.notes if note.startswith(f"{split}: ")]
            why = f" ({notes[0].removeprefix(f'{split}: ')})" if notes else ""
            raise CorpusError(f"{self.folder} has no trials for {split}{why}; give a trial list, or another corpus")
        return read_trials(self._require(f"{split}.trials"))

    def utterance_trials(self, split: str) -> list[Trial]:
        """The trials of a split between utterances alone: the first of its utterances stands for a voice.

        Raises:
            CorpusError: There is no such split, or it has no trial list.
            TrialError: The trial list is damaged.
        """
        trials, path = self.trials(split), self.enrolments(split)
        if path is None:
            return trials
        first = {fields[0]: fields[1] for fields in map(str.split, path.read_text(encoding="utf-8").splitlines())}
        return [Trial(first[enrol], test, target) for enrol, test, target in trials]

    def noise(self, *, test: bool = False) -> CutSet | None:
        """Background noises for augmentation, or those kept for tests; None if there are none."""
        return self._clips("noise-test" if test else "noise")

    def rirs(self, *, test: bool = False) -> CutSet | None:
        """Room impulse responses for augmentation, or those kept for tests; None if there are none."""
        return self._clips("rir-test" if test else "rir")

    def verify(self) -> None:
        """Read everything and compare it with the fingerprint.

        Raises:
            CorpusError: Manifests or trial lists are not those that were prepared.
        """
        if self.fingerprint() != self.info.fingerprint:
            raise CorpusError(f"{self.folder}: manifests or trial lists were changed since they were made; {AGAIN}")

    def fingerprint(self) -> str:
        """The fingerprint of the files as they are now."""
        from parvox.corpora.manifests import Fingerprint

        fingerprint = Fingerprint()
        for split, info in self.info.splits.items():
            fingerprint.add_cuts(split, self.cuts(split, lazy=True))
            if info.trials_from:
                fingerprint.add_file(f"{split}.trials", self._require(f"{split}.trials"))
            if info.voices:
                fingerprint.add_file(f"{split}.enrolments", self._require(f"{split}.enrolments"))
        for name in self.info.clips:
            fingerprint.add_cuts(name, self._clips(name) or [])
        return fingerprint.hexdigest()

    def _known(self, split: str) -> None:
        if split not in self.info.splits:
            if not self.info.splits:
                raise CorpusError(f"{self.folder} holds no speech, only noises or impulse responses")
            raise CorpusError(f"{self.folder} has no split {split!r}: {nearest(split, self.info.splits)}")

    def _manifests(self, name: str) -> list[Path]:
        """The manifests of a split or of clips."""
        split = self.info.splits.get(name)
        return manifests(Path(), name, split.shards) if split and split.shards else [Path(f"{name}.jsonl.gz")]

    def _require(self, name: str | Path) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise CorpusError(f"{path} is missing; {AGAIN}")
        return path

    def _clips(self, name: str) -> CutSet | None:
        count = self.info.clips.get(name, 0)
        return self._read(name, count, lazy=False) if count else None

    def _read(self, name: str, count: int, lazy: bool) -> CutSet:
        from lhotse import CutSet

        split = self.info.splits.get(name)
        audio = self.info.audio.rstrip("/") or str(self.folder)
        shards = [f"{audio}/{audio_file(name, number)}" for number in range(split.shards if split else 0)]
        paths = [self._require(path) for path in self._manifests(name)]
        found = _ManifestReader(paths, shards, count, speech=split is not None)
        return CutSet(found if lazy else list(found))


class _ManifestReader:
    """Iterates over manifests, however often, and turns whatever is wrong with them into `CorpusError`.

    Args:
        paths: The manifests.
        shards: What holds the audio of each; empty where recordings are files of their own.
        count: How many cuts they hold together.
        speech: Whether each cut must say who speaks.
    """

    def __init__(self, paths: list[Path], shards: list[str], count: int, speech: bool) -> None:
        self._paths, self._shards, self._count, self._speech = paths, shards, count, speech

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Cut]:
        number = 0
        for place, path in enumerate(self._paths):
            for cut in self._of(path):
                number += 1
                for source in cut.recording.sources:
                    # absolute paths stay as they are
                    source.source = self._shards[place] if self._shards else str(path.parent / source.source)
                yield cut
        if number != self._count:
            raise CorpusError(f"{self._paths[0]} holds {number} cuts, {INFO} says {self._count}; {AGAIN}")

    def _of(self, path: Path) -> Iterator[Cut]:
        from lhotse.serialization import deserialize_item, load_jsonl

        import parvox.corpora.downmix  # noqa: F401, registers the transform that manifests may name

        number = 0
        try:
            for data in load_jsonl(path):
                _expect_plain(data, SHAR if self._shards else "file", self._speech)
                cut = deserialize_item(data)
                number += 1
                yield cut
        except (
            OSError,
            EOFError,
            zlib.error,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            AssertionError,
            RecursionError,
        ) as error:
            words = " ".join(str(error).split()) or type(error).__name__
            raise CorpusError(f"{path} is damaged after line {number} ({words[:120]}); {AGAIN}") from error


def _expect_plain(data: Any, kind: str, speech: bool) -> None:
    """Raise `ValueError` unless a line of a manifest is a cut of the kind that `parvox prepare` and `shard` write.

    Lhotse knows others, with recordings within recordings; some of them are commands, which it would run.

    Args:
        data: The line.
        kind: What the audio's source must be.
        speech: Whether the cut must say who speaks.
    """
    recording, name = data["recording"], data["id"]
    sources = recording["sources"]
    if data["type"] != "MonoCut" or not isinstance(name, str):
        raise ValueError(f"{data['type']} {name!r} given; expected a MonoCut with a name")
    if {source["type"] for source in sources} != {kind} or (kind == SHAR and len(sources) != 1):
        found = ", ".join(sorted({str(source["type"]) for source in sources})) or "nothing"
        raise ValueError(f"the audio of {name} is of the kind {found}, expected {kind}")
    if not {step["name"] for step in recording.get("transforms") or ()} <= _TRANSFORMS:
        raise ValueError(f"the audio of {name} is transformed otherwise than by {' and '.join(sorted(_TRANSFORMS))}")
    if any(isinstance(value, dict) for value in (data.get("custom") or {}).values()):
        raise ValueError(f"{name} holds more than text and numbers beside its recording")
    if {"features", "video"} & {key for key, value in data.items() if value is not None}:
        raise ValueError(f"{name} holds more than a recording")
    if speech and not data["supervisions"]:
        raise ValueError(f"{name} does not say who speaks")


def _info(data: Any, path: Path) -> CorpusInfo:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else None
        raise CorpusError(f"{path} has format {found!r}, this Parvox reads {FORMAT}; {AGAIN}")
    known = {item.name for item in dataclasses.fields(CorpusInfo)}
    try:
        values = {key: value for key, value in data.items() if key in known}
        values["splits"] = {name: SplitInfo(**split) for name, split in values.get("splits", {}).items()}
        info = CorpusInfo(**values)
        _expect_sound(info)
        return info
    except (TypeError, AttributeError, ValueError) as error:
        raise CorpusError(f"{path} lacks what a prepared corpus should say ({error}); {AGAIN}") from error


def _expect_sound(info: CorpusInfo) -> None:
    """Raise `ValueError` for names and numbers that lead nowhere, or out of the folder."""
    unknown = sorted({*info.splits} - {*SPLITS} | {*info.clips} - _CLIPS)
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no split and no kind of clips")
    counts = [info.sample_rate_hz, *info.clips.values()]
    for split in info.splits.values():
        counts += [split.speakers, split.utterances, split.shards, split.voices, split.phrases]
        counts += [split.target_trials, split.nontarget_trials]
        if not isinstance(split.trials_from, str):
            raise ValueError(f"trials_from is {split.trials_from!r}, expected words")
    for count in counts:
        if type(count) is not int or count < 0:
            raise ValueError(f"{count!r} is no count")
    if any(split.shards > split.utterances for split in info.splits.values()):
        raise ValueError("more shards than utterances")
    if not isinstance(info.audio, str):
        raise ValueError(f"audio is {info.audio!r}, expected an address")
