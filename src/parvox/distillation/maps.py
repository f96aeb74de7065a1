"""Maps of what a model's score rests on: integrated gradients of segments of several durations, put back together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from parvox.distillation.attribution import Rule, Score, Target, integrated_gradients, path_points
from parvox.distillation.checks import not_negative
from parvox.errors import RecipeError

Normalisation = Literal["minmax", "rank"]
_NAME = "integrated"
_MOST = 10_000  # steps, and frames that are averaged
_MOST_FRAMES = 32768  # in one pass: what a batch of 160 items of 2 s has
_MOST_FRAMES_CPU = 6400  # more would leave the caches: a quarter slower, with three times the memory


@dataclass(frozen=True, kw_only=True)
class MapSettings:
    """How maps are made."""

    durations_s: tuple[float, ...] = (0.5, 1.0, 0.0)
    """Segment lengths in seconds, whose maps are averaged; 0 is the whole utterance, as is all that is longer."""
    steps: int = 10
    """Gradients along the path, for each segment."""
    rule: Rule = "midpoint"
    """Where on the path they are taken."""
    baseline: Literal["zero", "utterance_mean"] = "zero"
    """Where the path begins: at zero, which is the mean of mean-normalised features, or at each bin's mean."""
    target: Target = "posterior"
    """What is attributed: the posterior of the true speaker, or the scaled cosine with it."""
    sign: Literal["absolute", "positive"] = "absolute"
    """Whether bins that speak against the speaker count as much as those that speak for it, or not at all."""
    smooth_frames: int = 1
    """Frames over which a map is averaged, an odd number; 1 leaves it as it is."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "durations_s", tuple(self.durations_s))  # a list would not be hashable
        if not self.durations_s:
            raise RecipeError(f"distillation.{_NAME}.durations_s: none given; expected one or more, such as [1, 0]")
        for duration in self.durations_s:
            not_negative(_NAME, durations_s=duration)
        if self.steps > _MOST:
            raise RecipeError(f"distillation.{_NAME}.steps: {self.steps} given; expected {_MOST} at most")
        try:
            path_points(self.rule, self.steps)
        except RecipeError as error:
            raise RecipeError(f"distillation.{_NAME}.steps: {error}") from error
        if not 1 <= self.smooth_frames <= _MOST or self.smooth_frames % 2 == 0:
            raise RecipeError(
                f"distillation.{_NAME}.smooth_frames: {self.smooth_frames} given; expected an odd number from 1 to "
                f"{_MOST}"
            )


class Segment(NamedTuple):
    """A stretch of frames that is attributed by itself.

    Attributes:
        start: Its first frame.
        stop: The frame after its last.
        kept: The first frame whose attributions are kept; those before it belong to the segment before.
    """

    start: int
    stop: int
    kept: int


def segments(frames: int, length: int) -> list[Segment]:
    """Cut an utterance into segments of equal length that keep every frame once.

    What remains at the end becomes a segment as long as the others, which reaches back into the one before: all
    have the same context, and none is too short for a model.

    Args:
        frames: Of the utterance.
        length: Of a segment, in frames; 0, or more than there are, for one segment.
    """
    if not 0 < length < frames:
        return [Segment(0, frames, 0)]
    whole = [Segment(start, start + length, start) for start in range(0, frames - length + 1, length)]
    kept = whole[-1].stop
    return whole if kept == frames else [*whole, Segment(frames - length, frames, kept)]


def segment_lengths(durations_s: Sequence[float], frame_s: float, frames: int, fewest: int = 1) -> list[int]:
    """Durations as numbers of frames, each once.

    Args:
        durations_s: In seconds; 0 for the whole.
        frame_s: Seconds a frame.
        frames: Of the utterance: no segment is longer.
        fewest: That a model accepts: no segment is shorter.
    """
    lengths = [frames if not duration else max(fewest, round(duration / frame_s)) for duration in durations_s]
    return list(dict.fromkeys(min(length, frames) for length in lengths))


def attributions(
    score: Score, features: Tensor, lengths: Sequence[int], settings: MapSettings, *, differentiable: bool = False
) -> Iterator[Tensor]:
    """Integrated gradients of segments, put back on the time axis, for one segment length after the other.

    Args:
        score: Of points (rows, frames, bins), and the utterance of each row.
        features: (batch, frames, bins), without padding.
        lengths: Of segments, in frames.
        settings: Steps, rule and baseline; the baseline is that of the whole utterance.
        differentiable: Whether they are to be differentiated.

    Yields:
        (batch, frames, bins), signed.
    """
    batch, frames, _ = features.shape
    origin = features.mean(1, keepdim=True) if settings.baseline == "utterance_mean" else features.new_zeros(1)
    origin = origin.expand_as(features)
    for length in lengths:
        pieces = segments(frames, length)
        gradients = integrated_gradients(
            lambda points, which: score(points, which % batch),
            torch.cat([features[:, piece.start : piece.stop] for piece in pieces]),  # (segments × batch, …)
            torch.cat([origin[:, piece.start : piece.stop] for piece in pieces]),
            steps=settings.steps,
            rule=settings.rule,
            most_frames=_MOST_FRAMES_CPU if features.device.type == "cpu" else _MOST_FRAMES,
            differentiable=differentiable,
        )
        parts = gradients.unflatten(0, (len(pieces), batch))
        yield torch.cat([part[:, piece.kept - piece.start :] for piece, part in zip(pieces, parts, strict=True)], 1)


def saliency(score: Score, features: Tensor, lengths: Sequence[int], settings: MapSettings) -> Tensor:
    """The map: attributions without sign, averaged over segment lengths and, if wanted, smoothed.

    Args:
        score: See `attributions`.
        features: (batch, frames, bins), without padding.
        lengths: Of segments, in frames.
        settings: How to make it.

    Returns:
        (batch, frames, bins), 0 or more.
    """
    total = torch.zeros_like(features)
    for signed in attributions(score, features, lengths, settings):
        total += signed.abs() if settings.sign == "absolute" else signed.clamp(min=0)
    if settings.smooth_frames == 1:
        return total / len(lengths)
    width = settings.smooth_frames
    return F.avg_pool2d(total / len(lengths), (width, 1), 1, (width // 2, 0), count_include_pad=False)


def normalised(maps: Tensor, how: Normalisation) -> Tensor:
    """Each utterance's map brought to 0 … 1.

    Args:
        maps: (batch, frames, bins).
        how: `minmax` by its least and greatest value, which leaves most bins near 0; `rank` by the order of its bins,
            which makes all values between equally frequent; equal bins share the mean of their places, or those that
            `sign` makes 0 would be ordered by time. A map that is the same everywhere becomes 0 by `minmax`, 0.5 by
            `rank`.
    """
    flat = maps.float().flatten(1)
    if how == "rank":
        ordered = flat.sort(dim=1).values
        first, end = (torch.searchsorted(ordered, flat, right=right) for right in (False, True))
        return ((first + end - 1).to(flat.dtype) / 2 / max(1, flat.shape[1] - 1)).view_as(maps)
    least, greatest = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    # dividing by the tiniest number that float32 holds would overflow
    spread = (greatest - least).clamp(min=torch.finfo(flat.dtype).tiny)
    return ((flat - least) / spread).view_as(maps)


def permuted(maps: Tensor) -> Tensor:
    """Maps of the same values in random places, the control for what a map's places are worth.

    Args:
        maps: (batch, frames, bins). Draws come from torch's generator on their device.
    """
    flat = maps.flatten(1)
    return flat.gather(1, torch.rand_like(flat).argsort(1)).view_as(maps)
