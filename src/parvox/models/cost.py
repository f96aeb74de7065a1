"""How big a model is and how much it computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from parvox.errors import RecipeError
from parvox.models.speaker_model import SpeakerModel


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        parameters: Trained numbers in encoder, pooling and head; the front end has none.
        macs: Multiply-accumulates of encoder, pooling and head, as published figures count them.
        feature_macs: Multiply-accumulates of the front end, which published figures leave out.
        seconds: Of speech, for both.
    """

    parameters: int
    macs: int
    feature_macs: int
    seconds: float


def cost(model: SpeakerModel, seconds: float = 1.0) -> Cost:
    """Parameters, and multiply-accumulates for so many seconds of speech.

    Raises:
        RecipeError: the model needs more than `seconds`.
    """
    return Cost(count_parameters(model), count_macs(model, seconds), count_feature_macs(model, seconds), seconds)


def count_parameters(model: nn.Module) -> int:
    """Numbers in the parameters of `model`; buffers (running statistics, tables) are not counted."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: SpeakerModel, seconds: float = 1.0) -> int:
    """Multiply-accumulates of encoder, pooling and head for one utterance, features not included.

    Counts matrix products and convolutions, by PyTorch's own counter (which gives two operations for each); sums,
    normalisations and activations are left out, as usual in the field. The frames are those that `seconds` of
    waveform give: 98 for one second with windows of 25 ms every 10 ms. Published figures often stand for 200 frames
    instead; for those use `count_frame_macs`.

    Args:
        model: What to count; left as it was.
        seconds: Of speech.

    Raises:
        RecipeError: the model needs more than `seconds`.
    """
    samples = torch.tensor([samples_of(model, seconds)])
    return count_frame_macs(model, int(model.frontend.lengths(samples)))


def count_frame_macs(model: SpeakerModel, frames: int) -> int:
    """Multiply-accumulates as `count_macs` counts them, for so many feature frames."""
    parameter = next(model.parameters())
    features = torch.zeros(1, frames, model.settings.features.bins, device=parameter.device, dtype=parameter.dtype)
    with counting(model) as counter:
        model.embed_features(features)
    return int(counter.get_total_flops()) // 2


def count_feature_macs(model: SpeakerModel, seconds: float = 1.0) -> int:
    """Multiply-accumulates of the front end for so many seconds of speech: its two transforms and the mel bins."""
    waveform = torch.zeros(1, samples_of(model, seconds), device=next(model.parameters()).device)
    with counting(model) as counter:
        model.extract_features(waveform)
    return int(counter.get_total_flops()) // 2


def samples_of(model: SpeakerModel, seconds: float) -> int:
    """So many seconds as samples.

    Raises:
        RecipeError: the model needs more.
    """
    rate = model.settings.features.sample_rate_hz
    samples = round(seconds * rate)
    if samples < model.min_samples:
        raise RecipeError(
            f"cost: {seconds:g} s given, but this model needs at least {model.min_samples / rate:g} s of speech"
        )
    return samples


@contextlib.contextmanager
def counting(model: nn.Module) -> Iterator[FlopCounterMode]:
    """Count what runs within; the counter gives two operations for each multiply-accumulate.

    Evaluation mode without gradients or autocast, and attention as plain products, which the counter knows.
    """
    modes = {part: part.training for part in model.modules()}
    counter = FlopCounterMode(display=False)
    device = next(model.parameters()).device.type
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device, enabled=False), sdpa_kernel(SDPBackend.MATH), counter:
            yield counter
    finally:
        for part, training in modes.items():
            part.training = training
