"""Embedding-level distillation: the student's embedding follows the teacher's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from parvox.distillation.checks import expect_embeddings, not_negative
from parvox.distillation.contract import METHODS, DistillationMethod, Pair, View
from parvox.distillation.projector import Projection, make_projector


@METHODS.register("embedding", source="Wang et al., ICASSP 2019")
@dataclass(frozen=True, kw_only=True)
class EmbeddingSettings:
    """Embedding-level distillation: cosine distance or mean squared error between embeddings."""

    weight: float = 1.0
    """Weight of the term."""
    distance: Literal["cosine", "mse"] = "cosine"
    """1 - cosine, or the squared Euclidean distance."""
    projector: Projection = "auto"
    """A linear map from the student's size to the teacher's, for training only; auto: where the sizes differ."""

    def __post_init__(self) -> None:
        not_negative("embedding", weight=self.weight)

    def build(self, pair: Pair) -> EmbeddingDistillation:
        """The method for this pair; without a projector their embeddings must be of one size."""
        expect_embeddings("embedding", pair)
        return EmbeddingDistillation(self, make_projector("embedding", self.projector, pair))


class EmbeddingDistillation(DistillationMethod):
    """Mean over the batch of 1 - cos(e_T, P e_S), or of ‖e_T - P e_S‖².

    Args:
        settings: Which distance.
        projector: P.
    """

    def __init__(self, settings: EmbeddingSettings, projector: nn.Module) -> None:
        super().__init__()
        self.settings = settings
        self.projector = projector

    def forward(self, student: View, teacher: View, progress: float) -> dict[str, Tensor]:
        """The term `embedding_cosine` or `embedding_mse`."""
        projected = self.projector(student.embedding).float()
        target = teacher.embedding.float()
        if self.settings.distance == "cosine":
            return {"embedding_cosine": (1 - F.cosine_similarity(projected, target)).mean()}
        return {"embedding_mse": (projected - target).square().sum(-1).mean()}
