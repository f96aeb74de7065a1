"""Read-outs by learnable tokens: their states after the encoder are the embedding, and nothing is pooled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parvox.errors import RecipeError
from parvox.models.contract import Encoder, Pooling
from parvox.models.layers import check_positive
from parvox.models.pooling import full_precision
from parvox.models.registry import ENCODERS, POOLINGS

_SOURCE = "Mingote et al., arXiv 2111.03842; Digital Signal Processing, 2023"
_INITIAL_DEVIATION = 0.02


@POOLINGS.register("class_token", source=_SOURCE)
@dataclass(frozen=True, kw_only=True)
class ClassTokenSettings:
    """The final state of one learnable token, in place of a mean over frames.

    Not stated in the abstract: how many vectors the token is sampled from, and what is used at test; here their
    mean, which is deterministic. "Variational" is a reading of the name "Bayesian estimation" in its first version.
    """

    vectors: int = 1
    """Trainable vectors of which training draws one for each utterance; 1 is a plain token."""
    estimation: Literal["sampled", "variational"] = "sampled"
    """Drawn from a list of vectors, or from a Gaussian of trainable mean and deviation."""

    def __post_init__(self) -> None:
        _check("class_token", self.vectors, self.estimation)

    def build(self, encoder: Encoder) -> Pooling:
        """The read-out for the tokens of `encoder`.

        Raises:
            RecipeError: the encoder takes no tokens.
        """
        _expect_tokens("class_token", encoder)
        return TokenPooling(_class_token(encoder.frames_dim, self.vectors, self.estimation))


@POOLINGS.register("class_distillation_token", source=_SOURCE + "; after Touvron et al., DeiT, ICML 2021")
@dataclass(frozen=True, kw_only=True)
class ClassDistillationTokenSettings:
    """A class token, which gives the embedding, and beside it a token for what a teacher says.

    The distillation token's state is `EncoderOutput.tokens[:, 1]`; a distillation method gives it a head.
    """

    vectors: int = 1
    """Trainable vectors of which training draws the class token, one for each utterance; 1 is a plain token."""
    estimation: Literal["sampled", "variational"] = "sampled"
    """How the class token is drawn: see `class_token`."""

    def __post_init__(self) -> None:
        _check("class_distillation_token", self.vectors, self.estimation)

    def build(self, encoder: Encoder) -> Pooling:
        """The read-out for the tokens of `encoder`.

        Raises:
            RecipeError: the encoder takes no tokens.
        """
        _expect_tokens("class_distillation_token", encoder)
        width = encoder.frames_dim
        return TokenPooling(_class_token(width, self.vectors, self.estimation), SampledToken(width, 1))


def _check(name: str, vectors: int, estimation: str) -> None:
    check_positive(name, vectors=vectors)
    if estimation not in ("sampled", "variational"):
        raise RecipeError(f"{name}: estimation {estimation!r} given; expected sampled or variational")
    if estimation == "variational" and vectors > 1:
        raise RecipeError(f"{name}: {vectors} vectors with variational estimation given; expected 1, or sampled")


def _expect_tokens(name: str, encoder: Encoder) -> None:
    if not encoder.accepts_tokens:
        able = [entry.name for entry in ENCODERS if getattr(entry.settings, "accepts_tokens", False)]
        raise RecipeError(
            f"{name}: given an encoder that takes no tokens; expected one that does ({', '.join(able)}), or another "
            "pooling, such as mean"
        )


def _class_token(channels: int, vectors: int, estimation: str) -> SampledToken | VariationalToken:
    return VariationalToken(channels) if estimation == "variational" else SampledToken(channels, vectors)


class SampledToken(nn.Module):
    """A token drawn in training from a list of trainable vectors, uniformly for each utterance; their mean at test.

    With one vector nothing is drawn, and it is a plain token.

    Args:
        channels: Size of the token.
        vectors: Length of the list.
    """

    def __init__(self, channels: int, vectors: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(vectors, channels) * _INITIAL_DEVIATION)

    def forward(self, batch: int) -> Tensor:
        """(batch, channels)."""
        count = self.vectors.shape[0]
        if self.training and count > 1:
            return self.vectors[torch.randint(count, (batch,), device=self.vectors.device)]
        return self.vectors.mean(0).expand(batch, -1)


class VariationalToken(nn.Module):
    """A token drawn in training from a Gaussian, mean + softplus(rho) × noise, for each utterance; its mean at test.

    `divergence` is to be added to the loss, times a weight; without it, training may shrink the deviation at will.

    Source: the reparameterisation of Kingma and Welling, 2014, as in Blundell et al., "Weight Uncertainty in Neural
    Networks", 2015.

    Args:
        channels: Size of the token.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.randn(channels) * _INITIAL_DEVIATION)
        # softplus of this is the initial deviation
        self.rho = nn.Parameter(torch.full((channels,), _INITIAL_DEVIATION).expm1().log())

    def forward(self, batch: int) -> Tensor:
        """(batch, channels)."""
        mean = self.mean.expand(batch, -1)
        return mean + F.softplus(self.rho) * torch.randn_like(mean) if self.training else mean

    def divergence(self) -> Tensor:
        """Kullback-Leibler divergence from N(0, I), a scalar, in nats."""
        deviation = F.softplus(self.rho)
        return 0.5 * (deviation.square() + self.mean.square() - 1 - 2 * deviation.log()).sum()


class TokenPooling(Pooling):
    """The state of the first of the tokens that it has the encoder prepend.

    Args:
        class_token: The token that gives the embedding.
        *others: Tokens that go beside it.
    """

    def __init__(self, class_token: SampledToken | VariationalToken, *others: SampledToken) -> None:
        super().__init__()
        self.parts = nn.ModuleList([class_token, *others])
        parameter = next(class_token.parameters())
        self.output_dim = parameter.shape[-1]

    def tokens(self, batch: int) -> Tensor:
        """See `Pooling.tokens`."""
        return torch.stack([part(batch) for part in self.parts], 1)

    def forward(self, frames: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        """See `Pooling.forward`; the frames are not looked at."""
        if tokens is None:
            raise RecipeError("class_token: the encoder gave no token states; pass it the tokens of this read-out")
        return full_precision(tokens[:, 0])
