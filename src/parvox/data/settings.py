"""Settings of batches and of augmentation, as a recipe fills them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from parvox.data.random_erasing import RandomErasingSettings
from parvox.errors import RecipeError

_MOST_DB = 200.0


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """What is done to training batches besides cropping; all of it is off unless asked for."""

    noise_probability: float = 0.0
    """How likely an item gets noise; above 0 the corpus must hold noise."""
    snr_db: tuple[float, float] = (0.0, 20.0)
    """Lowest and highest signal-to-noise ratio in dB, drawn uniformly."""
    reverberation_probability: float = 0.0
    """How likely an item is played in a room; above 0 the corpus must hold room impulse responses."""
    gain_db: tuple[float, float] = (0.0, 0.0)
    """Lowest and highest gain in dB. Mean-normalised log-mel features hardly notice it; waveform models do."""
    spec_augment_probability: float = 0.0
    """How likely an item's features are masked (SpecAugment)."""
    time_masks: int = 1
    """Masks along time."""
    max_time_mask_frames: int = 10
    """Longest time mask, in feature frames."""
    frequency_masks: int = 1
    """Masks along frequency."""
    max_frequency_mask_bins: int = 8
    """Widest frequency mask, in feature bins."""
    random_erasing_probability: float = 0.0
    """How likely a rectangle of an item's features is overwritten (Random Erasing)."""
    random_erasing_area: tuple[float, float] = (0.02, 0.4)
    """Least and greatest part of the features that is erased."""
    random_erasing_aspect: tuple[float, float] = (0.3, 3.3)
    """Least and greatest ratio of frames to bins of a rectangle, relative to that of the item."""
    random_erasing_fill: Literal["noise", "mean"] = "noise"
    """What is written there: noise of each bin's mean and deviation, or that mean alone."""
    random_erasing_teacher: Literal["same", "own", "plain"] = "same"
    """What a teacher hears: what the student does, the item erased elsewhere, or the item as it was."""

    def __post_init__(self) -> None:
        for name in ("noise_probability", "reverberation_probability", "spec_augment_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"augmentation: {name} {getattr(self, name)} given; expected 0 to 1")
        for name in ("snr_db", "gain_db"):
            low, high = getattr(self, name)
            if not -_MOST_DB <= low <= high <= _MOST_DB:
                raise RecipeError(
                    f"augmentation: {name} ({low}, {high}) given; expected the lower bound first, from {-_MOST_DB} to "
                    f"{_MOST_DB}"
                )
        for name in ("time_masks", "max_time_mask_frames", "frequency_masks", "max_frequency_mask_bins"):
            if getattr(self, name) < 0:
                raise RecipeError(f"augmentation: {name} {getattr(self, name)} given; expected 0 or more")
        if self.random_erasing_teacher not in ("same", "own", "plain"):
            raise RecipeError(
                f"augmentation: random_erasing_teacher {self.random_erasing_teacher!r} given; expected same, own or "
                "plain"
            )
        _ = self.random_erasing  # checks the rest

    @property
    def random_erasing(self) -> RandomErasingSettings:
        """What is erased, and how often."""
        return RandomErasingSettings(
            probability=self.random_erasing_probability,
            area=self.random_erasing_area,
            aspect=self.random_erasing_aspect,
            fill=self.random_erasing_fill,
        )


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """How recordings become batches."""

    crop_s: float = 2.0
    """Seconds of each training item; shorter utterances are repeated to fill it."""
    crop_from: Literal["random", "start"] = "random"
    """Where an item begins in its utterance: at a random place, or at the start, where the order of words counts."""
    batch_size: int = 64
    """Items a batch, on each process."""
    utterances_per_epoch: int | None = None
    """Items an epoch over all processes; unset means as many as there are utterances."""
    speaker_balanced: bool = False
    """Whether every speaker comes equally often, however many utterances they have."""
    classes: Literal["speaker", "speaker_phrase"] = "speaker"
    """What the classifier tells apart: speakers, or pairs of a speaker and a phrase, where the words count as well."""
    min_utterances_per_speaker: int = 1
    """Speakers with fewer utterances are left out of training."""
    speed_perturbation: tuple[float, ...] = ()
    """Speed factors, such as [0.9, 1.1], each of which makes every speaker a new one at another pitch."""
    workers: int | None = None
    """Processes that load batches; 0 loads between steps; unset chooses by the processors at hand."""
    cache_audio_mib: int = 1024
    """Memory for decoded recordings in MiB, shared by the workers of a process; 0 decodes anew every time."""

    def __post_init__(self) -> None:
        # a list would make the settings unhashable
        object.__setattr__(self, "speed_perturbation", tuple(self.speed_perturbation))
        if self.crop_from not in ("random", "start"):
            raise RecipeError(f"data: crop_from {self.crop_from!r} given; expected random or start")
        if self.classes not in ("speaker", "speaker_phrase"):
            raise RecipeError(f"data: classes {self.classes!r} given; expected speaker or speaker_phrase")
        if not 0.1 <= self.crop_s <= 600:
            raise RecipeError(f"data: crop_s {self.crop_s} given; expected 0.1 to 600 seconds")
        for name, least in (("batch_size", 1), ("min_utterances_per_speaker", 1), ("cache_audio_mib", 0)):
            if getattr(self, name) < least:
                raise RecipeError(f"data: {name} {getattr(self, name)} given; expected {least} or more")
        if self.utterances_per_epoch is not None and self.utterances_per_epoch < 1:
            raise RecipeError(
                f"data: utterances_per_epoch {self.utterances_per_epoch} given; expected 1 or more, or null for all"
            )
        if self.workers is not None and self.workers < 0:
            raise RecipeError(f"data: workers {self.workers} given; expected 0 or more, or null to choose")
        factors = self.speed_perturbation
        if any(not 0.5 <= factor <= 2 or factor == 1 for factor in factors) or len(set(factors)) < len(factors):
            raise RecipeError(
                f"data: speed_perturbation {list(factors)} given; expected different factors from 0.5 to 2, without 1"
            )

    def expect_no_labels_asked_for(self) -> None:
        """Raise `RecipeError` for settings that mean speakers or phrases."""
        for name, unused in (("speaker_balanced", False), ("min_utterances_per_speaker", 1), ("classes", "speaker")):
            if getattr(self, name) != unused:
                raise RecipeError(
                    f"data: {name} {getattr(self, name)} given, but the corpus names no speakers; set --data.{name} "
                    f"{str(unused).lower()}"
                )

    def crop_samples(self, sample_rate_hz: int) -> int:
        """Samples of each item at a sample rate."""
        return round(self.crop_s * sample_rate_hz)
