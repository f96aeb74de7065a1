"""Several teachers that speak as one."""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from parvox.distillation.contract import Side, View
from parvox.errors import RecipeError, TrainingError
from parvox.training.teacher_settings import TeamSettings
from parvox.training.teachers.contract import Inputs, Teacher


class Team(Teacher):
    """Frozen teachers whose posteriors are averaged, and whose embeddings too where they are of one size.

    The average is the plain mean, or weighted for each utterance by how sure its teachers are: see `confidence`. What
    is inside its members it does not show.

    Args:
        members: Two or more.
        settings: How they are combined.

    Raises:
        TrainingError: they listen at different rates, or their classifiers know different speakers.
        RecipeError: confidence is asked for, and a member has no classifier.
    """

    def __init__(self, members: list[Teacher], settings: TeamSettings) -> None:
        self.members = members
        self.settings = settings
        first = members[0]
        self.sample_rate_hz = first.sample_rate_hz
        self.min_samples = max(member.min_samples for member in members)
        for member in members[1:]:
            if member.sample_rate_hz != first.sample_rate_hz:
                raise TrainingError(
                    f"the teachers {first.side.name} at {first.sample_rate_hz} Hz and {member.side.name} at "
                    f"{member.sample_rate_hz} Hz given; expected one sample rate"
                )
        self.speakers = _common_speakers(members)
        sizes = {member.side.embedding_dim for member in members}
        classes = {member.side.classes for member in members}
        self.side = Side(
            f"the team of {', '.join(member.side.name for member in members)}",
            embedding_dim=sizes.pop() if len(sizes) == 1 else 0,
            classes=classes.pop() if len(classes) == 1 else 0,
            speakers=self.speakers,
        )
        self.note = "; ".join(member.note for member in members if member.note)
        if settings.combine == "confidence" and not self.side.classes:
            raise RecipeError(
                f"distillation.team.combine: confidence given, but not all of {self.side.name} have a speaker "
                "classifier; give those that lack one a head with parvox fit-head, or combine by mean"
            )

    @property
    def checksums(self) -> list[str]:
        """See `Teacher.checksums`."""
        return [checksum for member in self.members for checksum in member.checksums]

    def show_embeddings_alone(self) -> None:
        """See `Teacher.show_embeddings_alone`."""
        for member in self.members:
            member.show_embeddings_alone()

    def view(self, inputs: Inputs) -> View:
        """See `Teacher.view`."""
        views = [member.view(inputs) for member in self.members]
        return TeamView(views, self.settings.combine == "confidence", self.side.embedding_dim > 0)


class TeamView(View):
    """What a team says of a batch: log Σ_k w_k softmax(z_k), and Σ_k w_k e_k / ‖e_k‖.

    Args:
        views: Of its members, who have their weights for each utterance, which sum to 1.
        confident: Whether those are by confidence; equal ones otherwise.
        embeds: Whether the members' embeddings are of one size; without, the team's has no dimensions.
    """

    def __init__(self, views: list[View], confident: bool, embeds: bool) -> None:
        self.views = views
        first = views[0]
        rows = len(first.embedding)
        if confident:
            self.weights = confidence([view.free_logits for view in views], first.labels)
        else:
            self.weights = first.embedding.new_full((len(views), rows), 1 / len(views), dtype=torch.float32)
        embedding = first.embedding.new_empty(rows, 0)
        if embeds:
            directions = torch.stack([F.normalize(view.embedding.float()) for view in views])
            embedding = (self.weights[:, :, None] * directions).sum(0)
        super().__init__(embedding, labels=first.labels, batch=first.batch)

    @cached_property
    def free_logits(self) -> Tensor:
        """(batch, classes), logarithms of the combined posteriors, without margin."""
        return self._combined([view.free_logits for view in self.views])

    @cached_property
    def margin_logits(self) -> Tensor:
        """(batch, classes), logarithms of the combined posteriors, with each member's margin at the true speaker."""
        return self._combined([view.margin_logits for view in self.views])

    def _combined(self, logits: list[Tensor]) -> Tensor:
        posteriors = torch.stack([each.float().log_softmax(-1) for each in logits])
        return (posteriors + self.weights.log()[:, :, None]).logsumexp(0)


def confidence(logits: list[Tensor], labels: Tensor | None) -> Tensor:
    """Weights of K teachers for each utterance, (teachers, batch): w_k = (1 - softmax_k(L_k)) / (K - 1).

    L_k is a teacher's cross-entropy with the true speaker, so that a teacher who is right counts more. Without labels
    it is the entropy of the teacher's posteriors, so that one who is sure counts more; that is not in the paper.

    Source: Zhang et al., "Confidence-Aware Multi-Teacher Knowledge Distillation", ICASSP 2022, arXiv 2201.00007,
    equation 2.

    Args:
        logits: (batch, classes) of each teacher, two or more.
        labels: (batch,) int64, or None.
    """
    losses = []
    for each in logits:
        posteriors = each.float().log_softmax(-1)
        if labels is None:
            losses.append(-(posteriors.exp() * posteriors).sum(-1))
        else:
            losses.append(F.nll_loss(posteriors, labels, reduction="none"))
    return (1 - torch.stack(losses).softmax(0)) / (len(logits) - 1)


def _common_speakers(members: list[Teacher]) -> list[str] | None:
    """The speakers that the members' classifiers know; None where none has any."""
    knowing = [member for member in members if member.speakers is not None]
    for member in knowing[1:]:
        if member.speakers != knowing[0].speakers:
            raise TrainingError(
                f"the classifiers of the teachers {knowing[0].side.name} and {member.side.name} know different "
                "speakers; expected teachers trained on one corpus"
            )
    return knowing[0].speakers if knowing else None
