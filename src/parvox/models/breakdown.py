"""What a model is made of, layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from parvox.models.cost import counting, samples_of
from parvox.models.speaker_model import SpeakerModel


@dataclass(frozen=True)
class Layer:
    """One line of the breakdown.

    Attributes:
        name: Where it stands in the model, dotted.
        type: Its class.
        output: Shape of what it gives for one utterance; None where it is not called as a whole.
        parameters: Its own trained numbers, without those of the layers inside it.
        macs: Its own multiply-accumulates, likewise.
    """

    name: str
    type: str
    output: tuple[int, ...] | None
    parameters: int
    macs: int


def layers(model: SpeakerModel, seconds: float = 1.0) -> list[Layer]:
    """Every part that has parameters or multiplies, front end first, and the four parts they belong to.

    Parameters sum to `cost.count_parameters`, operations to those of `cost.cost` with the front end's.

    Args:
        model: What to look at; left as it was.
        seconds: Of speech, for shapes and operations.

    Raises:
        RecipeError: the model needs more than `seconds`.
    """
    shapes: dict[str, tuple[int, ...] | None] = {}
    macs: dict[str, int] = {}
    waveform = torch.zeros(1, samples_of(model, seconds), device=next(model.parameters()).device)
    with counting(model) as counter:
        handles = [
            handle
            for name, module in model.named_modules()
            if name
            for handle in _watch(name, module, counter.get_total_flops, shapes, macs)
        ]
        try:
            model(waveform)
        finally:
            for handle in handles:
                handle.remove()
    found = []
    for name, module in model.named_modules():
        own = macs[name] - sum(macs[part] for part in _ran_within(name, module, macs)) if name in macs else 0
        parameters = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        if name and ("." not in name or parameters or own):
            found.append(Layer(name, type(module).__name__, shapes.get(name), parameters, own))
    return found


def _watch(
    name: str,
    module: nn.Module,
    total: Callable[[], int],
    shapes: dict[str, tuple[int, ...] | None],
    macs: dict[str, int],
) -> list[Any]:
    """Hooks that note the shape of a module's result and what is counted while it runs."""
    before: list[int] = []

    def enter(*_: Any) -> None:
        before.append(int(total()))

    def leave(_module: nn.Module, _given: Any, result: Any) -> None:
        shapes[name] = _shape(result)
        macs[name] = macs.get(name, 0) + (int(total()) - before.pop()) // 2

    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]


def _ran_within(name: str, module: nn.Module, macs: dict[str, int]) -> list[str]:
    """Names of the outermost modules inside one that ran; those that only hold others, such as lists, do not."""
    found = []
    for child, part in module.named_children():
        inside = f"{name}.{child}"
        found += [inside] if inside in macs else _ran_within(inside, part, macs)
    return found


def _shape(result: Any) -> tuple[int, ...] | None:
    """The shape of the first tensor in a module's result."""
    if isinstance(result, Tensor):
        return tuple(result.shape)
    if dataclasses.is_dataclass(result):
        result = [getattr(result, item.name) for item in dataclasses.fields(result)]
    if isinstance(result, tuple | list) and result:
        return _shape(result[0])
    return None
