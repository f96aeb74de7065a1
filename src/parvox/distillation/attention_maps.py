"""Attention maps: the student attends to the frames that the teacher attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from parvox.distillation.checks import expect_models, not_negative
from parvox.distillation.contract import METHODS, DistillationMethod, Pair, View
from parvox.errors import RecipeError
from parvox.models.contract import EncoderOutput
from parvox.models.speaker_model import SpeakerModel

_NAME = "attention_maps"
_TINY = torch.finfo(torch.float32).tiny


@METHODS.register(_NAME, source="Choi et al., IEEE/ACM TASLP 32, 2024, doi 10.1109/TASLP.2024.3463491")
@dataclass(frozen=True, kw_only=True)
class AttentionMapsSettings:
    """Self-attention maps, matched by stage and head between models of any width.

    That maps of a wide teacher guide a narrow student, and that their sizes depend on the length alone, is stated in
    the paper's abstract; the kind of distance and which blocks are matched are not, so both are settings.
    """

    looks_inside: ClassVar[bool] = True

    weight: float = 1.0
    """Weight of all stages."""
    distance: Literal["kl", "mse"] = "kl"
    """Kullback-Leibler divergence of each query's attention, or the squared distance."""
    blocks: Literal["last", "all"] = "last"
    """The last block of each stage, or all of them; models without stages count as one stage."""
    stage_weights: tuple[float, ...] = ()
    """Weight of each stage, in order; 1 for every stage where nothing is given."""

    def __post_init__(self) -> None:
        not_negative(_NAME, weight=self.weight)
        for weight in self.stage_weights:
            not_negative(_NAME, stage_weights=weight)

    def build(self, pair: Pair) -> DistillationMethod:
        """The method for this pair; has both encoders give their maps, which must be of the same number and sizes."""
        student, teacher = expect_models(_NAME, pair)
        samples = max(student.min_samples, teacher.min_samples, student.settings.features.sample_rate_hz)
        encoded = [_probe(*each, samples) for each in ((pair.student.name, student), (pair.teacher.name, teacher))]
        ours, theirs = comparable(*encoded, every=self.blocks == "all")
        _expect_alike(ours, theirs, pair.teacher.name)
        if self.stage_weights and len(self.stage_weights) != len(ours):
            raise RecipeError(
                f"distillation.{_NAME}.stage_weights: {len(self.stage_weights)} given; expected one for each of the "
                f"{len(ours)} stages, or none"
            )
        return AttentionMapDistillation(self)


class AttentionMapDistillation(DistillationMethod):
    """Σ_i w_i · mean over heads h and queries t of KL(A_T[i, h, t] ‖ A_S[i, h, t]), or of ‖A_T - A_S‖².

    i runs over stages; with several blocks a stage their mean is taken. The mean over the batch. A token that only one
    of the two has, such as a student's distillation token, is left out, and rows sum to 1 without it.

    Args:
        settings: Distance, blocks and weights.
    """

    def __init__(self, settings: AttentionMapsSettings) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, student: View, teacher: View, progress: float) -> dict[str, Tensor]:
        """The term `attention_maps`."""
        assert student.encoded is not None  # asked for when the method was built
        assert teacher.encoded is not None
        ours, theirs = comparable(student.encoded, teacher.encoded, every=self.settings.blocks == "all")
        weights = self.settings.stage_weights or (1.0,) * len(ours)
        distance = divergence if self.settings.distance == "kl" else squared_distance
        stages = [
            weight * torch.stack([distance(*maps) for maps in zip(one, other, strict=True)]).mean()
            for weight, one, other in zip(weights, ours, theirs, strict=True)
        ]
        return {_NAME: torch.stack(stages).sum()}


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over batch, heads and queries of Σ_k A_T log(A_T / A_S), a scalar.

    Args:
        student: (batch, heads, queries, keys), rows that sum to 1.
        teacher: The same.
    """
    student, teacher = student.float(), teacher.float()
    logs = teacher.clamp(min=_TINY).log() - student.clamp(min=_TINY).log()
    return (teacher * logs).sum(-1).mean()


def squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over batch, heads and queries of Σ_k (A_T - A_S)², a scalar.

    Args:
        student: (batch, heads, queries, keys).
        teacher: The same.
    """
    return (teacher.float() - student.float()).square().sum(-1).mean()


def chosen(maps: dict[str, Tensor], every: bool) -> list[list[Tensor]]:
    """Maps by stage, in order; of each stage all of them if `every`, else the last.

    Args:
        maps: By block name, such as ``stage1.block2``; what stands before the dot is the stage.
        every: Whether all blocks count.
    """
    stages: dict[str, list[Tensor]] = {}
    for name, value in maps.items():
        stages.setdefault(name.rpartition(".")[0], []).append(value)
    return [stage if every else stage[-1:] for stage in stages.values()]


def comparable(*sides: EncoderOutput, every: bool) -> list[list[list[Tensor]]]:
    """The chosen maps of each model, between the tokens that all of them have and the frames.

    Args:
        sides: What the encoders gave.
        every: See `chosen`.
    """
    counts = [0 if side.tokens is None else side.tokens.shape[1] for side in sides]
    return [
        [[_without_tokens(maps, min(counts), count) for maps in stage] for stage in chosen(side.attention_maps, every)]
        for side, count in zip(sides, counts, strict=True)
    ]


def _without_tokens(maps: Tensor, first: int, end: int) -> Tensor:
    """Maps without the queries and keys from `first` to `end`; rows sum to 1 again."""
    if first == end:
        return maps
    kept = [index for index in range(maps.shape[-1]) if not first <= index < end]
    left = maps.float()[..., kept, :][..., kept]
    return left / left.sum(-1, keepdim=True).clamp(min=_TINY)


def _probe(name: str, model: SpeakerModel, samples: int) -> EncoderOutput:
    """What a model's encoder gives of some silence; it goes on giving maps."""
    model.encoder.expose_attention = True
    training, device = model.training, next(model.parameters()).device
    with torch.no_grad():
        encoded: EncoderOutput = model.eval()(torch.zeros(1, samples, device=device)).encoded
    model.train(training)
    if not encoded.attention_maps:
        raise RecipeError(
            f"distillation.{_NAME}: the encoder of {name} gives no attention maps; take one that does, such as bc_cmt, "
            "or another method"
        )
    return encoded


def _expect_alike(ours: list[list[Tensor]], theirs: list[list[Tensor]], teacher: str) -> None:
    """Raise `RecipeError` unless the maps of student and teacher are of the same number and sizes."""
    if len(ours) != len(theirs):
        _refuse(f"a student with attention in {len(ours)} stages and a teacher, {teacher}, in {len(theirs)}", "stages")
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True), 1):
        if len(one) != len(other):
            _refuse(f"{len(one)} blocks in stage {number} of the student and {len(other)} in {teacher}", "blocks")
        for mine, its in zip(one, other, strict=True):
            if mine.shape[1] != its.shape[1]:
                _refuse(
                    f"{mine.shape[1]} heads in stage {number} of the student and {its.shape[1]} in {teacher}", "heads"
                )
            if mine.shape != its.shape:
                sizes = [f"{maps.shape[2]} × {maps.shape[3]}" for maps in (mine, its)]
                _refuse(
                    f"maps of {sizes[0]} frames for a second of speech in stage {number} of the student and "
                    f"{sizes[1]} in {teacher}",
                    "time strides",
                )


def _refuse(found: str, what: str) -> None:
    raise RecipeError(
        f"distillation.{_NAME}: {found}; expected the same {what}: take two of one family, such as bc_cmt tiny and base"
    )
