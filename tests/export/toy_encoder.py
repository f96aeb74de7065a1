"""A small model that has what real ones have, and a run folder of it: quick to trace, no training needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from parvox.models import ModelSettings, SpeakerModel
from parvox.models.contract import Encoder, EncoderOutput, Pooling, masked, strided_lengths
from parvox.models.pooling import statistics
from parvox.training.run import MODEL, Run


@dataclass(frozen=True)
class ToySettings:
    channels: int = 48

    def build(self, bins: int) -> Encoder:
        return ToyEncoder(bins, self.channels)


class ToyEncoder(Encoder):
    """A strided convolution, a depthwise and a pointwise one with a residual, a normalisation after rectification."""

    def __init__(self, bins: int, channels: int) -> None:
        super().__init__()
        self.frames_dim, self.time_stride = channels, 2
        self.stem = nn.Conv1d(bins, channels, 5, stride=2, padding=2, bias=False)
        self.stem_norm = nn.BatchNorm1d(channels)
        self.depthwise = nn.Conv1d(channels, channels, 3, padding=2, dilation=2, groups=channels)
        self.pointwise = nn.Conv1d(channels, channels, 1)
        self.norm = nn.BatchNorm1d(channels)
        self.leave = nn.Conv1d(channels, channels, 1)

    def forward(self, features, lengths=None, tokens=None):
        frames = self.stem_norm(self.stem(features.transpose(1, 2))).relu()
        lengths = strided_lengths(lengths, 5, 2, 2)
        inner = self.depthwise(masked(frames, lengths))
        inner = self.norm(self.pointwise(inner).relu())
        return EncoderOutput(frames=frames + self.leave(inner), lengths=lengths)


@dataclass(frozen=True)
class ToyPoolingSettings:
    def build(self, encoder: Encoder) -> Pooling:
        return ToyPooling(encoder.frames_dim)


class ToyPooling(Pooling):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.output_dim = 2 * channels

    def forward(self, frames, lengths=None, tokens=None):
        return torch.cat(statistics(frames, lengths), 1)


def settle(model: SpeakerModel, seed: int = 0) -> SpeakerModel:
    """Normalisations as after training, so that folding them changes something."""
    torch.manual_seed(seed)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
            nn.init.normal_(part.running_mean, 0, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return model.eval()


def toy_model(channels: int = 48, embedding_dim: int = 24, head: str = "bn_linear_bn", seed: int = 0) -> SpeakerModel:
    torch.manual_seed(seed)
    settings: Any = ModelSettings(
        encoder=ToySettings(channels), pooling=ToyPoolingSettings(), embedding_dim=embedding_dim, head=head
    )
    return settle(SpeakerModel(settings), seed)


def toy_run(folder: Path, model: SpeakerModel, corpus: Path) -> Run:
    """A run folder with weights alone, and the run that `load_run` would give if toys were registered."""
    folder.mkdir(parents=True)
    safetensors.torch.save_file(model.state_dict(), folder / MODEL)
    nothing: Any = None
    text = f"corpus: {corpus}\nseed: 1\ndistillation:\n  teacher: /home/someone/runs/big\n  label:\n    weight: 1.0\n"
    return Run(folder, nothing, text, model, nothing, ["a", "b"], {"synthetic": True})
