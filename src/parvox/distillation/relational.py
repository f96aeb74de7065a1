"""Relational distillation: distances and angles between the utterances of a batch are as the teacher's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from parvox.distillation.checks import expect_embeddings, not_negative
from parvox.distillation.contract import METHODS, DistillationMethod, Pair, View
from parvox.errors import RecipeError

_NAME = "relational"
# Closer than this, two unit vectors differ by rounding error, and gradients through their distance would be huge.
_NEAREST = 1e-4


@METHODS.register(_NAME, source="Park et al., CVPR 2019, arXiv 1904.05068")
@dataclass(frozen=True, kw_only=True)
class RelationalSettings:
    """Relational distillation: distances between pairs and angles between triplets of a batch.

    Embeddings may be of different sizes. They are normalised in length first, unless `normalise` is off as in the
    paper's experiments, because speakers are compared by cosine.
    """

    weight: float = 1.0
    """Weight of both terms."""
    distance_weight: float = 1.0
    """Weight of the distances."""
    angle_weight: float = 2.0
    """Weight of the angles; twice that of the distances in the paper."""
    normalise: bool = True
    """Whether embeddings are scaled to length 1 first."""
    angle_utterances: int = 64
    """Utterances of a batch whose angles are looked at, the first ones; their number is the cube of this."""

    def __post_init__(self) -> None:
        not_negative(_NAME, weight=self.weight, distance_weight=self.distance_weight, angle_weight=self.angle_weight)
        if self.angle_utterances < 3:
            raise RecipeError(
                f"distillation.{_NAME}.angle_utterances: {self.angle_utterances} given; expected 3 or more"
            )

    def build(self, pair: Pair) -> DistillationMethod:
        """The method for this pair."""
        expect_embeddings(_NAME, pair)
        return RelationalDistillation(self)


class RelationalDistillation(DistillationMethod):
    """Mean of l(ψ_T, ψ_S), l the Huber loss, ψ the distance of a pair by the batch's mean distance, or an angle.

    Args:
        settings: Weights.
    """

    def __init__(self, settings: RelationalSettings) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, student: View, teacher: View, progress: float) -> dict[str, Tensor]:
        """The terms `relational_distance` and `relational_angle`, each with its weight."""
        settings = self.settings
        both = [view.embedding.float() for view in (student, teacher)]
        if settings.normalise:
            both = [F.normalize(embeddings) for embeddings in both]
        terms = {}
        if settings.distance_weight:
            ours, theirs = (relative_distances(embeddings) for embeddings in both)
            terms["relational_distance"] = settings.distance_weight * F.smooth_l1_loss(ours, theirs)
        if settings.angle_weight:
            ours, theirs = (angles(embeddings[: settings.angle_utterances]) for embeddings in both)
            terms["relational_angle"] = settings.angle_weight * F.smooth_l1_loss(ours, theirs)
        return terms


def relative_distances(embeddings: Tensor) -> Tensor:
    """Distances of all pairs as multiples of the mean distance, (batch, batch).

    From inner products in float32, of embeddings moved to their mean: memory grows with the pairs alone, and little
    is lost where all lie close together.

    Args:
        embeddings: (batch, dim) float32.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        centred = embeddings - embeddings.mean(0)
        products = centred @ centred.T
    squares = products.diagonal()
    squared = squares[:, None] + squares - 2 * products
    distances = squared.clamp(min=_NEAREST**2).sqrt() * ~torch.eye(
        len(embeddings), dtype=torch.bool, device=embeddings.device
    )
    pairs = max(len(embeddings) * (len(embeddings) - 1), 1)
    return distances / (distances.sum() / pairs).clamp(min=_NEAREST)


def angles(embeddings: Tensor) -> Tensor:
    """Cosines of the angles of all triplets: [j, i, k] is that at j between i and k, (batch, batch, batch).

    Args:
        embeddings: (batch, dim) float32.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        directions = F.normalize(embeddings - embeddings[:, None], dim=-1, eps=_NEAREST)
        return directions @ directions.mT
