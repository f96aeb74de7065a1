"""The x-vector TDNN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from parvox.errors import RecipeError
from parvox.models.contract import Encoder, EncoderOutput
from parvox.models.layers import MOST_CHANNELS, check_each_positive, check_positive, initialise
from parvox.models.registry import ENCODERS

_NAME = "xvector"


@ENCODERS.register(_NAME, source="Snyder et al., ICASSP 2018; Kaldi egs/voxceleb/v2")
@dataclass(frozen=True, kw_only=True)
class XVectorSettings:
    """x-vector TDNN; the defaults are the paper's sizes."""

    default_pooling: ClassVar[str] = "statistics"
    default_embedding_dim: ClassVar[int] = 512
    default_head: ClassVar[str] = "linear"

    channels: tuple[int, ...] = (512, 512, 512, 512, 1500)
    """Channels of each layer; the last go to the pooling."""
    kernels: tuple[int, ...] = (5, 3, 3, 1, 1)
    """Frames each layer looks at."""
    dilations: tuple[int, ...] = (1, 2, 3, 1, 1)
    """Spacing of those frames."""

    def __post_init__(self) -> None:
        sizes = {"channels": self.channels, "kernels": self.kernels, "dilations": self.dilations}
        check_each_positive(_NAME, MOST_CHANNELS, channels=self.channels)
        check_each_positive(_NAME, kernels=self.kernels, dilations=self.dilations)
        if len({len(values) for values in sizes.values()}) > 1:
            raise RecipeError(
                f"{_NAME}: {len(self.channels)} channels, {len(self.kernels)} kernels and {len(self.dilations)} "
                "dilations given; expected one of each for every layer"
            )

    def build(self, bins: int) -> Encoder:
        """The encoder for features of `bins` bins."""
        check_positive(_NAME, bins=bins)
        return XVector(self, bins)


class XVector(Encoder):
    """The frame-level part of the x-vector network.

    Convolutions are not padded, so each layer gives fewer frames than it takes, every output frame has its whole
    context, and padded frames need no mask: they can only spoil output frames beyond the row's length.

    Args:
        settings: Sizes.
        bins: Feature bins.
    """

    def __init__(self, settings: XVectorSettings, bins: int) -> None:
        super().__init__()
        self.frames_dim = settings.channels[-1]
        self.context = sum((k - 1) * d for k, d in zip(settings.kernels, settings.dilations, strict=True))
        self.min_frames = 1 + self.context
        layers: list[nn.Module] = []
        inputs = bins
        for outputs, kernel, dilation in zip(settings.channels, settings.kernels, settings.dilations, strict=True):
            layers += [nn.Conv1d(inputs, outputs, kernel, dilation=dilation), nn.ReLU(), nn.BatchNorm1d(outputs)]
            inputs = outputs
        self.layers = nn.Sequential(*layers)
        initialise(self)

    def forward(self, features: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> EncoderOutput:
        """See `Encoder.forward`."""
        frames = self.layers(features.transpose(1, 2))
        return EncoderOutput(frames=frames, lengths=None if lengths is None else lengths - self.context)
