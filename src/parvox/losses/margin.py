"""Softmax losses over training speakers: plain, additive margin (AM), additive angular margin (AAM).

Both margin losses take sub-centres, the inter-topK penalty, and a margin that rises during training. Everything is
computed in float32, whatever the precision of the network, because a scale of 32 magnifies what bf16 rounds away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from parvox.errors import RecipeError
from parvox.losses.registry import LOSSES, SpeakerLoss

# Below this a squared sine is rounding error, and the gradient of its root would be huge or infinite.
_MIN_SINE_SQUARED = 1e-7
MOST_SCALE = 10_000
"""Of cosines in a loss, which float32 can still tell apart."""
MOST_SUB_CENTRES = 1000
"""Of a speaker; more is a slip, and a layer that no memory holds."""


def margin_ramp(progress: float, start: float, end: float) -> float:
    """The share of the final margin in force.

    Source: WeSpeaker's margin schedule; 1 - exp(p ln(1e-3 / (1 + 1e-6))) with p from 0 to 1 between start and end,
    quick at first, and exactly 1 from the end on.

    Args:
        progress: Fraction of the training done.
        start: Fraction at which the margin begins to rise.
        end: Fraction from which it is final.
    """
    if progress >= end:
        return 1.0
    if progress <= start:
        return 0.0
    return 1.0 - math.exp((progress - start) / (end - start) * math.log(1e-3 / (1.0 + 1e-6)))


@LOSSES.register("softmax", source="cross-entropy over a linear layer")
@dataclass(frozen=True, kw_only=True)
class SoftmaxSettings:
    """Plain softmax over a linear layer."""

    def build(self, embedding_dim: int, classes: int) -> SpeakerLoss:
        """The loss for embeddings of this size and so many training speakers."""
        return Softmax(embedding_dim, classes)


class Softmax(SpeakerLoss):
    """Cross-entropy over W e + b.

    Args:
        embedding_dim: Size of the embeddings.
        classes: Training speakers.
    """

    def __init__(self, embedding_dim: int, classes: int) -> None:
        super().__init__(embedding_dim, classes)
        self.weight = nn.Parameter(torch.empty(classes, embedding_dim))
        self.bias = nn.Parameter(torch.zeros(classes))
        nn.init.xavier_uniform_(self.weight)

    def scores(self, embeddings: Tensor) -> Tensor:
        """The linear layer's outputs, (batch, classes)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return nn.functional.linear(embeddings.type_as(self.weight), self.weight, self.bias)

    def logits_of(self, scores: Tensor, labels: Tensor | None = None) -> Tensor:
        """See `SpeakerLoss.logits_of`; labels change nothing."""
        return scores


@dataclass(frozen=True, kw_only=True)
class _MarginSettings:
    scale: float = 32.0
    """What cosines are multiplied by before the softmax."""
    margin_start: float = 0.13
    """Fraction of the training at which the margin begins to rise from zero."""
    margin_end: float = 0.27
    """Fraction of the training from which the margin is in full force; 0 for the whole run."""
    sub_centres: int = 1
    """Centres of each speaker; the nearest one counts (3 in published systems with inter-topK)."""
    top_k: int = 0
    """The most confused other speakers that are pushed further off (inter-topK, 5 in the paper); 0 for none."""
    top_k_penalty: float = 0.06
    """By how much they are pushed: an angle in rad for AAM, a cosine for AM. Rises with the margin."""

    def _check(self, name: str, margin_field: str, margin: float, limit: float) -> None:
        if not 0 <= margin < limit:
            raise RecipeError(f"{name}: {margin_field} {margin} given; expected 0 or more and less than {limit:.3g}")
        if not 0 < self.scale <= MOST_SCALE:
            raise RecipeError(
                f"{name}: scale {self.scale} given; expected more than 0, at most {MOST_SCALE} (30 to 32 is usual)"
            )
        if not 0 <= self.margin_start <= self.margin_end <= 1:
            raise RecipeError(
                f"{name}: margin_start {self.margin_start} and margin_end {self.margin_end} given; "
                "expected fractions of the training, 0 <= start <= end <= 1"
            )
        if not 1 <= self.sub_centres <= MOST_SUB_CENTRES:
            raise RecipeError(f"{name}: sub_centres {self.sub_centres} given; expected 1 to {MOST_SUB_CENTRES}")
        if self.top_k < 0 or not 0 <= self.top_k_penalty < limit:
            raise RecipeError(
                f"{name}: top_k {self.top_k} and top_k_penalty {self.top_k_penalty} given; expected "
                f"0 or more each, the penalty less than {limit:.3g}"
            )


@LOSSES.register("am_softmax", source="Wang et al., IEEE SPL 2018, arXiv 1801.05599; inter-topK arXiv 2110.05042")
@dataclass(frozen=True, kw_only=True)
class AmSoftmaxSettings(_MarginSettings):
    """Additive margin softmax (CosFace)."""

    margin: float = 0.2
    """Subtracted from the true speaker's cosine."""

    def __post_init__(self) -> None:
        self._check("am_softmax", "margin", self.margin, 2.0)

    def build(self, embedding_dim: int, classes: int) -> SpeakerLoss:
        """The loss for embeddings of this size and so many training speakers."""
        return AmSoftmax(self, self.margin, embedding_dim, classes)


