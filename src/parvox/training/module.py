"""What is trained: the student, its speaker head, and whatever its distillation methods add."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from parvox.distillation.contract import DistillationMethod, MethodSettings, Pair, Side, View
from parvox.losses import SpeakerLoss
from parvox.models import SpeakerModel
from parvox.training.teachers import Inputs
from parvox.training.teachers.alongside import AlongsideTeacher

SPEAKER_TERM = "speaker"


class TrainedModule(nn.Module):
    """One module around everything with trained parameters, so that an engine replicates and saves it as a whole.

    Args:
        model: The student.
        classifier: Its speaker head; None for speech without labels, unless a method looks at logits.
        methods: Settings of the distillation methods, by name.
        teacher: What the teacher they look at can show; it is never a part of this module.
        speaker_weight: Weight of the speaker loss beside the methods' terms.
        alongside: A teacher that is trained at the same time, in place of one outside this module.
        phrase_head: Tells phrases apart, beside the speaker head.
        phrase_weight: Weight of its loss.
        speakers: Whom the classifier knows, in class order; None where nobody says.
        labelled: Whether the speech says who speaks.
    """

    def __init__(
        self,
        model: SpeakerModel,
        classifier: SpeakerLoss | None,
        methods: dict[str, MethodSettings] | None = None,
        teacher: Side | None = None,
        speaker_weight: float = 1.0,
        alongside: AlongsideTeacher | None = None,
        phrase_head: SpeakerLoss | None = None,
        phrase_weight: float = 1.0,
        *,
        speakers: Sequence[str] | None = None,
        labelled: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.speaker_weight = speaker_weight
        self.classifier = classifier
        self.alongside = alongside
        self.phrase_head = phrase_head
        self.phrase_weight = phrase_weight
        self.methods = nn.ModuleDict()
        self.weights = {name: settings.weight for name, settings in (methods or {}).items()}
        teacher = alongside.side if alongside else teacher
        if teacher is not None:
            pair = Pair(Side.of("the student", model, classifier, speakers), teacher, labelled)
            self.methods.update({name: settings.build(pair) for name, settings in (methods or {}).items()})

    def forward(
        self, inputs: Inputs, teacher: View | None = None, progress: float = 0.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch.

        Args:
            inputs: The batch.
            teacher: The teacher's result on the same batch.
            progress: Fraction of the training done.

        Returns:
            The weighted sum, and each term unweighted and detached, by name.
        """
        view = View.of(self.model, self.classifier, inputs.features, inputs.labels, inputs.batch)
        total, terms = torch.zeros((), device=inputs.features.device), {}
        if inputs.labels is not None:
            speaker = nn.functional.cross_entropy(view.margin_logits.float(), inputs.labels)
            total, terms[SPEAKER_TERM] = self.speaker_weight * speaker, speaker.detach()
        if self.phrase_head is not None and inputs.batch is not None and inputs.batch.phrases is not None:
            phrase = self.phrase_head(view.embedding, inputs.batch.phrases)
            total, terms["phrase"] = total + self.phrase_weight * phrase, phrase.detach()
        for term, (value, weight) in self.model.own_terms().items():
            total = total + weight * value
            terms[term] = value.detach()
        if self.alongside is not None:
            loss, its_terms, teacher = self.alongside(inputs)
            total, terms = total + loss, terms | its_terms
        for name, method in self.methods.items():
            for term, value in method(view, teacher, progress).items():
                total = total + self.weights[name] * value
                terms[term] = value.detach()
        return total, terms

    def distillation_methods(self) -> list[DistillationMethod]:
        """The methods, in the recipe's order."""
        return [method for method in self.methods.values() if isinstance(method, DistillationMethod)]

    def set_progress(self, progress: float) -> None:
        """Say how much of the training is done, from 0 to 1; schedules of margins follow."""
        alongside = self.alongside.classifier if self.alongside is not None else None
        for classifier in (self.classifier, self.phrase_head, alongside):
            if classifier is not None:
                classifier.set_progress(progress)

    def added_parameters(self) -> int:
        """Parameters that methods, a teacher trained alongside and a phrase head add for training; never shipped."""
        added = (part for part in (self.methods, self.alongside, self.phrase_head) if part is not None)
        return sum(parameter.numel() for part in added for parameter in part.parameters())


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Trained parameters in two groups: matrices and filters decay, biases and normalisations do not."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]


def make_optimizer(
    module: nn.Module, kind: str, learning_rate: float, weight_decay: float, *, fused: bool = True
) -> torch.optim.Optimizer:
    """AdamW or SGD with Nesterov momentum over the parameters of `module`.

    Args:
        module: What is trained.
        kind: "adamw" or "sgd".
        learning_rate: At the start.
        weight_decay: Of matrices and filters.
        fused: Whether AdamW updates all its parameters in one pass, which Fabric allows unless it scales gradients.
    """
    groups = parameter_groups(module, weight_decay)
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=learning_rate, fused=fused)
