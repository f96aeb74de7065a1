"""What tells a transformer the order of frames."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from parvox.models.frame_classifier import FrameClassifier


def sinusoids(frames: int, channels: int, device: torch.device | None = None) -> Tensor:
    """Sines and cosines of the frame's number, at wavelengths from 2π to 10000 × 2π frames.

    Source: Vaswani et al., "Attention Is All You Need", 2017, section 3.5.

    Args:
        frames: How many frames.
        channels: How many channels; even ones hold sines, odd ones cosines.
        device: Where.

    Returns:
        (frames, channels) float32.
    """
    rates = torch.exp(torch.arange(0, channels, 2, device=device) * (-math.log(10000.0) / channels))
    angles = torch.arange(frames, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[:, :channels]


class SinusoidalPositions(nn.Module):
    """Adds `sinusoids` to frames."""

    def forward(self, frames: Tensor, features: Tensor, lengths: Tensor | None) -> Tensor:
        """Frames (batch, time, channels) with their positions; the features are not looked at."""
        return frames + sinusoids(frames.shape[1], frames.shape[2], frames.device).to(frames.dtype)


class PhoneticPositions(nn.Module):
    """Adds a linear map of a frame classifier's posteriors to frames: what is being said stands for where we are.

    The classifier is frozen, always in evaluation mode, and saved with the model. Until trained weights are put
    into it (`parvox.training.fit_frames.give_frames`) its posteriors mean nothing.

    Source: Mingote et al., "Memory layers with multi-head attention mechanisms for text-dependent speaker
    verification", ICASSP 2021. Its abstract does not say how the embedding enters; added to the frames, it takes the
    place of the positional embedding literally.

    Args:
        classifier: Trained elsewhere.
        channels: Channels of the frames.
        stride: Feature frames per frame.
    """

    def __init__(self, classifier: FrameClassifier, channels: int, stride: int) -> None:
        super().__init__()
        self.classifier = classifier.requires_grad_(False).eval()
        self.project = nn.Linear(classifier.classes, channels, bias=False)
        self.stride = stride

    def train(self, mode: bool = True) -> PhoneticPositions:
        """As in torch, but the classifier stays in evaluation mode."""
        super().train(mode)
        self.classifier.eval()
        return self

    def forward(self, frames: Tensor, features: Tensor, lengths: Tensor | None) -> Tensor:
        """Frames (batch, time, channels) plus the projected posteriors of `features` (batch, frames, bins)."""
        with torch.no_grad():
            posteriors = self.classifier(features, lengths).softmax(-1)
        position: Tensor = self.project(posteriors[:, :: self.stride])
        return frames + position
