"""Deletion and insertion: how a score falls without the bins that a map calls strong, and rises with them alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from parvox.distillation.attribution import Score
from parvox.errors import RecipeError

FRACTIONS = tuple(k / 20 for k in range(21))


@dataclass(frozen=True, eq=False)
class Curves:
    """Scores along deletion and insertion.

    Attributes:
        fractions: (points,) parts of the bins that are deleted or inserted, the strongest first, from 0 to 1.
        deletion: (batch, points) scores, from the whole input down to the baseline.
        insertion: (batch, points) scores, from the baseline up to the whole input.
    """

    fractions: Tensor
    deletion: Tensor
    insertion: Tensor

    @property
    def deletion_area(self) -> Tensor:
        """(batch,) areas under the deletion curves: the smaller, the more the score rests on the strongest bins."""
        return torch.trapezoid(self.deletion, self.fractions)

    @property
    def insertion_area(self) -> Tensor:
        """(batch,) areas under the insertion curves: the greater, the sooner the strongest bins make the score."""
        return torch.trapezoid(self.insertion, self.fractions)


@torch.no_grad()
def deletion_insertion(
    score: Score,
    features: Tensor,
    maps: Tensor,
    baseline: Tensor | float = 0.0,
    fractions: Sequence[float] = FRACTIONS,
) -> Curves:
    """Scores of features whose strongest bins are replaced by the baseline, and of a baseline with those bins.

    Source: Petsiuk, Das and Saenko, "RISE", BMVC 2018, section 4.2, with single bins for pixels.

    Args:
        score: Of points (rows, frames, bins) and the utterance of each row; its model is to be in evaluation mode.
        features: (batch, frames, bins).
        maps: (batch, frames, bins), great where a bin matters; of equal ones the earlier goes first.
        baseline: Broadcast to the features.
        fractions: Parts of the bins, rising from 0 to 1.

    Raises:
        RecipeError: the fractions do not rise from 0 to 1.
    """
    places = torch.tensor(list(fractions), dtype=torch.float32, device=features.device)
    if len(places) < 2 or places[0] != 0 or places[-1] != 1 or (places.diff() <= 0).any():
        raise RecipeError(
            f"deletion and insertion: fractions {list(fractions)} given; expected them to rise from 0 to 1"
        )
    flat = maps.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order).scatter_(1, order, torch.arange(flat.shape[1], device=flat.device).expand_as(order))
    ranks = ranks.view_as(maps)  # 0 for the strongest bin
    start = torch.as_tensor(baseline, dtype=features.dtype, device=features.device).expand_as(features)
    which = torch.arange(len(features), device=features.device)
    deletion, insertion = [], []
    for fraction in places.tolist():
        strongest = ranks < round(fraction * flat.shape[1])
        deletion.append(score(torch.where(strongest, start, features), which))
        insertion.append(score(torch.where(strongest, features, start), which))
    return Curves(places, torch.stack(deletion, 1).float(), torch.stack(insertion, 1).float())
