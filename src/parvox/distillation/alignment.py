"""Agreement of two models' posteriors at three levels: of each instance, between classes, between instances.

Source: Jin et al., "Multi-Level Logit Distillation", CVPR 2023, with the normalisations of the authors' code
(github.com/Jin-Ying/Multi-Level-Logit-Distillation, KD_ours.py). P is softmax(z / T), of B rows and N columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def instance_alignment(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T² / B · Σ_n KL(P_T[n] ‖ P_S[n]), a scalar.

    Args:
        student_logits: (batch, classes).
        teacher_logits: (batch, classes).
        temperature: T, more than 0.
    """
    divergence = F.kl_div(
        F.log_softmax(student_logits.float() / temperature, dim=-1),
        F.log_softmax(teacher_logits.float() / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * divergence


def class_alignment(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """‖P_T' P_T - P_S' P_S‖² / N, a scalar: which classes are confused with which.

    The (classes, classes) matrices are never formed. With D = P_T - P_S and M = P_T + P_S their difference is
    (D'M + M'D) / 2, whose squared norm is (⟨DD', MM'⟩ + ⟨MD', DM'⟩) / 2: products of (batch, batch) alone, and small
    where D is small, without a difference of large numbers.

    Args:
        student_logits: (batch, classes).
        teacher_logits: (batch, classes).
        temperature: T, more than 0.
    """
    student, teacher = _posteriors(student_logits, temperature), _posteriors(teacher_logits, temperature)
    with torch.autocast(student.device.type, enabled=False):
        difference, total = teacher - student, teacher + student
        crossed = total @ difference.T
        squared = (difference @ difference.T * (total @ total.T)).sum() + (crossed * crossed.T).sum()
    return squared / (2 * student.shape[1])


def batch_alignment(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """‖P_T P_T' - P_S P_S'‖² / B, a scalar: which instances are alike.

    Args:
        student_logits: (batch, classes).
        teacher_logits: (batch, classes).
        temperature: T, more than 0.
    """
    student, teacher = _posteriors(student_logits, temperature), _posteriors(teacher_logits, temperature)
    with torch.autocast(student.device.type, enabled=False):
        return (teacher @ teacher.T - student @ student.T).square().sum() / len(student)


def _posteriors(logits: Tensor, temperature: float) -> Tensor:
    return F.softmax(logits.float() / temperature, dim=-1)
