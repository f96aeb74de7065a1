"""What `parvox prepare` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from parvox.corpora.check import Limits
from parvox.corpora.join_settings import JoinSettings
from parvox.corpora.splits import SplitBy
from parvox.errors import CorpusError


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """All that decides what a prepared corpus holds."""

    name: str | None = None
    """The corpus's name; the importer's, or the root folder's for `folder` and `csv`."""
    seed: int = 0
    """Deals splits and trials anew."""
    sample_rate_hz: int = 16000
    """The corpus's rate. Higher ones are lowered while reading, lower ones rejected."""
    allow_upsampling: bool = False
    """Accept recordings of lower rates."""
    min_duration_s: float = 0.4
    """Utterances shorter than this are rejected."""
    max_duration_s: float = 600.0
    """Utterances longer than this are rejected."""
    split_by: SplitBy = "corpus"
    """See `SplitSettings.by`."""
    dev_fraction: float = 0.1
    """Share of the speakers for dev."""
    test_fraction: float = 0.1
    """Share of the speakers for test."""
    dev_speakers: int | None = None
    """A number instead of a share."""
    test_speakers: int | None = None
    """A number instead of a share."""
    split_file: Path | None = None
    """CSV of speaker,split that fixes every speaker's split."""
    trials: Path | None = None
    """A trial list in VoxCeleb's format for the test split; its speakers make that split."""
    trials_per_split: int = 50_000
    """Trials drawn for dev, and for test without a list; fewer where there are not as many."""
    nontargets_per_target: int = 10
    """Non-target trials for each target trial."""
    text_dependent: bool = False
    """Draw trials of the four kinds of text-dependent verification; done unasked where the corpus is made for that."""
    join: JoinSettings = field(default_factory=JoinSettings)
    """Phrases to join from recordings of single words."""
    noise: tuple[Path, ...] = ()
    """Prepared corpora or folders whose noises to take in."""
    rirs: tuple[Path, ...] = ()
    """Prepared corpora or folders whose room impulse responses to take in."""
    noise_test_fraction: float = 0.2
    """Share of noises and impulse responses kept for tests."""
    relative: bool = False
    """Write audio paths relative to the prepared folder, so that both can move together."""

    def __post_init__(self) -> None:
        fractions = {
            "dev_fraction": self.dev_fraction,
            "test_fraction": self.test_fraction,
            "noise_test_fraction": self.noise_test_fraction,
        }
        for name, value in fractions.items():
            _require(0 <= value <= 1, name, value, "a share from 0 to 1")
        _require(
            self.dev_fraction + self.test_fraction < 1 + 1e-9,
            "dev_fraction + test_fraction",
            self.dev_fraction + self.test_fraction,
            "1 at most, or numbers of speakers, or a split file",
        )
        for name in ("dev_speakers", "test_speakers"):
            value = getattr(self, name)
            _require(value is None or value >= 0, name, value, "a number of at least 0")
        _require(self.seed >= 0, "seed", self.seed, "a number of at least 0")
        _require(1000 <= self.sample_rate_hz <= 192_000, "sample_rate_hz", self.sample_rate_hz, "1000 to 192000 Hz")
        _require(
            0 < self.min_duration_s < self.max_duration_s < float("inf"),
            "min_duration_s, max_duration_s",
            f"{self.min_duration_s}, {self.max_duration_s}",
            "0 < min_duration_s < max_duration_s",
        )
        _require(self.trials_per_split >= 2, "trials_per_split", self.trials_per_split, "at least 2")
        _require(self.nontargets_per_target >= 1, "nontargets_per_target", self.nontargets_per_target, "at least 1")
        dealing = ("dev_fraction", "test_fraction", "dev_speakers", "test_speakers")
        for name in dealing if self.split_file else ():
            value = getattr(self, name)
            _require(value == getattr(PrepareSettings, name), name, value, "nothing beside split_file, which decides")


def _require(sound: bool, name: str, given: object, expected: str) -> None:
    if not sound:
        raise CorpusError(f"{name}: {given} given; expected {expected}")


def limits(settings: PrepareSettings) -> Limits:
    """What recordings must satisfy."""
    return Limits(settings.sample_rate_hz, settings.min_duration_s, settings.max_duration_s, settings.allow_upsampling)
