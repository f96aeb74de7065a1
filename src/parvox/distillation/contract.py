"""What a distillation method sees, and what it owes.

A method is a module that looks at the student's and the teacher's view of one batch and returns named loss terms.
What it needs from the pair it checks when it is built, before any data is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor, nn

from parvox.data.batch import Batch
from parvox.data.whole import WholeUtterances
from parvox.errors import RecipeError
from parvox.losses import SpeakerLoss
from parvox.models.contract import EncoderOutput
from parvox.models.speaker_model import SpeakerModel
from parvox.registry import Registry


class View:
    """One model's result on one batch.

    No dataclass on purpose: engines that cast or copy the inputs of a module would reach into one.

    Args:
        embedding: (batch, embedding_dim), not length-normalised.
        classifier: The model's own speaker head; None where it has none.
        labels: (batch,) int64 true speakers; None for speech without labels.
        encoded: What is inside the model, for methods that look there; None for models that do not show it.
        features: (batch, frames, bins) that the model was given; None where it makes its own.
        again: The same model's view of other features of the same utterances, such as erased ones.
        batch: Which utterances these are, and how they were cut.
    """

    def __init__(
        self,
        embedding: Tensor,
        classifier: SpeakerLoss | None = None,
        labels: Tensor | None = None,
        *,
        encoded: EncoderOutput | None = None,
        features: Tensor | None = None,
        again: Callable[[Tensor], View] | None = None,
        batch: Batch | None = None,
    ) -> None:
        self.embedding = embedding
        self.classifier = classifier
        self.labels = labels
        self.encoded = encoded
        self.features = features
        self.again = again
        self.batch = batch

    @classmethod
    def of(
        cls,
        model: SpeakerModel,
        classifier: SpeakerLoss | None,
        features: Tensor,
        labels: Tensor | None,
        batch: Batch | None = None,
    ) -> View:
        """The view of a Parvox model; every attribute is there.

        Args:
            model: Whose view.
            classifier: Its speaker head.
            features: (batch, frames, bins).
            labels: (batch,) int64, or None.
            batch: Which utterances these are.
        """
        output = model.embed_features(features)

        def again(others: Tensor) -> View:
            return cls.of(model, classifier, others, labels, batch)

        return cls(
            output.embedding, classifier, labels, encoded=output.encoded, features=features, again=again, batch=batch
        )

    @cached_property
    def scores(self) -> Tensor:
        """(batch, classes), what logits with and without margin are made of; the product is the dear part of them."""
        return self._head.scores(self.embedding)

    @cached_property
    def free_logits(self) -> Tensor:
        """(batch, classes), scaled, without margin."""
        return self._head.logits_of(self.scores)

    @cached_property
    def margin_logits(self) -> Tensor:
        """(batch, classes), scaled, with the margin at the true speaker."""
        return self._head.logits_of(self.scores, self.labels)

    def logits(self, margin: bool) -> Tensor:
        """(batch, classes) with or without margin; computed once a batch however many methods ask."""
        return self.margin_logits if margin else self.free_logits

    @property
    def _head(self) -> SpeakerLoss:
        if self.classifier is None:
            raise RecipeError("a model without a speaker classifier was asked for logits")
        return self.classifier


@dataclass(frozen=True)
class Side:
    """One of the pair, as a method sees it when it is built.

    Attributes:
        name: What messages call it, such as a folder.
        embedding_dim: Size of its embeddings.
        classes: Speakers that its classifier knows; 0 without a classifier.
        model: The model itself, if it is Parvox's; None for one that shows its embedding only.
        classifier: Its speaker head, if it has one.
        speakers: Whom that knows, in class order; None where nobody says.
        changes: Whether it changes while the student is trained.
    """

    name: str
    embedding_dim: int
    classes: int
    model: SpeakerModel | None = None
    classifier: SpeakerLoss | None = None
    speakers: Sequence[str] | None = None
    changes: bool = False

    @classmethod
    def of(
        cls, name: str, model: SpeakerModel, classifier: SpeakerLoss | None, speakers: Sequence[str] | None = None
    ) -> Side:
        """A Parvox model's side."""
        classes = classifier.classes if classifier else 0
        return cls(name, model.settings.embedding_dim, classes, model, classifier, speakers)


@dataclass(frozen=True)
class Pair:
    """Who learns from whom, and from what speech.

    Attributes:
        student: Who learns.
        teacher: From whom.
        labelled: Whether the speech says who speaks.
    """

    student: Side
    teacher: Side
    labelled: bool = True


class DistillationMethod(nn.Module):
    """What the student owes the teacher, by one method.

    Parameters of its own (a projector, a head) are trained with the student, counted in every table, and never
    shipped.
    """

    def prepare(self, speech: WholeUtterances, corpus: str) -> str | None:
        """Whatever has to be done once, before the first step, in every process; nothing unless a method says so.

        Args:
            speech: The training utterances.
            corpus: Fingerprint of the corpus they belong to.

        Returns:
            What the user may want to know, on one line.
        """
        return None

    def forward(self, student: View, teacher: View, progress: float) -> dict[str, Tensor]:
        """Loss terms of a batch, by name, unweighted.

        Args:
            student: With gradients.
            teacher: Without.
            progress: Fraction of the training done, from 0 to 1.
        """
        raise NotImplementedError


class MethodSettings(Protocol):
    """Settings of a method, as a recipe fills them.

    Two class attributes say what it looks at besides embeddings; see `reads_logits` and `looks_inside`.
    """

    @property
    def weight(self) -> float:
        """Weight of the method's terms in the sum."""
        ...

    def build(self, pair: Pair) -> DistillationMethod:
        """The method for this pair.

        Raises:
            RecipeError: the pair lacks what the method needs.
        """
        ...


def reads_logits(settings: MethodSettings) -> bool:
    """Whether a method looks at speaker logits: its settings' `reads_logits`. Without it, no view need have a head."""
    return bool(getattr(settings, "reads_logits", False))


def looks_inside(settings: MethodSettings) -> bool:
    """Whether a method looks inside the teacher: its settings' `looks_inside`. Without it, an embedding is enough."""
    return bool(getattr(settings, "looks_inside", False))


METHODS: Registry[MethodSettings] = Registry("distillation method")
