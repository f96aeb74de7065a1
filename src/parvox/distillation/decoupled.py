"""Label-level distillation taken apart into a target and a non-target part, in log space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from parvox.distillation.blocks import blocks
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


def decoupled(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float, others: NonTargets | None = None
) -> tuple[Tensor, Tensor]:
    """KL(b_T ‖ b_S) with b = [p_t, 1 - p_t], and KL(p̂_T ‖ p̂_S) over the other speakers.

    Plain KL(p_T ‖ p_S) is the first plus (1 - p_t of the teacher) times the second, which starves the second where
    the teacher is certain. With z the logits by temperature, t the true speaker and m the logarithm of the summed
    exponentials of the others, p_t is σ(z_t - m), its complement σ(m - z_t), and p̂_j is exp(z_j - m). No probability
    is formed first, so none can be rounded to 0 or 1.

    Args:
        student_logits: (batch, classes).
        teacher_logits: (batch, classes), without gradients.
        labels: (batch,) int64 true speakers.
        temperature: More than 0.
        others: The other speakers to look at; None for all.

    Returns:
        (batch,) each.
    """
    ours, theirs = student_logits.float(), teacher_logits.detach().float()
    target, rest = _Decoupled.apply(ours, theirs, labels, temperature, others)
    return target, rest


class _Decoupled(torch.autograd.Function):
    """See `decoupled`.

    One pass over both models' logits finds all that is needed of the others: three sums for each row. The gradient
    with respect to the student's z is, of the first part, P_S - P_T at the true speaker and (P_T - P_S) p̂_S at the
    others, where P is p_t; of the second, p̂_S - p̂_T at the others.
    """

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, others: NonTargets | None
    ) -> tuple[Tensor, Tensor]:
        targets = [logits.gather(1, labels[:, None]) / temperature for logits in (student, teacher)]
        ctx.shape, ctx.others, ctx.temperature = student.shape, others, temperature
        left_out = labels
        if others is not None:
            (student, left_out), (teacher, _) = others(student, labels), others(teacher, labels)
        ours, theirs = _Others(student), _Others(teacher)
        for columns in blocks(student):
            mine, its = (_scaled(logits[:, columns], columns, left_out, temperature) for logits in (student, teacher))
            ours.add(mine)
            theirs.add(its, its - mine)
        ctx.masses = ours.mass(), theirs.mass()
        rest = theirs.mean() + ctx.masses[0] - ctx.masses[1]
        mine, its = (target - mass for target, mass in zip(targets, ctx.masses, strict=True))
        target = _divergence(its, mine) + _divergence(-its, -mine)
        # P_S - P_T, where both may be close to 1
        ctx.surer = mine.sigmoid() * (-its).sigmoid() - its.sigmoid() * (-mine).sigmoid()
        ctx.save_for_backward(student, teacher, labels, left_out)
        return target[:, 0], rest[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        student, teacher, labels, left_out = ctx.saved_tensors
        of_target, of_rest = (slope[:, None] / ctx.temperature for slope in upstream)
        at_target = of_target * ctx.surer
        gradient = torch.empty_like(student)
        for columns in blocks(student):
            ours, theirs = (
                _scaled(logits[:, columns], columns, left_out, ctx.temperature).sub_(mass).exp_()
                for logits, mass in zip((student, teacher), ctx.masses, strict=True)
            )
            gradient[:, columns] = ours.mul_(of_rest - at_target).sub_(theirs.mul_(of_rest))
        if ctx.others is not None:
            looked_at, gradient = gradient, student.new_zeros(ctx.shape)
            gradient[:, ctx.others.columns] = looked_at
        return gradient.scatter_(1, labels[:, None], at_target), None, None, None, None


def _scaled(logits: Tensor, columns: slice, left_out: Tensor, temperature: float) -> Tensor:
    """Logits by temperature, (batch, columns), with as good as nothing at the column that a row leaves out."""
    block = logits / temperature
    index = left_out - columns.start
    elsewhere = (index < 0) | (index >= block.shape[1])
    index = index.clamp(0, block.shape[1] - 1)[:, None]
    return block.scatter_(1, index, block.gather(1, index).where(elsewhere[:, None], _NOTHING))


class _Others:
    """Sums over the other speakers, whose logits come block by block.

    Source: Milakov and Gimelshein, "Online normalizer calculation for softmax", arXiv 1805.02867.

    Args:
        like: (batch, ...), for device and type.
    """

    def __init__(self, like: Tensor) -> None:
        self.highest = like.new_full((len(like), 1), _NOTHING)
        self.sum = like.new_zeros(len(like), 1)
        self.weighted = like.new_zeros(len(like), 1)

    def add(self, block: Tensor, values: Tensor | None = None) -> None:
        """Take in logits (batch, columns), and values of which the mean is wanted."""
        highest = torch.maximum(self.highest, block.amax(1, keepdim=True))
        faded = (self.highest - highest).exp()
        weights = (block - highest).exp_()
        self.highest = highest
        self.sum = self.sum * faded + weights.sum(1, keepdim=True)
        if values is not None:
            self.weighted = self.weighted * faded + weights.mul_(values).sum(1, keepdim=True)

    def mass(self) -> Tensor:
        """Log Σ exp(z), (batch, 1)."""
        return self.highest + self.sum.log()

    def mean(self) -> Tensor:
        """Of the values, by the softmax of the logits, (batch, 1)."""
        return self.weighted / self.sum


def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """P (log p - log q) of p = σ(teacher) and q = σ(student)."""
    return teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))


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
        ours, theirs = (view.logits(settings.margin) for view in (student, teacher))
        target, rest = decoupled(ours, theirs, student.labels, settings.temperature, self.others)
        scale = warmup_share(progress, settings.warmup) * settings.temperature**2
        return {
            f"{self.name}_target": scale * settings.target * target.mean(),
            f"{self.name}_rest": scale * settings.non_target * rest.mean(),
        }


def warmup_share(progress: float, warmup: float) -> float:
    """min(progress / warmup, 1); 1 without a warm-up."""
    return min(progress / warmup, 1.0) if warmup > 0 else 1.0
