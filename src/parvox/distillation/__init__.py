"""What the student owes the teacher. Importing this room registers every method."""

from parvox.distillation import distillation_token, dkd, embedding, label, mlld, non_target
from parvox.distillation.contract import METHODS, DistillationMethod, Pair, Side, View

__all__ = [
    "METHODS",
    "DistillationMethod",
    "Pair",
    "Side",
    "View",
    "distillation_token",
    "dkd",
    "embedding",
    "label",
    "mlld",
    "non_target",
]
