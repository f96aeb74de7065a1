"""A small classifier of frames: which phone, or which word, is being said."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from parvox.models.contract import mask_from_lengths
from parvox.models.layers import SameConv1d

NO_LABEL = -100
"""Target of a frame whose class is not known."""


class FrameClassifier(nn.Module):
    """Dilated convolutions from features to one score per class and frame.

    Args:
        bins: Feature bins.
        classes: Phones, or words where there are no phones.
        channels: Width of the layers.
        dilations: Dilation of each layer, of kernel 3; the defaults see 0.31 s.
    """

    def __init__(self, bins: int, classes: int, channels: int = 128, dilations: tuple[int, ...] = (1, 2, 4, 8)) -> None:
        super().__init__()
        self.classes = classes
        widths = [bins, *[channels] * len(dilations)]
        self.convs = nn.ModuleList(
            SameConv1d(inputs, channels, 3, dilation=dilation)
            for inputs, dilation in zip(widths, dilations, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(channels) for _ in dilations)
        self.scores = nn.Linear(channels, classes)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Classify frames.

        Args:
            features: (batch, frames, bins), zero where padded.
            lengths: (batch,) int64 valid frames; None when every row is full.

        Returns:
            (batch, frames, classes), before the softmax.
        """
        frames = features.transpose(1, 2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            frames = norm(conv(frames, lengths).relu())
        scores: Tensor = self.scores(frames.transpose(1, 2))
        return scores

    def loss(self, features: Tensor, targets: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Cross-entropy over labelled frames, a scalar in nats.

        Args:
            features: (batch, frames, bins), zero where padded.
            targets: (batch, frames) int64 classes, `NO_LABEL` where unknown; where only the word of a whole recording
                is known, all its frames have that word. Padded frames do not count, whatever stands there.
            lengths: (batch,) int64 valid frames; None when every row is full.
        """
        if lengths is not None:
            targets = targets.masked_fill(~mask_from_lengths(lengths, targets.shape[1]), NO_LABEL)
        return F.cross_entropy(self(features, lengths).transpose(1, 2), targets, ignore_index=NO_LABEL)
