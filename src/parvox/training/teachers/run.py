"""A teacher trained by Parvox, in its run folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from parvox.distillation.contract import Side, View
from parvox.models import SpeakerModel
from parvox.models.cost import count_parameters
from parvox.training.run import MODEL, Run, file_checksum, load_run
from parvox.training.teachers.contract import Inputs, Teacher


class RunTeacher(Teacher):
    """A finished run, in evaluation mode.

    Args:
        run: The run.
        student: Who learns, if anybody; where both have the same front end, features are computed once for the two.
        device: Where the student trains.
    """

    def __init__(self, run: Run, student: SpeakerModel | None, device: torch.device) -> None:
        self.model = run.model.to(device).eval().requires_grad_(False)
        if run.classifier is not None:
            self.classifier = run.classifier.to(device).eval().requires_grad_(False)
            self.speakers = run.speakers
        self.side = Side.of(str(run.folder), self.model, self.classifier, self.speakers)
        self.sample_rate_hz = run.recipe.model.features.sample_rate_hz
        self.min_samples = self.model.min_samples
        self.checksum = file_checksum(run.folder / MODEL)
        self.told = repr(run.recipe.model)
        self.parameters = count_parameters(self.model)
        self._shares_features = student is not None and self.model.settings.features == student.settings.features

    @classmethod
    def load(cls, folder: Path, student: SpeakerModel | None, device: torch.device) -> RunTeacher:
        """The teacher in a run folder.

        Raises:
            ModelFileError: the folder holds no finished run.
        """
        return cls(load_run(folder), student, device)

    def hears(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """See `Teacher.hears`; features of the student's front end stand for what augmentation does to its own."""
        return inputs.waveforms, inputs.teacher_features

    def show_embeddings_alone(self) -> None:
        """See `Teacher.show_embeddings_alone`."""
        self.model = self.model.for_inference()
        self.side = dataclasses.replace(self.side, model=None)

    @torch.no_grad()
    def embed(self, waveforms: Tensor) -> Tensor:
        """See `Teacher.embed`."""
        embedding: Tensor = self.model(waveforms).embedding
        return embedding

    # Not inference_mode: what it gives is saved for the student's backward pass, which such tensors do not allow.
    @torch.no_grad()
    def view(self, inputs: Inputs) -> View:
        """See `Teacher.view`."""
        features = inputs.teacher_features if self._shares_features else inputs.own_features(self.model)
        return View.of(self.model, self.classifier, features, inputs.labels, inputs.batch)
