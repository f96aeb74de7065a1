"""Embedding-level distillation: the student's embedding follows the teacher's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from parvox.distillation.checks import not_negative
from parvox.distillation.contract import METHODS, DistillationMethod, Pair, View
from parvox.errors import RecipeError


@METHODS.register("embedding", source="Wang et al., ICASSP 2019")
@dataclass(frozen=True, kw_only=True)
class EmbeddingSettings:
    """Embedding-level distillation: cosine distance or mean squared error between embeddings."""

    weight: float = 1.0
    """Weight of the term."""
    distance: Literal["cosine", "mse"] = "cosine"
    """1 - cosine, or the squared Euclidean distance."""
    projector: Literal["auto", "always", "never"] = "auto"
    """A linear map from the student's size to the teacher's, for training only; auto: where the sizes differ."""

    def __post_init__(self) -> None:
        not_negative("embedding", weight=self.weight)

    def build(self, pair: Pair) -> EmbeddingDistillation:
        """The method for this pair; without a projector their embeddings must be of one size."""
        sizes = pair.student.embedding_dim, pair.teacher.embedding_dim
        if self.projector == "never" and sizes[0] != sizes[1]:
            raise RecipeError(
                f"distillation.embedding: a student of {sizes[0]} and a teacher of {sizes[1]} dimensions given, "
                f"with projector never; expected equal sizes: set model.embedding_dim to {sizes[1]} or the "
                "projector to auto"
            )
        return EmbeddingDistillation(self, *sizes)


class EmbeddingDistillation(DistillationMethod):
    """Mean over the batch of 1 - cos(e_T, P e_S), or of ‖e_T - P e_S‖².

    Args:
        settings: Which distance, and whether to project.
        student_dim: Size of the student's embedding.
        teacher_dim: Size of the teacher's.
    """

    def __init__(self, settings: EmbeddingSettings, student_dim: int, teacher_dim: int) -> None:
        super().__init__()
        self.settings = settings
        project = settings.projector == "always" or student_dim != teacher_dim
        self.projector = nn.Linear(student_dim, teacher_dim, bias=False) if project else nn.Identity()

    def forward(self, student: View, teacher: View, progress: float) -> dict[str, Tensor]:
        """The term `embedding_cosine` or `embedding_mse`."""
        projected = self.projector(student.embedding).float()
        target = teacher.embedding.float()
        if self.settings.distance == "cosine":
            return {"embedding_cosine": (1 - F.cosine_similarity(projected, target)).mean()}
        return {"embedding_mse": (projected - target).square().sum(-1).mean()}
