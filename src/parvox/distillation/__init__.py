"""What the student owes the teacher. Importing this room registers every method."""

from parvox.distillation import (
    attention_maps,
    attention_transfer,
    contrastive,
    distillation_token,
    dkd,
    embedding,
    integrated,
    label,
    mlld,
    non_target,
    relational,
)
from parvox.distillation.contract import METHODS, DistillationMethod, Pair, Side, View

__all__ = [
    "METHODS",
    "DistillationMethod",
    "Pair",
    "Side",
    "View",
    "attention_maps",
    "attention_transfer",
    "contrastive",
    "distillation_token",
    "dkd",
    "embedding",
    "integrated",
    "label",
    "mlld",
    "non_target",
    "relational",
]
