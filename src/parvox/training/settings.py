"""How a run is trained: the `training` section of a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from parvox.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Optimisation, precision, evaluation and checkpoints."""

    epochs: int = 40
    """Passes over the training utterances."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov momentum 0.9."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    final_learning_rate: float = 1e-5
    """Learning rate at the end of the decay."""
    warmup: float = 0.05
    """Fraction of the run in which the learning rate rises from zero."""
    decay: Literal["cosine", "exponential", "none"] = "cosine"
    """How the learning rate falls after the warm-up."""
    weight_decay: float = 1e-4
    """Decay of weight matrices; biases and normalisations have none."""
    accumulate: int = 1
    """Batches whose gradients are summed for one step."""
    clip_norm: float = 5.0
    """Largest gradient norm of a step; 0 switches clipping off."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of matrix products; auto takes bf16 where the processor or GPU is made for it."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train."""
    devices: int | Literal["auto"] = "auto"
    """Devices per node."""
    nodes: int = 1
    """Machines; start each with torchrun or SLURM."""
    phrase_weight: float = 0.0
    """Weight of a second head that tells phrases apart, from their texts; 0 for none."""
    evaluate_every: int = 1
    """Epochs between evaluations on the dev trials."""
    patience: int = 0
    """Evaluations without a better dev EER after which to stop; 0 never stops early."""
    checkpoint_minutes: float = 10.0
    """Longest time between checkpoints within an epoch; the end of each epoch makes one as well."""

    def __post_init__(self) -> None:
        _expect(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        _expect(0 < self.learning_rate <= 10, "learning_rate", self.learning_rate, "more than 0 and at most 10")
        _expect(
            0 < self.final_learning_rate <= self.learning_rate,
            "final_learning_rate",
            self.final_learning_rate,
            f"more than 0 and at most learning_rate ({self.learning_rate})",
        )
        _expect(0 <= self.warmup < 1, "warmup", self.warmup, "a fraction from 0 to below 1")
        _expect(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "0 or more, and finite")
        _expect(self.accumulate >= 1, "accumulate", self.accumulate, "1 or more")
        _expect(self.clip_norm >= 0, "clip_norm", self.clip_norm, "0 or more")
        _expect(0 <= self.phrase_weight < math.inf, "phrase_weight", self.phrase_weight, "0 or more, and finite")
        _expect(self.nodes >= 1, "nodes", self.nodes, "1 or more")
        _expect(self.devices == "auto" or self.devices >= 1, "devices", self.devices, "auto, or 1 or more")
        _expect(self.evaluate_every >= 1, "evaluate_every", self.evaluate_every, "1 or more")
        _expect(self.patience >= 0, "patience", self.patience, "0 or more")
        _expect(self.checkpoint_minutes > 0, "checkpoint_minutes", self.checkpoint_minutes, "more than 0")


def _expect(holds: bool, name: str, given: object, expected: str) -> None:
    if not holds:
        raise RecipeError(f"training.{name}: {given} given; expected {expected}")
