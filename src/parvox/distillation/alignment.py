"""Agreement of two models' posteriors at three levels: of each instance, between classes, between instances.

Source: Jin et al., "Multi-Level Logit Distillation", CVPR 2023, with the normalisations of the authors' code
(github.com/Jin-Ying/Multi-Level-Logit-Distillation, KD_ours.py). P is softmax(z / T), of B rows and N columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def instance_alignment(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, keep: Tensor | None = None
) -> Tensor:
    """T² / B · Σ_n KL(P_T[n] ‖ P_S[n]), a scalar.

    Args:
        student_logits: (batch, classes).
        teacher_logits: (batch, classes).
        temperature: T, more than 0.
        keep: (batch,) float, 1 for instances that count and 0 for others; None for all.
    """
    divergences = F.kl_div(
        F.log_softmax(student_logits.float() / temperature, dim=-1),
        F.log_softmax(teacher_logits.float() / temperature, dim=-1),
        reduction="none",
        log_target=True,
    ).sum(-1)
    return temperature**2 * (divergences if keep is None else keep * divergences).mean()


def class_alignment(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, keep: Tensor | None = None
) -> Tensor:
    """‖P_T' P_T - P_S' P_S‖² / N, a scalar: which classes are confused with which.

    The (classes, classes) matrices are never formed. With D = P_T - P_S and M = P_T + P_S their difference is
    (D'M + M'D) / 2, whose squared norm is (⟨DD', MM'⟩ + ⟨MD', DM'⟩) / 2: products of (batch, batch) alone, and small
    where D is small, without a difference of large numbers.

    Args:
        student_logits: (batch, classes).
        teacher_logits: (batch, classes).
        temperature: T, more than 0.
        keep: (classes,) float, 1 for classes that count and 0 for others; None for all.
    """
    student, teacher = _posteriors(student_logits, temperature, keep), _posteriors(teacher_logits, temperature, keep)
    with torch.autocast(student.device.type, enabled=False):
        difference, total = teacher - student, teacher + student
        crossed = total @ difference.T
        squared = (difference @ difference.T * (total @ total.T)).sum() + (crossed * crossed.T).sum()
    return squared / (2 * student.shape[1])


def batch_alignment(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, keep: Tensor | None = None
) -> Tensor:
    """‖P_T P_T' - P_S P_S'‖² / B, a scalar: which instances are alike.

    Args:
        student_logits: (batch, classes).
        teacher_logits: (batch, classes).
        temperature: T, more than 0.
        keep: (batch,) float, 1 for instances that count and 0 for others; None for all.
    """
    rows = None if keep is None else keep[:, None]
    student, teacher = _posteriors(student_logits, temperature, rows), _posteriors(teacher_logits, temperature, rows)
    with torch.autocast(student.device.type, enabled=False):
        return (teacher @ teacher.T - student @ student.T).square().sum() / len(student)


def _posteriors(logits: Tensor, temperature: float, keep: Tensor | None) -> Tensor:
    posteriors = F.softmax(logits.float() / temperature, dim=-1)
    return posteriors if keep is None else keep * posteriors
