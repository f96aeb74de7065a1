"""What the student owes the teacher. Importing this room registers every method."""

from parvox.distillation import embedding, label
from parvox.distillation.contract import METHODS, DistillationMethod, Pair, Side, View

__all__ = ["METHODS", "DistillationMethod", "Pair", "Side", "View", "embedding", "label"]
