"""Residual convolutions, then self-attention with memory layers: the encoder that class tokens read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from parvox.errors import RecipeError
from parvox.models.attention import attend, join_heads, split_heads
from parvox.models.contract import Encoder, EncoderOutput, mask_from_lengths, masked, strided_lengths
from parvox.models.frame_classifier import FrameClassifier
from parvox.models.layers import MOST_CHANNELS, MOST_LAYERS, check_odd, check_positive
from parvox.models.memory_layers import FeedForwardLayer, KeyValueMemory, ProductKeyMemory, square_root
from parvox.models.positions import PhoneticPositions, SinusoidalPositions
from parvox.models.registry import ENCODERS

_NAME = "memory_attention"


@ENCODERS.register(
    _NAME, source="Mingote et al., arXiv 2111.03842 and ICASSP 2021; sizes and order of layers reconstructed"
)
@dataclass(frozen=True, kw_only=True)
class MemoryAttentionSettings:
    """Self-attention with memory layers, for text-dependent verification.

    The papers' abstracts state multi-head self-attention, memory layers, phonetic embeddings in the place of
    positional ones and, from the group's earlier papers, one-dimensional convolutions in front. Sizes, the number of
    blocks and the kind of memory are not stated; these defaults are a reading for small data.
    """

    default_pooling: ClassVar[str] = "class_token"
    default_embedding_dim: ClassVar[int] = 256
    default_head: ClassVar[str] = "linear"
    accepts_tokens: ClassVar[bool] = True

    width: int = 256
    """Channels of the frames."""
    conv_blocks: int = 2
    """Residual blocks of convolutions in front of attention, 1 or more."""
    kernel: int = 3
    """Kernel of the convolutions."""
    stride: int = 1
    """Feature frames per frame; the first convolution takes them together."""
    positions: Literal["none", "sinusoidal", "phonetic"] = "sinusoidal"
    """What tells attention the order of frames: nothing, sinusoids, or posteriors of a frame classifier."""
    phones: int = 0
    """Classes of the frame classifier (phones, or words), for phonetic positions."""
    frame_classifier: str = ""
    """File of the frame classifier (parvox fit-frames); it is frozen, and kept in the model from then on."""
    blocks: int = 2
    """Blocks of attention and memory."""
    heads: int = 8
    """Attention heads."""
    memory: Literal["key_value", "product_key", "feed_forward"] = "key_value"
    """Kind of the memory layer; feed_forward is the ordinary transformer, for comparison."""
    memory_slots: int = 1024
    """Values of the memory; a square number for product_key. For feed_forward, the width inside."""
    memory_heads: int = 4
    """Heads of the memory; feed_forward has none."""
    memory_key_dim: int = 64
    """Size of the memory's keys; feed_forward has none."""
    memory_top_k: int = 16
    """Values that each head of product_key looks up."""
    norm: Literal["after", "before"] = "after"
    """Whether layers are normalised after their residual is added, as in the first transformer, or before."""
    dropout: float = 0.1
    """Probability with which the layers' results are dropped in training."""

    def __post_init__(self) -> None:
        for field, kinds in (
            ("positions", ("none", "sinusoidal", "phonetic")),
            ("memory", ("key_value", "product_key", "feed_forward")),
            ("norm", ("after", "before")),
        ):
            if getattr(self, field) not in kinds:
                raise RecipeError(f"{_NAME}: {field} {getattr(self, field)!r} given; expected {', '.join(kinds)}")
        check_positive(
            _NAME,
            width=self.width,
            heads=self.heads,
            memory_slots=self.memory_slots,
            memory_heads=self.memory_heads,
            memory_key_dim=self.memory_key_dim,
            memory_top_k=self.memory_top_k,
        )
        check_positive(_NAME, MOST_LAYERS, conv_blocks=self.conv_blocks, stride=self.stride, blocks=self.blocks)
        check_odd(_NAME, kernel=self.kernel)
        if self.width % self.heads:
            raise RecipeError(
                f"{_NAME}: width {self.width} with {self.heads} heads given; expected heads that divide the width"
            )
        if not 0 <= self.dropout < 1:
            raise RecipeError(f"{_NAME}: dropout {self.dropout} given; expected 0 or more and less than 1")
        if (self.positions == "phonetic") != (self.phones > 0) or self.phones > MOST_CHANNELS:
            raise RecipeError(
                f"{_NAME}: phones {self.phones} with {self.positions} positions given; expected the number of the "
                "frame classifier's classes with phonetic positions, 0 with others"
            )
        if self.frame_classifier and self.positions != "phonetic":
            raise RecipeError(
                f"{_NAME}: frame_classifier {self.frame_classifier} with {self.positions} positions given; expected "
                "phonetic ones"
            )
        if self.memory == "key_value" and self.width % self.memory_heads:
            raise RecipeError(
                f"{_NAME}: width {self.width} with memory_heads {self.memory_heads} given; "
                "expected memory_heads that divide the width"
            )
        if self.memory == "product_key":
            self._check_product_key()

    def _check_product_key(self) -> None:
        sub_keys = square_root(self.memory_slots)
        if sub_keys is None:
            raise RecipeError(
                f"{_NAME}: memory_slots {self.memory_slots} given; product_key expects a square number, such as 1024"
            )
        if self.memory_top_k > sub_keys:
            raise RecipeError(
                f"{_NAME}: memory_top_k {self.memory_top_k} given; expected at most {sub_keys}, the square root of "
                f"memory_slots {self.memory_slots}"
            )
        if self.memory_key_dim % 2:
            raise RecipeError(
                f"{_NAME}: memory_key_dim {self.memory_key_dim} given; product_key expects an even number"
            )

    def build(self, bins: int) -> Encoder:
        """The encoder for features of `bins` bins."""
        return MemoryAttention(self, bins)

    def build_memory(self) -> nn.Module:
        """One memory layer."""
        if self.memory == "feed_forward":
            return FeedForwardLayer(self.width, self.memory_slots)
        if self.memory == "key_value":
            return KeyValueMemory(self.width, self.memory_slots, self.memory_key_dim, self.memory_heads)
        sub_keys = square_root(self.memory_slots) or 0
        return ProductKeyMemory(self.width, sub_keys, self.memory_key_dim, self.memory_heads, self.memory_top_k)


