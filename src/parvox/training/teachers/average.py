"""Self-distillation: the teacher is a moving average of the student."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from parvox.distillation.contract import Side, View
from parvox.losses import SpeakerLoss
from parvox.models import SpeakerModel
from parvox.training.teacher_settings import AverageSettings
from parvox.training.teachers.contract import Inputs, Teacher


class AverageTeacher(Teacher):
    """The exponential moving average of a student and its classifier, weights and statistics of normalisation alike.

    After step t, θ_T ← d θ_T + (1 - d) θ_S with d = min(decay, (1 + t) / (warmup + t)): at first the average is short,
    so that the student's first, random weights are soon forgotten.

    Source: Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017, arXiv 1703.01780; the rising
    decay is that of TensorFlow's ExponentialMovingAverage.

    Args:
        model: The student as it begins.
        classifier: Its speaker head.
        settings: Decay and warm-up.
        speakers: Whom the classifier knows, in class order.
        device: Where the student trains.
    """

    def __init__(
        self,
        model: SpeakerModel,
        classifier: SpeakerLoss,
        settings: AverageSettings,
        speakers: list[str],
        device: torch.device,
    ) -> None:
        self.settings = settings
        self.model = copy.deepcopy(model).to(device).eval().requires_grad_(False)
        self.classifier: SpeakerLoss = copy.deepcopy(classifier).to(device).eval().requires_grad_(False)
        side = Side.of("the student's own average", self.model, self.classifier)
        self.side = dataclasses.replace(side, changes=True)
        self.sample_rate_hz = model.settings.features.sample_rate_hz
        self.min_samples = model.min_samples
        self.speakers = speakers

    def decay(self, step: int) -> float:
        """How much of the average is kept after a step, counted from 0."""
        return min(self.settings.decay, (1 + step) / (self.settings.warmup + step))

    @torch.no_grad()
    def follow(self, model: SpeakerModel, classifier: SpeakerLoss, step: int, progress: float) -> None:
        """Move on towards the student.

        Args:
            model: After the step.
            classifier: After the step.
            step: Which step it was, from 0.
            progress: Fraction of the training done, for the margin's schedule.
        """
        average = get_ema_multi_avg_fn(self.decay(step))
        for mine, others in ((self.model, model), (self.classifier, classifier)):
            theirs = others.state_dict()
            pairs = [(tensor, theirs[name]) for name, tensor in mine.state_dict().items()]
            real = [pair for pair in pairs if pair[0].is_floating_point()]
            average([tensor for tensor, _ in real], [tensor for _, tensor in real], None)
            for tensor, other in pairs:
                if not tensor.is_floating_point():
                    tensor.copy_(other)
        self.classifier.set_progress(progress)

    @torch.no_grad()
    def view(self, inputs: Inputs) -> View:
        """See `Teacher.view`."""
        return View.of(self.model, self.classifier, inputs.teacher_features, inputs.labels, inputs.batch)

    def tensors(self) -> dict[str, Tensor]:
        """All that a resumed run needs of it, by name."""
        tensors: dict[str, Tensor] = self._parts().state_dict()
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave.

        Raises:
            RuntimeError: they are another model's.
        """
        self._parts().load_state_dict(tensors)

    def _parts(self) -> nn.ModuleDict:
        return nn.ModuleDict({"model": self.model, "classifier": self.classifier})
