"""A Lhotse transform that averages channels while a recording is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from lhotse.augmentation import AudioTransform


@dataclass
class ParvoxDownmix(AudioTransform):
    """The mean of all channels, as Parvox's own decoding has it.

    A cut of one channel would otherwise read the first channel alone. Manifests name this transform for recordings of
    several channels; whoever reads them without Parvox must import this module first.
    """

    def __call__(self, samples: np.ndarray, sampling_rate: int) -> np.ndarray:
        """(channels, samples) to (1, samples)."""
        mean: np.ndarray = samples.mean(axis=0, keepdims=True, dtype=samples.dtype)
        return mean

    def reverse_timestamps(
        self, offset: float, duration: float | None, sampling_rate: int
    ) -> tuple[float, float | None]:
        """Times stay what they are."""
        return offset, duration
