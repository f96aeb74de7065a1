"""Agreement of two models' posteriors at three levels: of each instance, between classes, between instances.

Source: Jin et al., "Multi-Level Logit Distillation", CVPR 2023, with the normalisations of the authors' code
(github.com/Jin-Ying/Multi-Level-Logit-Distillation, KD_ours.py). P is softmax(z / T), of B rows and N columns.

With many classes every pass over a (B, N) tensor counts. So the levels share posteriors and products, all temperatures
are taken of a block of columns while it is in the processor's cache, and gradients are written out: nothing of the size
of the logits is kept for them but the logits. They reach the student alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from parvox.distillation.blocks import blocks

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
    where D is small, without a difference of large numbers. Likewise P_T P_T' - P_S P_S' = (MD' + DM') / 2. All follow
    from P_S P_S', P_S D' and DD'.
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
        with torch.autocast(student.device.type, enabled=False):
            pairs = zip(_softmaxes(student, temperatures), _softmaxes(teacher, temperatures), strict=True)
            ctx.agreements = [_Agreement(*pair, wanted, masked=classes is not None) for pair in pairs]
            for columns in blocks(student):
                keep = None if classes is None else classes[columns]
                for each in ctx.agreements:
                    each.add(student[:, columns], teacher[:, columns], keep)
            return torch.stack([each.levels(student.shape[1], instances) for each in ctx.agreements]).sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        student, teacher, instances, classes = ctx.saved_tensors
        gradient = torch.empty_like(student)
        with torch.autocast(student.device.type, enabled=False):
            slopes = [_Slope(each, student.shape[1], instances, upstream[0]) for each in ctx.agreements]
            for columns in blocks(student):
                keep = None if classes is None else classes[columns]
                gradient[:, columns] = sum(slope.of(student[:, columns], teacher[:, columns], keep) for slope in slopes)
        return gradient, None, None, None, None, None


class _Softmax(NamedTuple):
    """What some columns of the logits need to know of all to become posteriors at one temperature.

    Attributes:
        temperature: T.
        highest: (batch, 1), of each row's logits.
        log_sum: (batch, 1), log Σ exp((z - highest) / T).
    """

    temperature: float
    highest: Tensor
    log_sum: Tensor

    def log(self, logits: Tensor) -> Tensor:
        """Logarithms of posteriors, (batch, columns)."""
        return (logits - self.highest).div_(self.temperature).sub_(self.log_sum)


def _softmaxes(logits: Tensor, temperatures: Sequence[float]) -> list[_Softmax]:
    highest = logits.amax(1, keepdim=True)
    sums = logits.new_zeros(len(temperatures), len(logits), 1)
    for columns in blocks(logits):
        below = logits[:, columns] - highest
        for total, temperature in zip(sums, temperatures, strict=True):
            total += (below / temperature).exp_().sum(1, keepdim=True)
    return [_Softmax(temperature, highest, total.log()) for temperature, total in zip(temperatures, sums, strict=True)]


class _Agreement:
    """The levels at one temperature, from columns that come block by block, and what their gradients need.

    Args:
        student: Makes the student's posteriors.
        teacher: Makes the teacher's.
        wanted: Which levels.
        masked: Whether some classes do not count.

    Attributes:
        divergences: (batch,) Σ P_T (log P_T - log P_S).
        products: (3, batch, batch), P_S P_S', P_S D' and DD'.
        kept: The same over the classes that count.
    """

    def __init__(self, student: _Softmax, teacher: _Softmax, wanted: Wanted, masked: bool) -> None:
        self.student, self.teacher, self.wanted = student, teacher, wanted
        batch, new = len(student.highest), student.highest.new_zeros
        self.divergences = new(batch)
        self.products = new(3, batch, batch)
        self.kept = new(3, batch, batch) if masked else self.products

    def add(self, student: Tensor, teacher: Tensor, keep: Tensor | None) -> None:
        """Take in columns of the logits, (batch, columns); with `keep` (columns,) those count where it is 1."""
        ours, theirs = self.student.log(student), self.teacher.log(teacher)
        posteriors = theirs.exp()
        if self.wanted[0]:
            self.divergences += theirs.sub_(ours).mul_(posteriors).sum(1)
        if self.wanted[1] or self.wanted[2]:
            ours.exp_()
            difference = posteriors.sub_(ours)
            _add_products(self.products, ours, difference)
            if keep is not None:
                _add_products(self.kept, ours * keep, difference * keep)

    def levels(self, count: int, instances: Tensor | None) -> Tensor:
        """The three, (3,); 0 where not wanted."""
        divergences = self.divergences if instances is None else instances * self.divergences
        ss, sd, dd = self.kept
        mm, md = 4 * ss + 2 * (sd + sd.T) + dd, 2 * sd + dd
        between = ((dd * mm).sum() + (md * md.T).sum()) / (2 * count)
        among = self.apart(instances).square().sum() / len(divergences)
        levels = torch.stack([self.student.temperature**2 * divergences.mean(), between, among])
        return levels * levels.new_tensor(self.wanted)

    def apart(self, instances: Tensor | None) -> Tensor:
        """P_T P_T' - P_S P_S', zero but among the instances that count."""
        _, sd, dd = self.products
        apart: Tensor = sd + sd.T + dd
        return apart if instances is None else apart * instances * instances[:, None]


def _add_products(products: Tensor, student: Tensor, difference: Tensor) -> None:
    ss, sd, dd = products
    ss.addmm_(student, student.T)
    sd.addmm_(student, difference.T)
    dd.addmm_(difference, difference.T)


class _Slope:
    """The gradient of the levels at one temperature with respect to the student's logits.

    With respect to its posteriors it is `alike` P_S over all classes and `own` P_S + `mixed` P_T over those that count;
    from there the softmax takes off each row's mean under P_S, for which the products tell enough.

    Args:
        agreement: At that temperature.
        count: Classes.
        instances: Of which some may not count.
        upstream: (3,), the gradient with respect to the levels.
    """

    def __init__(self, agreement: _Agreement, count: int, instances: Tensor | None, upstream: Tensor) -> None:
        self.agreement = agreement
        temperature, batch = agreement.student.temperature, len(agreement.divergences)
        of_instances, of_classes, of_batch = upstream * upstream.new_tensor(agreement.wanted)
        row = (of_instances * temperature / batch).expand(batch)
        self.row = (row if instances is None else row * instances)[:, None]
        self.alike = (-4 / batch * of_batch) * agreement.apart(instances)
        share = 4 / count * of_classes
        own, apart, _ = agreement.kept
        mixed = own + apart  # P_S P_T'
        self.own, self.mixed = share * own, -share * mixed
        mean = self.alike * agreement.products[0] + self.own * own + self.mixed * mixed
        self.mean = mean.sum(1, keepdim=True)

    def of(self, student: Tensor, teacher: Tensor, keep: Tensor | None) -> Tensor:
        """Of columns of the logits, (batch, columns)."""
        agreement = self.agreement
        ours, theirs = agreement.student.log(student).exp_(), agreement.teacher.log(teacher).exp_()
        gradient: Tensor = self.row * (ours - theirs)
        if not (agreement.wanted[1] or agreement.wanted[2]):
            return gradient
        if keep is None:
            slope = torch.addmm((self.alike + self.own) @ ours, self.mixed, theirs)
        else:
            slope = torch.addmm(self.own @ ours, self.mixed, theirs).mul_(keep).addmm_(self.alike, ours)
        slope.sub_(self.mean).mul_(ours)
        return gradient.add_(slope, alpha=1 / agreement.student.temperature)
