"""A linear map between embeddings of different sizes, for training only."""

from __future__ import annotations

from typing import Literal

from torch import nn

from parvox.distillation.contract import Pair
from parvox.errors import RecipeError

Projection = Literal["auto", "always", "never"]


def make_projector(method: str, projection: Projection, pair: Pair) -> nn.Module:
    """From the size of the student's embedding to that of the teacher's.

    Args:
        method: Whose map.
        projection: "auto" for a map where the sizes differ, else "always" or "never".
        pair: Who learns from whom.

    Raises:
        RecipeError: the sizes differ, and there is to be no map.
    """
    ours, theirs = pair.student.embedding_dim, pair.teacher.embedding_dim
    if projection == "never" and ours != theirs:
        raise RecipeError(
            f"distillation.{method}: a student of {ours} and a teacher of {theirs} dimensions given, with projector "
            f"never; expected equal sizes: set model.embedding_dim to {theirs} or the projector to auto"
        )
    project = projection == "always" or ours != theirs
    return nn.Linear(ours, theirs, bias=False) if project else nn.Identity()
