"""The frozen teacher: outside the trained, saved and replicated module, in evaluation mode, without gradients."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from parvox.distillation.contract import Side, View
from parvox.training.run import Run, load_run


class Teacher:
    """A trained run that a student learns from.

    Args:
        run: A finished run.
        device: Where the student trains.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        self.run = run
        self.model = run.model.to(device).eval().requires_grad_(False)
        self.classifier = run.classifier.to(device).eval().requires_grad_(False)

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Teacher:
        """The teacher in a run folder.

        Raises:
            ModelFileError: the folder holds no finished run.
        """
        return cls(load_run(folder), device)

    @property
    def side(self) -> Side:
        """As a distillation method sees it when it is built."""
        return Side(self.model, self.classifier)

    @torch.no_grad()
    def view(self, features: Tensor, labels: Tensor) -> View:
        """Its result on a batch.

        Args:
            features: (batch, frames, bins).
            labels: (batch,) int64.
        """
        return View(self.model.embed_features(features), self.classifier, labels)
