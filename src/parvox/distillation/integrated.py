"""Integrated multi-level distillation: what the teacher listens to, as an input of its own, aligned at three levels."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from parvox.data.whole import WholeUtterances
from parvox.distillation.alignment import weighted_levels
from parvox.distillation.attribution import evaluating, true_speaker_score
from parvox.distillation.checks import (
    expect_labels,
    expect_models,
    expect_same_classes,
    expect_same_features,
    not_negative,
    positive_temperature,
)
from parvox.distillation.contract import METHODS, DistillationMethod, Pair, View
from parvox.distillation.maps import MapSettings, Normalisation, attributions, normalised, permuted, segments
from parvox.distillation.teacher_maps import TeacherMaps, item_segments
from parvox.errors import RecipeError
from parvox.models.speaker_model import SpeakerModel

_NAME = "integrated"
_WEIGHTS = ("weight", "instance_weight", "class_weight", "batch_weight", "plain_weight", "integrated_weight")


class Passes(NamedTuple):
    """How much of a batch the models see in one step, as multiples of one pass over its frames.

    Attributes:
        teacher_forward: The teacher, forwards.
        teacher_backward: The teacher, backwards to its features alone.
        student: The student, forwards and backwards.
        student_attributions: The student, forwards and backwards to its features, all of it differentiated again.
    """

    teacher_forward: float
    teacher_backward: float
    student: float
    student_attributions: float


@METHODS.register(_NAME, source="Yang et al., IML-KD, arXiv 2409.09389; alignment of Jin et al., CVPR 2023")
@dataclass(frozen=True, kw_only=True)
class IntegratedSettings(MapSettings):
    """Integrated multi-level distillation: alignment on the input, and on what the teacher listens to in it.

    The paper's abstract says that integrated-gradient representations of segments of several durations are put
    together, and that the student infers them with alignment at several levels. How exactly is inferred: readings and
    weights are options, temperatures those of mlld.
    """

    reads_logits: ClassVar[bool] = True
    looks_inside: ClassVar[bool] = True

    weight: float = 1.0
    """Weight of all terms."""
    reading: Literal["mask", "path", "amplify", "attributions"] = "mask"
    """What the integrated input is, from input x, baseline x' and map M: mask x' + M (x - x'); path x' + a (x - x')
    with a drawn from 0 to 1 for each item, without map; amplify x (1 + M). With attributions there is none, but the
    student's attributions follow the teacher's."""
    map: Literal["gradient", "random"] = "gradient"
    """The map, or as a control its values in random places."""
    normalisation: Normalisation = "rank"
    """How a map becomes 0 to 1: by the order of its bins, or by its least and greatest value, which few great ones
    push so far down that a masked input is next to the baseline."""
    temperatures: tuple[float, ...] = (2.0, 3.0, 4.0, 5.0, 6.0)
    """The terms are summed over these."""
    instance_weight: float = 1.0
    """Weight of the alignment of each instance's posteriors."""
    class_weight: float = 1.0
    """Weight of the alignment between classes."""
    batch_weight: float = 1.0
    """Weight of the alignment between instances."""
    plain_weight: float = 1.0
    """Weight of the terms on the input as it is."""
    integrated_weight: float = 1.0
    """Weight of the terms on the integrated input, or of the alignment of attributions."""
    cache: str = ""
    """Folder for maps of whole utterances, computed once for a teacher; nothing computes the items' own each time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "temperatures", tuple(self.temperatures))
        not_negative(_NAME, **{field: getattr(self, field) for field in _WEIGHTS})
        if not self.temperatures:
            raise RecipeError(f"distillation.{_NAME}.temperatures: none given; expected one or more, such as [4]")
        for temperature in self.temperatures:
            positive_temperature(_NAME, temperature, field="temperatures")
        if not self.maps_items:
            for field, given in (("cache", self.cache), ("map", self.map if self.map == "random" else "")):
                if given:
                    raise RecipeError(
                        f"distillation.{_NAME}.{field}: {given} given with reading {self.reading}, which has no use "
                        "for maps; leave it out, or choose the reading mask or amplify"
                    )

    def build(self, pair: Pair) -> DistillationMethod:
        """The method for this pair: both Parvox's, with one front end and the same speakers."""
        expect_models(_NAME, pair)
        expect_same_classes(_NAME, pair)
        expect_same_features(_NAME, pair)
        if self.reading != "path":
            expect_labels(_NAME, pair)
        if self.cache and pair.teacher.changes:
            raise RecipeError(
                f"distillation.{_NAME}.cache: {self.cache} given, but {pair.teacher.name} changes with every step, and "
                "its maps with it; leave it out, or take a teacher that is trained already"
            )
        return IntegratedDistillation(self, pair)

    @property
    def maps_items(self) -> bool:
        """Whether the reading has a use for maps."""
        return self.reading in ("mask", "amplify")

    def passes(self, teacher: SpeakerModel, features: Tensor) -> Passes:
        """What a step takes at least.

        Args:
            teacher: Whose maps.
            features: Of an item, (batch, frames, bins).
        """
        if self.integrated_weight == 0:
            return Passes(1, 0, 1, 0)
        frames = features.shape[1]
        seen = [len(segments(frames, length)) * length for length in item_segments(self, teacher, features)]
        gradients = self.steps * sum(seen) / frames
        if self.reading == "attributions":
            return Passes(1 + gradients, gradients, 1, gradients)
        if self.reading == "path" or self.cache:
            gradients = 0
        return Passes(2 + gradients, gradients, 2, 0)


class IntegratedDistillation(DistillationMethod):
    """Σ_u w_u [w_i L_instance(u) + w_c L_class(u) + w_b L_batch(u)] over the input x and the integrated input x̂.

    Student and teacher both see x̂. Running statistics of the student's normalisations come from x alone: x̂ has
    others, and at test there is only x.

    Args:
        settings: What x̂ is, and the weights.
        pair: Who learns from whom.
    """

    def __init__(self, settings: IntegratedSettings, pair: Pair) -> None:
        super().__init__()
        self.settings = settings
        self._pair = pair  # its models are no modules of this one, which would train and save them
        assert pair.teacher.model is not None  # asked for when the method is built
        assert pair.teacher.classifier is not None
        maps = MapSettings(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(MapSettings)})
        self.maps = TeacherMaps(pair.teacher.model, pair.teacher.classifier, maps)

    def prepare(self, speech: WholeUtterances, corpus: str) -> str | None:
        """Fill the cache, if there is to be one."""
        if not self.settings.cache:
            return None
        cache = self.maps.keep(Path(self.settings.cache), speech, corpus)
        return f"the teacher's maps of {len(cache)} utterances: {cache.nbytes / 1e6:.1f} MB in {cache.folder}"

    def forward(self, student: View, teacher: View, progress: float) -> dict[str, Tensor]:
        """The terms `integrated_plain_…` and `integrated_…` by level, or `integrated_attributions`, with weights."""
        settings = self.settings
        terms = self._levels(f"{_NAME}_plain", student, teacher, settings.plain_weight)
        if settings.integrated_weight == 0:
            return terms
        if settings.reading == "attributions":
            return terms | {f"{_NAME}_attributions": settings.integrated_weight * self._attributions_apart(teacher)}
        integrated = self.integrated_input(teacher)
        assert student.again is not None
        assert teacher.again is not None
        assert self._pair.student.model is not None
        with torch.no_grad():
            theirs = teacher.again(integrated)
        with statistics_kept(self._pair.student.model):
            ours = student.again(integrated)
        return terms | self._levels(_NAME, ours, theirs, settings.integrated_weight)

    @torch.no_grad()
    def integrated_input(self, teacher: View) -> Tensor:
        """x̂ of a batch, (batch, frames, bins).

        Args:
            teacher: The teacher's view of x.
        """
        settings, x = self.settings, teacher.features
        assert x is not None
        origin = x.mean(1, keepdim=True) if settings.baseline == "utterance_mean" else torch.zeros_like(x)
        if settings.reading == "path":
            return origin + torch.rand(len(x), 1, 1, dtype=x.dtype, device=x.device) * (x - origin)
        maps = normalised(self.maps.of(teacher), settings.normalisation).to(x.dtype)
        if settings.map == "random":
            maps = permuted(maps)
        return x * (1 + maps) if settings.reading == "amplify" else origin + maps * (x - origin)

    def _attributions_apart(self, teacher: View) -> Tensor:
        """‖a_T / ‖a_T‖ - a_S / ‖a_S‖‖², the mean over the batch, of attributions a averaged over durations."""
        assert teacher.features is not None
        assert teacher.labels is not None
        assert self._pair.teacher.model is not None
        lengths = item_segments(self.settings, self._pair.teacher.model, teacher.features)
        directions = []
        for side, learns in ((self._pair.student, True), (self._pair.teacher, False)):
            assert side.model is not None
            assert side.classifier is not None
            score = true_speaker_score(side.model, side.classifier, teacher.labels, self.settings.target)
            with evaluating(side.model):
                found = list(attributions(score, teacher.features, lengths, self.settings, differentiable=learns))
            mean = torch.stack(found).mean(0).float().flatten(1)
            # A hopeless score's attributions are so small that their squares underflow; a direction has no size.
            size = mean.detach().abs().amax(1, keepdim=True).clamp(min=torch.finfo(mean.dtype).tiny)
            directions.append(nn.functional.normalize(mean / size, eps=1e-30))
        ours, theirs = directions
        return (theirs - ours).square().sum(1).mean()

    def _levels(self, name: str, student: View, teacher: View, weight: float) -> dict[str, Tensor]:
        settings = self.settings
        ours, theirs = student.free_logits, teacher.free_logits
        weights = (settings.instance_weight, settings.class_weight, settings.batch_weight)
        shares = tuple(weight * own for own in weights)
        return weighted_levels(name, ours, theirs, settings.temperatures, shares)


@contextlib.contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Batch normalisations use the statistics of their batch but do not remember them."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
