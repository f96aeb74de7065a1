"""Agreement of two models' posteriors at three levels: of each instance, between classes, between instances.

Source: Jin et al., "Multi-Level Logit Distillation", CVPR 2023, with the normalisations of the authors' code
(github.com/Jin-Ying/Multi-Level-Logit-Distillation, KD_ours.py). P is softmax(z / T), of B rows and N columns.

With many classes every pass over a (B, N) tensor counts, so the levels share posteriors and products, and gradients are
written out: nothing but the logits is kept for them. They reach the student alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Wanted = tuple[bool, bool, bool]


def alignment(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperatures: Sequence[float],
    wanted: Wanted = (True, True, True),
    instances: Tensor | None = None,
    classes: Tensor | None = None,
) -> Tensor:
    """The three levels, each summed over temperatures, (3,).

    T² / B · Σ_n KL(P_T[n] ‖ P_S[n]); ‖P_T' P_T - P_S' P_S‖² / N, which classes are confused with which; and
    ‖P_T P_T' - P_S P_S'‖² / B, which instances are alike.

    Args:
        student_logits: (batch, classes).
        teacher_logits: (batch, classes), without gradients.
        temperatures: Each T, more than 0.
        wanted: Which levels; the others are 0.
        instances: (batch,) float, 1 for instances that count in the first and the last and 0 for others; None for all.
        classes: (classes,) float, likewise for the second.
    """
    student, teacher = student_logits.float(), teacher_logits.detach().float()
    levels: Tensor = _Alignment.apply(student, teacher, tuple(temperatures), wanted, instances, classes)
    return levels


def weighted_levels(
    name: str,
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperatures: Sequence[float],
    weights: Sequence[float],
    instances: Tensor | None = None,
    classes: Tensor | None = None,
) -> dict[str, Tensor]:
    """The levels as terms `NAME_instance`, `NAME_class` and `NAME_batch`, each with its weight; none of weight 0."""
    of_instances, of_classes, of_batch = (weight != 0 for weight in weights)
    if not (of_instances or of_classes or of_batch):
        return {}
    wanted = of_instances, of_classes, of_batch
    levels = alignment(student_logits, teacher_logits, temperatures, wanted, instances, classes)
    parts = zip(("instance", "class", "batch"), weights, levels, strict=True)
    return {f"{name}_{level}": weight * value for level, weight, value in parts if weight}


def instance_alignment(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, keep: Tensor | None = None
) -> Tensor:
    """The first level of `alignment` at one temperature, a scalar; `keep` are its `instances`."""
    return alignment(student_logits, teacher_logits, (temperature,), (True, False, False), instances=keep)[0]


def class_alignment(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, keep: Tensor | None = None
) -> Tensor:
    """The second level of `alignment` at one temperature, a scalar; `keep` are its `classes`."""
    return alignment(student_logits, teacher_logits, (temperature,), (False, True, False), classes=keep)[1]


def batch_alignment(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, keep: Tensor | None = None
) -> Tensor:
    """The third level of `alignment` at one temperature, a scalar; `keep` are its `instances`."""
    return alignment(student_logits, teacher_logits, (temperature,), (False, False, True), instances=keep)[2]


class _Alignment(torch.autograd.Function):
    """See `alignment`.

    The (classes, classes) matrices are never formed. With D = P_T - P_S and M = P_T + P_S their difference is
    (D'M + M'D) / 2, whose squared norm is (⟨DD', MM'⟩ + ⟨MD', DM'⟩) / 2: products of (batch, batch) alone, and small
    where D is small, without a difference of large numbers. Likewise P_T P_T' - P_S P_S' = (MD' + DM') / 2.
    """

    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        temperatures: tuple[float, ...],
        wanted: Wanted,
        instances: Tensor | None,
        classes: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(student, teacher, instances, classes)
        ctx.temperatures, ctx.wanted = temperatures, wanted
        with torch.autocast(student.device.type, enabled=False):
            return torch.stack([_levels(student, teacher, t, wanted, instances, classes) for t in temperatures]).sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        student, teacher, instances, classes = ctx.saved_tensors
        gradient = torch.zeros_like(student)
        with torch.autocast(student.device.type, enabled=False):
            for temperature in ctx.temperatures:
                _add_gradient(gradient, upstream[0], student, teacher, temperature, ctx.wanted, instances, classes)
        return gradient, None, None, None, None, None


def _levels(
    student: Tensor, teacher: Tensor, temperature: float, wanted: Wanted, instances: Tensor | None, keep: Tensor | None
) -> Tensor:
    """The three levels at one temperature, (3,)."""
    levels = student.new_zeros(3)
    ours, theirs = ((each / temperature).log_softmax(-1) for each in (student, teacher))
    posteriors = theirs.exp()
    if wanted[0]:
        divergences = (theirs.sub_(ours).mul_(posteriors)).sum(-1)
        levels[0] = temperature**2 * (divergences if instances is None else instances * divergences).mean()
    if wanted[1] or wanted[2]:
        del theirs
        total = ours.exp_()
        difference = posteriors - total
        total += posteriors
        crossed = total @ difference.T
        if wanted[2]:
            levels[2] = _among((crossed + crossed.T) / 2, instances).square().sum() / len(student)
        if wanted[1]:
            if keep is not None:
                difference, total = difference * keep, total * keep
                crossed = total @ difference.T
            squared = (difference @ difference.T * (total @ total.T)).sum() + (crossed * crossed.T).sum()
            levels[1] = squared / (2 * student.shape[1])
    return levels


def _add_gradient(
    gradient: Tensor,
    upstream: Tensor,
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    wanted: Wanted,
    instances: Tensor | None,
    keep: Tensor | None,
) -> None:
    """Add to `gradient` (batch, classes) what the levels at one temperature, times `upstream` (3,), give."""
    batch, count = student.shape
    ours, theirs = ((each / temperature).softmax(-1) for each in (student, teacher))
    if wanted[0]:
        share = upstream[0] * temperature / batch
        row = share if instances is None else (share * instances)[:, None]
        gradient.add_(row * (ours - theirs))
    if not (wanted[1] or wanted[2]):
        return
    slope = torch.zeros_like(ours)  # with respect to the student's posteriors
    if wanted[2]:
        crossed = (theirs + ours) @ (theirs - ours).T
        apart = _among((crossed + crossed.T) / 2, instances)
        slope.addmm_((-4 / batch * upstream[2]) * apart, ours)
    if wanted[1]:
        mine, its = (ours, theirs) if keep is None else (ours * keep, theirs * keep)
        share = 4 / count * upstream[1]
        slope.addmm_(-share * (mine @ its.T), its).addmm_(share * (mine @ mine.T), mine)
    slope.sub_((slope * ours).sum(-1, keepdim=True)).mul_(ours)
    gradient.add_(slope, alpha=1 / temperature)


def _among(products: Tensor, instances: Tensor | None) -> Tensor:
    """Products (batch, batch), zero but among the instances that count."""
    return products if instances is None else products * instances * instances[:, None]