@LOSSES.register("aam_softmax", source="Deng et al., CVPR 2019, arXiv 1801.07698; inter-topK arXiv 2110.05042")
@dataclass(frozen=True, kw_only=True)
class AamSoftmaxSettings(_MarginSettings):
    """Additive angular margin softmax (ArcFace)."""

    margin_rad: float = 0.2
    """Added to the angle between embedding and true speaker (0.5 in large-margin fine-tuning)."""

    def __post_init__(self) -> None:
        self._check("aam_softmax", "margin_rad", self.margin_rad, math.pi / 2)

    def build(self, embedding_dim: int, classes: int) -> SpeakerLoss:
        """The loss for embeddings of this size and so many training speakers."""
        return AamSoftmax(self, self.margin_rad, embedding_dim, classes)


class MarginSoftmax(SpeakerLoss):
    """Cross-entropy over scaled cosines, with the true speaker held back by a margin.

    The K most confused other speakers can be held forward by a penalty m' (inter-topK, Zhao et al., ICASSP 2022);
    which ones they are is chosen without gradient, and never the true one. The penalty rises with the margin. With
    sub-centres, a speaker's cosine is that of the nearest of its centres (Deng et al., ECCV 2020).

    Args:
        settings: Scale, schedule, sub-centres and penalty.
        margin: The final margin.
        embedding_dim: Size of the embeddings.
        classes: Training speakers.

    Attributes:
        weight: (classes × sub_centres, embedding_dim), the centres of one speaker side by side.

    Raises:
        RecipeError: there are not more than `top_k` + 1 speakers.
    """

    def __init__(self, settings: _MarginSettings, margin: float, embedding_dim: int, classes: int) -> None:
        super().__init__(embedding_dim, classes)
        if settings.top_k >= classes - 1 and settings.top_k > 0:
            raise RecipeError(
                f"loss: top_k {settings.top_k} with {classes} training speakers given; expected at most {classes - 2}"
            )
        self.settings = settings
        self.final_margin = margin
        self.ramp = margin_ramp(0.0, settings.margin_start, settings.margin_end)
        self.weight = nn.Parameter(torch.empty(classes * settings.sub_centres, embedding_dim))
        nn.init.xavier_uniform_(self.weight)

    @property
    def margin(self) -> float:
        """The margin in force, after the schedule."""
        return self.final_margin * self.ramp

    @property
    def penalty(self) -> float:
        """The inter-topK penalty in force, after the schedule."""
        return self.settings.top_k_penalty * self.ramp if self.settings.top_k else 0.0

    def set_progress(self, progress: float) -> None:
        """Say how much of the training is done, from 0 to 1; margin and penalty follow."""
        self.ramp = margin_ramp(progress, self.settings.margin_start, self.settings.margin_end)

    def scores(self, embeddings: Tensor) -> Tensor:
        """Cosines of embeddings (batch, embedding_dim) with each speaker's nearest centre, (batch, classes)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            directions = nn.functional.normalize(embeddings.type_as(self.weight))
            cosines = nn.functional.linear(directions, nn.functional.normalize(self.weight))
            if self.settings.sub_centres > 1:
                cosines = cosines.unflatten(1, (self.classes, self.settings.sub_centres)).amax(-1)
            return cosines

    def logits_of(self, scores: Tensor, labels: Tensor | None = None) -> Tensor:
        """See `SpeakerLoss.logits_of`."""
        if labels is None:
            return self.settings.scale * scores
        with torch.autocast(scores.device.type, enabled=False):
            targets = labels.unsqueeze(1)
            held = scores.scatter(1, targets, self.hold_back(scores.gather(1, targets)))
            if self.penalty > 0:
                others = scores.detach().scatter(1, targets, float("-inf"))
                confused = others.topk(self.settings.top_k, dim=1, sorted=False).indices
                held = held.scatter(1, confused, self.push_on(scores.gather(1, confused)))
            return self.settings.scale * held

    def hold_back(self, cosines: Tensor) -> Tensor:
        """Cosines of the true speaker with the margin in force, of any shape."""
        raise NotImplementedError

    def push_on(self, cosines: Tensor) -> Tensor:
        """Cosines of confused speakers with the penalty in force, of any shape."""
        raise NotImplementedError


class AmSoftmax(MarginSoftmax):
    """Target cos θ - m, confused speakers cos θ + m'."""

    def hold_back(self, cosines: Tensor) -> Tensor:
        """See `MarginSoftmax.hold_back`."""
        return cosines - self.margin

    def push_on(self, cosines: Tensor) -> Tensor:
        """See `MarginSoftmax.push_on`."""
        return cosines + self.penalty


class AamSoftmax(MarginSoftmax):
    """Target cos(θ + m), confused speakers cos(θ - m').

    Where θ + m would pass π, cos θ - 1 - cos(π - m) takes over, which meets cos(θ + m) there and goes on falling
    (as in WeSpeaker). Likewise where θ is less than m' cos θ + 1 - cos m' takes over, which meets cos(θ - m') there and
    goes on rising: the nearer of two confused speakers is never the less pushed on.
    """

    def hold_back(self, cosines: Tensor) -> Tensor:
        """See `MarginSoftmax.hold_back`."""
        turn = math.cos(math.pi - self.margin)
        shifted = cosines * math.cos(self.margin) - _sines(cosines) * math.sin(self.margin)
        return torch.where(cosines > turn, shifted, cosines - (1.0 + turn))

    def push_on(self, cosines: Tensor) -> Tensor:
        """See `MarginSoftmax.push_on`."""
        turn = math.cos(self.penalty)
        shifted = cosines * turn + _sines(cosines) * math.sin(self.penalty)
        return torch.where(cosines < turn, shifted, cosines + (1.0 - turn))


def _sines(cosines: Tensor) -> Tensor:
    return (1.0 - cosines.square()).clamp(min=_MIN_SINE_SQUARED).sqrt()
