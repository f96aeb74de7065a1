"""Small parts that several encoders share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from parvox.errors import RecipeError
from parvox.models.contract import mask_from_lengths, masked

MOST_LAYERS = 1000
"""Of a kind; also the longest stride and dilation. More is a slip, and a model that takes for ever to build."""
MOST_CHANNELS = 10_000_000
"""Of a layer, or an embedding."""


def check_positive(model: str, most: int = MOST_CHANNELS, **values: int) -> None:
    """Raise `RecipeError` for the first of the named settings that is below 1, or beyond all measure.

    Args:
        model: Name of the model, for the message.
        most: The highest that makes sense.
        **values: Settings by field name.
    """
    for field, value in values.items():
        if value < 1:
            raise RecipeError(f"{model}: {field} {value} given; expected 1 or more")
        if value > most:
            raise RecipeError(f"{model}: {field} {value} given; expected 1 to {most}")


def check_each_positive(model: str, most: int = MOST_LAYERS, **values: Sequence[int]) -> None:
    """Raise `RecipeError` for the first of the named settings that is not one or more numbers from 1 up.

    Args:
        model: Name of the model, for the message.
        most: The highest number that makes sense.
        **values: Settings by field name.
    """
    for field, numbers in values.items():
        if not numbers or min(numbers) < 1 or max(numbers) > most:
            raise RecipeError(f"{model}: {field} {list(numbers)} given; expected one or more numbers from 1 to {most}")


def check_odd(model: str, **values: int) -> None:
    """Raise `RecipeError` for the first of the named kernel sizes that is no odd number from 1 to `MOST_LAYERS`.

    Args:
        model: Name of the model, for the message.
        **values: Settings by field name.
    """
    for field, value in values.items():
        if not 1 <= value <= MOST_LAYERS or value % 2 == 0:
            raise RecipeError(
                f"{model}: {field} {value} given; expected an odd number below {MOST_LAYERS}, so that "
                "frames stay aligned"
            )


def masked_mean(values: Tensor, lengths: Tensor | None) -> Tensor:
    """Mean over valid frames.

    Args:
        values: (batch, …, time).
        lengths: (batch,) int64 valid frames; None when every row is full.

    Returns:
        (batch, …), in the type of `values`.
    """
    if lengths is None:
        return values.mean(-1)
    mask = mask_from_lengths(lengths, values.shape[-1])
    shape = (mask.shape[0],) + (1,) * (values.dim() - 2)
    precise = torch.promote_types(values.dtype, torch.float32)  # a sum in half precision would drop frames
    total = (values * mask.view(*shape, -1).to(values.dtype)).sum(-1, dtype=precise)
    mean: Tensor = total / lengths.view(shape).to(precise)
    return mean.type_as(values)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate computed from the utterance's mean frame.

    Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, equations 2 to 4.

    Args:
        channels: Channels of the frames.
        hidden: Width of the bottleneck.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Gate `frames` (batch, channels, time) by their mean over valid frames."""
        gate: Tensor = self.excite(self.squeeze(masked_mean(frames, lengths)).relu()).sigmoid()
        return frames * gate.unsqueeze(-1)


class SameConv1d(nn.Conv1d):
    """A convolution along time that keeps the number of frames and sees zeros where a row is padded.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        kernel: Odd kernel size.
        dilation: Spacing of the kernel's taps.
        groups: Groups of channels convolved apart.
        bias: Whether a bias is added.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, *, dilation: int = 1, groups: int = 1, bias: bool = True
    ) -> None:
        padding = (kernel - 1) // 2 * dilation
        super().__init__(inputs, outputs, kernel, padding=padding, dilation=dilation, groups=groups, bias=bias)

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Convolve `frames` (batch, channels, time)."""
        if self.kernel_size[0] > 1:
            frames = masked(frames, lengths)
        return super().forward(frames)


def initialise(module: nn.Module) -> None:
    """Kaiming-normal weights for the rectified convolutions and linear layers inside `module`, zero biases.

    Source: He et al., "Delving Deep into Rectifiers", ICCV 2015.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
