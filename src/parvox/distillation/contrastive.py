"""Contrastive embedding distillation: of all the teacher's embeddings in the batch, the student finds its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parvox.distillation.checks import expect_embeddings, not_negative, positive_temperature
from parvox.distillation.contract import METHODS, DistillationMethod, Pair, View
from parvox.distillation.projector import Projection, make_projector

_NAME = "contrastive"


@METHODS.register(_NAME, source="Peng et al., arXiv 2212.03090; after Tian et al., ICLR 2020, arXiv 1910.10699")
@dataclass(frozen=True, kw_only=True)
class ContrastiveSettings:
    """Contrastive embedding distillation: InfoNCE between the student's and the teacher's embeddings of a batch.

    Peng et al. bring contrastive distillation, without labels, to speaker embeddings; only their abstract was to be
    had, so the form is that of van den Oord et al. (arXiv 1807.03748) with the rest of the batch as negatives. Where
    speakers are known, other utterances of the same one are no negatives.
    """

    weight: float = 1.0
    """Weight of the term."""
    temperature: float = 0.07
    """What cosines are divided by."""
    projector: Projection = "auto"
    """A linear map from the student's size to the teacher's, for training only; auto: where the sizes differ."""

    def __post_init__(self) -> None:
        not_negative(_NAME, weight=self.weight)
        positive_temperature(_NAME, self.temperature)

    def build(self, pair: Pair) -> DistillationMethod:
        """The method for this pair; without a projector their embeddings must be of one size."""
        expect_embeddings(_NAME, pair)
        return ContrastiveDistillation(self.temperature, make_projector(_NAME, self.projector, pair))


class ContrastiveDistillation(DistillationMethod):
    """Mean over i of -log( exp(cos(P e_S[i], e_T[i]) / τ) / Σ_j exp(cos(P e_S[i], e_T[j]) / τ) ), less a constant.

    The constant is the value that the teacher itself attains: 0 is as good as the teacher, and gradients are those of
    InfoNCE. Of several processes each contrasts its own part of the batch.

    Args:
        temperature: τ.
        projector: P.
    """

    def __init__(self, temperature: float, projector: nn.Module) -> None:
        super().__init__()
        self.temperature = temperature
        self.projector = projector

    def forward(self, student: View, teacher: View, progress: float) -> dict[str, Tensor]:
        """The term `contrastive`."""
        projected = F.normalize(self.projector(student.embedding).float())
        target = F.normalize(teacher.embedding.float())
        same = None if student.labels is None else student.labels[:, None] == student.labels
        reached = info_nce(projected, target, self.temperature, same)
        return {_NAME: reached - info_nce(target, target, self.temperature, same).detach()}


def info_nce(anchors: Tensor, others: Tensor, temperature: float, same: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of finding each anchor's counterpart, a scalar, in nats.

    Args:
        anchors: (batch, dim), of length 1.
        others: (batch, dim), of length 1; the counterparts, in the same order.
        temperature: More than 0.
        same: (batch, batch) bool, true for pairs that are no negatives; None for negatives everywhere.
    """
    with torch.autocast(anchors.device.type, enabled=False):
        scores = anchors @ others.T / temperature
    numbers = torch.arange(len(scores), device=scores.device)
    if same is not None:
        scores = scores.masked_fill(same & (numbers[:, None] != numbers), float("-inf"))
    return F.cross_entropy(scores, numbers)
