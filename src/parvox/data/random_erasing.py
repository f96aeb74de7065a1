"""Random Erasing: a rectangle of features is overwritten, so that a network cannot lean on any part of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from parvox.errors import RecipeError

DRAWS = 5
"""Random numbers that one utterance takes: whether, area, aspect, place in time, place in frequency."""


@dataclass(frozen=True, kw_only=True)
class RandomErasingSettings:
    """Random Erasing of features, with the ranges of the paper on images."""

    probability: float = 0.5
    """Probability with which an utterance is erased."""
    area: tuple[float, float] = (0.02, 0.4)
    """Least and greatest part of an utterance's features that is erased."""
    aspect: tuple[float, float] = (0.3, 3.3)
    """Least and greatest ratio of frames to bins of a rectangle, relative to that of the utterance."""
    fill: Literal["noise", "mean"] = "noise"
    """What is written: Gaussian noise of each bin's mean and deviation in the utterance, or that mean alone."""

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise RecipeError(f"random_erasing_probability {self.probability} given; expected 0 to 1")
        if not (0 < self.area[0] <= self.area[1] <= 1):
            raise RecipeError(f"random_erasing_area {list(self.area)} given; expected 0 < least <= greatest <= 1")
        if not (0 < self.aspect[0] <= self.aspect[1] < math.inf):
            raise RecipeError(f"random_erasing_aspect {list(self.aspect)} given; expected 0 < least <= greatest")
        if self.fill not in ("noise", "mean"):
            raise RecipeError(f"random_erasing_fill {self.fill!r} given; expected noise or mean")


def rectangles(draws: Tensor, frames: Tensor, bins: int, settings: RandomErasingSettings) -> Tensor:
    """Which rectangle each utterance loses.

    Area is uniform between its bounds, aspect log-uniform. A rectangle longer or higher than the utterance is cut
    to it.

    Args:
        draws: (batch, `DRAWS`) uniform in [0, 1).
        frames: (batch,) int64 valid frames.
        bins: Feature bins.
        settings: Ranges.

    Returns:
        (batch, 4) int64: first frame, end frame, first bin, end bin (ends not included); all zero where nothing is
        erased.
    """
    whether, area, aspect, time, frequency = draws.unbind(1)
    area = settings.area[0] + area * (settings.area[1] - settings.area[0])
    low, high = math.log(settings.aspect[0]), math.log(settings.aspect[1])
    root = (low + aspect * (high - low)).div(2).exp()
    width = (area.sqrt() * root * frames).round().long().clamp(min=1).minimum(frames)
    height = (area.sqrt() / root * bins).round().long().clamp(1, bins)
    # the product of a number just below 1 may round up to the count of places
    left = (time * (frames - width + 1)).long().minimum(frames - width)
    bottom = (frequency * (bins - height + 1)).long().minimum(bins - height)
    corners = torch.stack([left, left + width, bottom, bottom + height], 1)
    return corners * (whether < settings.probability).unsqueeze(1)


def erase(
    features: Tensor,
    lengths: Tensor | None,
    draws: Tensor,
    settings: RandomErasingSettings,
    noise: Tensor | None = None,
) -> Tensor:
    """Overwrite a rectangle of each utterance's features, on the features' device.

    Source: Zhong et al., "Random Erasing Data Augmentation", AAAI 2020; for speakers Mingote et al., ICASSP 2020,
    whose abstract gives no ranges.

    Args:
        features: (batch, frames, bins), zero where padded.
        lengths: (batch,) int64 valid frames; None when every row is full.
        draws: (batch, `DRAWS`) uniform in [0, 1), whose rows decide for each utterance alone.
        settings: What to erase.
        noise: (batch, frames, bins) standard normal, for the fill of that name.

    Returns:
        New features; padded frames stay as they are.
    """
    if settings.fill == "noise" and noise is None:
        raise RecipeError("random_erasing_fill noise needs noise; pass it, or use random_erasing")
    batch, frames, bins = features.shape
    if lengths is None:
        lengths = torch.full((batch,), frames, device=features.device)
    corners = rectangles(draws.to(features.device), lengths, bins, settings)
    left, right, bottom, top = corners[:, :, None].unbind(1)
    time = torch.arange(frames, device=features.device)
    frequency = torch.arange(bins, device=features.device)
    inside = ((time >= left) & (time < right)).unsqueeze(2) & ((frequency >= bottom) & (frequency < top)).unsqueeze(1)
    count = lengths.view(-1, 1, 1).to(features.dtype)
    mean = features.sum(1, keepdim=True) / count
    fill = mean.expand_as(features)
    if settings.fill == "noise" and noise is not None:
        # padded frames are zero: their squares add nothing
        variance = (features.square().sum(1, keepdim=True) / count - mean.square()).clamp(min=0)
        fill = mean + variance.sqrt() * noise.to(features)
    return torch.where(inside, fill, features)


def random_erasing(
    features: Tensor,
    lengths: Tensor | None,
    settings: RandomErasingSettings,
    generator: torch.Generator | None = None,
    draws: Tensor | None = None,
) -> Tensor:
    """`erase` with noise if need be, and draws unless given, from `generator` (on its device), or torch's own."""
    device = features.device if generator is None else generator.device
    if draws is None:
        draws = torch.rand(features.shape[0], DRAWS, generator=generator, device=device)
    noise = None
    if settings.fill == "noise":
        noise = torch.randn(features.shape, generator=generator, device=device)
    return erase(features, lengths, draws, settings, noise)