class MemoryAttention(Encoder):
    """Convolutions in front, positions, tokens in front of the frames, blocks of attention and memory.

    Tokens get no position and are never masked; they are taken off again, so that `frames` holds frames only. With
    `expose_attention`, maps are named ``block1``, ``block2``, …; their queries and keys are tokens first, then
    frames.

    Args:
        settings: Sizes.
        bins: Feature bins.
    """

    accepts_tokens = True

    def __init__(self, settings: MemoryAttentionSettings, bins: int) -> None:
        super().__init__()
        width = settings.width
        self.frames_dim = width
        self.time_stride = settings.stride
        self.front = nn.ModuleList(
            ConvBlock(width if index else bins, width, settings.kernel, 1 if index else settings.stride)
            for index in range(settings.conv_blocks)
        )
        self.positions: nn.Module | None = None
        if settings.positions == "sinusoidal":
            self.positions = SinusoidalPositions()
        elif settings.positions == "phonetic":
            self.positions = PhoneticPositions(FrameClassifier(bins, settings.phones), width, settings.stride)
        self.blocks = nn.ModuleList(AttentionBlock(settings) for _ in range(settings.blocks))
        self.norm = nn.LayerNorm(width) if settings.norm == "before" else nn.Identity()

    def forward(self, features: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> EncoderOutput:
        """See `Encoder.forward`."""
        frames, frame_lengths = features.transpose(1, 2), lengths
        for block in self.front:
            frames, frame_lengths = block(frames, frame_lengths)
        sequence = frames.transpose(1, 2)  # (batch, time, channels)
        if self.positions is not None:
            sequence = self.positions(sequence, features, lengths)
        count = 0
        if tokens is not None:
            count = tokens.shape[1]
            sequence = torch.cat([tokens.to(sequence.dtype), sequence], 1)
        key_bias = None
        if frame_lengths is not None:
            valid = mask_from_lengths(frame_lengths + count, sequence.shape[1])
            key_bias = valid[:, None, None].to(sequence.dtype).log()
        maps: dict[str, Tensor] = {}
        for number, block in enumerate(self.blocks, 1):
            sequence, weights = block(sequence, key_bias, self.expose_attention)
            if weights is not None:
                maps[f"block{number}"] = weights
        sequence = self.norm(sequence)
        return EncoderOutput(
            frames=sequence[:, count:].transpose(1, 2),
            lengths=frame_lengths,
            tokens=sequence[:, :count] if count else None,
            attention_maps=maps,
        )


class ConvBlock(nn.Module):
    """Two convolutions along time with normalisation, and a shortcut around them.

    Args:
        inputs: Channels in.
        channels: Channels out.
        kernel: Odd kernel size.
        stride: Stride of the first convolution.
    """

    def __init__(self, inputs: int, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.enter = nn.Conv1d(inputs, channels, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.enter_norm = nn.BatchNorm1d(channels)
        self.leave = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, bias=False)
        self.leave_norm = nn.BatchNorm1d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != channels:
            self.shortcut = nn.Conv1d(inputs, channels, 1, stride=stride)

    def forward(self, frames: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Transform `frames` (batch, channels, time), zero where padded; the result is zero there too."""
        out_lengths = strided_lengths(lengths, self.kernel, self.stride, self.kernel // 2)
        inner = masked(self.enter_norm(self.enter(frames)).relu(), out_lengths)
        inner = self.leave_norm(self.leave(inner)) + self.shortcut(frames)
        return masked(inner.relu(), out_lengths), out_lengths


class AttentionBlock(nn.Module):
    """Multi-head self-attention, then a memory layer, each with its residual and normalisation.

    Args:
        settings: Sizes.
    """

    def __init__(self, settings: MemoryAttentionSettings) -> None:
        super().__init__()
        self.heads = settings.heads
        self.before = settings.norm == "before"
        self.inputs = nn.Linear(settings.width, 3 * settings.width)
        self.out = nn.Linear(settings.width, settings.width)
        self.attention_norm = nn.LayerNorm(settings.width)
        self.memory = settings.build_memory()
        self.memory_norm = nn.LayerNorm(settings.width)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, sequence: Tensor, key_bias: Tensor | None, expose: bool) -> tuple[Tensor, Tensor | None]:
        """Transform `sequence` (batch, positions, channels).

        Args:
            sequence: Tokens, then frames.
            key_bias: (batch, 1, 1, positions), 0 or minus infinity; None when all positions are valid.
            expose: Whether the attention map is wanted.

        Returns:
            The same shape, and the map (batch, heads, positions, positions) if `expose`, else None.
        """
        given = self.attention_norm(sequence) if self.before else sequence
        query, key, value = (split_heads(part, self.heads) for part in self.inputs(given).chunk(3, 2))
        mixed, weights = attend(query, key, value, key_bias, expose=expose)
        sequence = sequence + self.dropout(self.out(join_heads(mixed)))
        if self.before:
            return sequence + self.dropout(self.memory(self.memory_norm(sequence))), weights
        sequence = self.attention_norm(sequence)
        return self.memory_norm(sequence + self.dropout(self.memory(sequence))), weights
