"""What every speaker model takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn


@dataclass
class EncoderOutput:
    """What an encoder makes of features.

    Attributes:
        frames: (batch, channels, time). A two-dimensional encoder flattens (channels, bins) into one axis, channels
            major; its `frame_bins` says how many bins that were.
        lengths: (batch,) int64, valid frames per row after the encoder's stride; None where all rows are full.
        tokens: (batch, tokens, channels), the final states of the tokens that went in; None without tokens.
        attention_maps: By block name, (batch, heads, queries, keys); rows sum to 1 over valid keys. Empty unless
            the encoder's `expose_attention` is set.
    """

    frames: Tensor
    lengths: Tensor | None = None
    tokens: Tensor | None = None
    attention_maps: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class SpeakerOutput:
    """The one typed result of a speaker model.

    Attributes:
        embedding: (batch, embedding_dim), not length-normalised.
        encoded: What the encoder gave, for methods that look inside.
    """

    embedding: Tensor
    encoded: EncoderOutput


class Encoder(nn.Module):
    """Features to frames.

    Attributes:
        frames_dim: Channels of the frames it yields (channels × bins for a two-dimensional encoder).
        frame_bins: Frequency bins folded into `frames_dim`; 1 for a one-dimensional encoder.
        time_stride: Feature frames per output frame.
        min_frames: The fewest feature frames it accepts.
        accepts_tokens: Whether `forward` takes learnable tokens to prepend.
        expose_attention: Set it to have `forward` give its attention maps; they cost memory, so nobody gets them
            unasked. Encoders without attention ignore it.
    """

    frames_dim: int
    frame_bins: int = 1
    time_stride: int = 1
    min_frames: int = 1
    accepts_tokens: bool = False
    expose_attention: bool = False

    def forward(self, features: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> EncoderOutput:
        """Encode a batch.

        Args:
            features: (batch, frames, bins) float. Padded frames are zero.
            lengths: (batch,) int64 valid frames; None when every row is full, which skips all masking.
            tokens: (batch, tokens, channels) to prepend before the first attention layer; never masked.
        """
        raise NotImplementedError

    def for_inference(self) -> Encoder:
        """An encoder that gives what this one gives in evaluation mode, with what fixed weights allow computed ahead.

        What it computes no longer follows this one's weights; it is not for training and may give no attention maps.
        An encoder that has nothing to gain returns itself.
        """
        return self


class Pooling(nn.Module):
    """Frames of any number to one vector.

    Attributes:
        output_dim: Size of the vector.
    """

    output_dim: int

    def tokens(self, batch: int) -> Tensor | None:
        """The tokens this read-out wants the encoder to prepend, (batch, tokens, channels); None for poolings."""
        return None

    def forward(self, frames: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        """Pool a batch.

        Args:
            frames: (batch, channels, time).
            lengths: (batch,) int64 valid frames; None when every row is full.
            tokens: (batch, tokens, channels), final token states where `tokens()` gave some.

        Returns:
            (batch, output_dim).
        """
        raise NotImplementedError

    def own_terms(self) -> dict[str, tuple[Tensor, float]]:
        """What it adds to the training loss of whatever model it is in: by name, a scalar and its weight."""
        return {}


class EncoderSettings(Protocol):
    """Settings of an encoder, as a recipe fills them; the class attributes are what the recipe may leave out."""

    default_pooling: ClassVar[str]
    default_embedding_dim: ClassVar[int]
    default_head: ClassVar[str]

    def build(self, bins: int) -> Encoder:
        """The encoder for features of `bins` bins.

        Raises:
            RecipeError: the settings do not go together, or do not fit `bins`.
        """
        ...


class PoolingSettings(Protocol):
    """Settings of a pooling, as a recipe fills them."""

    def build(self, encoder: Encoder) -> Pooling:
        """The pooling for the frames of `encoder`.

        Raises:
            RecipeError: the pooling and the encoder do not go together.
        """
        ...


def mask_from_lengths(lengths: Tensor, frames: int) -> Tensor:
    """(batch, frames) bool, true where a frame is valid.

    Args:
        lengths: (batch,) int64.
        frames: Length of the padded axis.
    """
    return torch.arange(frames, device=lengths.device)[None, :] < lengths[:, None]


def strided_lengths(lengths: Tensor | None, kernel: int, stride: int, padding: int, dilation: int = 1) -> Tensor | None:
    """Lengths after a convolution along time, by the same formula that gives its output size."""
    if lengths is None:
        return None
    return (lengths + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def masked(values: Tensor, lengths: Tensor | None) -> Tensor:
    """`values` (batch, …, time) with padded frames set to zero; unchanged where `lengths` is None.

    Any layer that mixes frames (a convolution of kernel > 1) must see zeros where a lone utterance would see its
    own zero padding; otherwise the embedding depends on the rest of the batch.
    """
    if lengths is None:
        return values
    mask = mask_from_lengths(lengths, values.shape[-1])
    shape = (mask.shape[0],) + (1,) * (values.dim() - 2) + (mask.shape[1],)
    return values * mask.view(shape).to(values.dtype)
