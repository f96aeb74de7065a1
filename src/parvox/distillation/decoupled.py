"""Label-level distillation taken apart into a target and a non-target part, in log space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parvox.distillation.contract import DistillationMethod, View

_NOTHING = torch.finfo(torch.float32).min / 2  # as good as -inf in a softmax, and no NaN where two are subtracted


class NonTargets(nn.Module):
    """The same K other speakers in every batch, in an order drawn once.

    An utterance is compared with the first K speakers of the order that are not its own, so that all utterances have
    K, and the speakers of a smaller K are among those of a larger one. Drawing anew for each batch would tell of all
    speakers in the long run and hide what their number is worth.

    Args:
        classes: Speakers of the classifiers.
        count: K, less than `classes`.
        seed: Decides the order.
    """

    def __init__(self, classes: int, count: int, seed: int) -> None:
        super().__init__()
        order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
        self.count = count
        self.columns: Tensor
        self.rank: Tensor
        self.register_buffer("columns", order[: count + 1], persistent=False)
        self.register_buffer("rank", order.argsort(), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Columns of `logits` (batch, classes) to look at, (batch, K + 1), and for each row the one to leave out."""
        return logits[:, self.columns], self.rank[labels].clamp(max=self.count)


class Parts:
    """What logits say about the true speaker, and about the others among themselves.

    With z the logits by temperature, t the true speaker and m the logarithm of the summed exponentials of the others,
    the probability of the true speaker is σ(z_t - m), its complement σ(m - z_t), and those of the others among
    themselves are exp(z_j - m). No probability is formed first, so none can be rounded to 0 or 1.

    Args:
        logits: (batch, classes).
        labels: (batch,) int64 true speakers.
        temperature: More than 0.
        others: The other speakers to look at; None for all.
    """

    def __init__(self, logits: Tensor, labels: Tensor, temperature: float, others: NonTargets | None = None) -> None:
        logits = logits.float() / temperature
        target = logits.gather(1, labels[:, None])
        looked_at, left_out = (logits, labels) if others is None else others(logits, labels)
        rest = looked_at.scatter(1, left_out[:, None], _NOTHING)
        mass = rest.logsumexp(1, keepdim=True)
        self.log_target = F.logsigmoid(target - mass)
        self.log_rest = F.logsigmoid(mass - target)
        self.log_others = rest - mass


def decoupled(student: Parts, teacher: Parts) -> tuple[Tensor, Tensor]:
    """KL(b_T ‖ b_S) with b = [p_t, 1 - p_t], and KL(p̂_T ‖ p̂_S) over the other speakers.

    Plain KL(p_T ‖ p_S) is the first plus (1 - p_t of the teacher) times the second, which starves the second where
    the teacher is certain.

    Args:
        student: Of B rows.
        teacher: Of B rows.

    Returns:
        (batch,) each.
    """
    target = _divergence(teacher.log_target, student.log_target) + _divergence(teacher.log_rest, student.log_rest)
    return target, _divergence(teacher.log_others, student.log_others)


def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)


@dataclass(frozen=True)
class Emphasis:
    """How much each part counts.

    Attributes:
        target: Weight of the target part.
        non_target: Weight of the non-target part.
        temperature: Softens both models' posteriors.
        margin: Whether the logits carry the margin at the true speaker.
        warmup: Fraction of the training in which both weights rise from zero.
    """

    target: float
    non_target: float
    temperature: float
    margin: bool
    warmup: float


class DecoupledDistillation(DistillationMethod):
    """w T² [α KL(b_T ‖ b_S) + β KL(p̂_T ‖ p̂_S)], the mean over the batch; w rises to 1 over the warm-up.

    Args:
        name: What its terms are called after.
        emphasis: α, β, T and the rest.
        others: The other speakers to look at; None for all.
    """

    def __init__(self, name: str, emphasis: Emphasis, others: NonTargets | None = None) -> None:
        super().__init__()
        self.name, self.emphasis, self.others = name, emphasis, others

    def forward(self, student: View, teacher: View, progress: float) -> dict[str, Tensor]:
        """The terms `NAME_target` and `NAME_rest`, each with its weight and the warm-up."""
        settings = self.emphasis
        assert student.labels is not None  # asked for when the method was built
        ours, theirs = (
            Parts(view.logits(settings.margin), student.labels, settings.temperature, self.others)
            for view in (student, teacher)
        )
        target, rest = decoupled(ours, theirs)
        scale = warmup_share(progress, settings.warmup) * settings.temperature**2
        return {
            f"{self.name}_target": scale * settings.target * target.mean(),
            f"{self.name}_rest": scale * settings.non_target * rest.mean(),
        }


def warmup_share(progress: float, warmup: float) -> float:
    """min(progress / warmup, 1); 1 without a warm-up."""
    return min(progress / warmup, 1.0) if warmup > 0 else 1.0
