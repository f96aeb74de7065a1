"""Read-outs by learnable tokens: their states after the encoder are the embedding, and nothing is pooled."""

from __future__ import annotations

import math
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
# Tokens begin as large as frames are: much smaller ones would all become what they first attend to, and a class token
# and a distillation token would hardly differ. The vectors of one token begin close to each other.
_INITIAL_SIZE, _INITIAL_DEVIATION = 1.0, 0.02
READS = ("class", "distillation", "both")


@dataclass(frozen=True, kw_only=True)
class _TokenSettings:
    vectors: int = 1
    """Trainable vectors of which training draws one for each utterance; 1 is a plain token."""
    estimation: Literal["sampled", "variational"] = "sampled"
    """Drawn from a list of vectors, or from a Gaussian of trainable mean and deviation."""
    divergence_weight: float = 1e-4
    """Weight in the loss of the Gaussian's divergence from the standard one, for variational estimation."""

    def __post_init__(self) -> None:
        check_positive(self._name, vectors=self.vectors)
        if self.estimation not in ("sampled", "variational"):
            raise RecipeError(f"{self._name}: estimation {self.estimation!r} given; expected sampled or variational")
        if self.estimation == "variational" and self.vectors > 1:
            raise RecipeError(
                f"{self._name}: {self.vectors} vectors with variational estimation given; expected 1, or sampled"
            )
        if not 0 <= self.divergence_weight < math.inf:
            raise RecipeError(
                f"{self._name}: divergence_weight {self.divergence_weight} given; expected 0 or more, and finite"
            )

    @property
    def _name(self) -> str:
        return POOLINGS.name_of(self)

    def _class_token(self, channels: int) -> SampledToken | VariationalToken:
        if self.estimation == "variational":
            return VariationalToken(channels, self.divergence_weight)
        return SampledToken(channels, self.vectors)


@POOLINGS.register("class_token", source=_SOURCE)
@dataclass(frozen=True, kw_only=True)
class ClassTokenSettings(_TokenSettings):
    """The final state of one learnable token, in place of a mean over frames.

    Not stated in the abstract: how many vectors the token is sampled from, and what is used at test; here their
    mean, which is deterministic. "Variational" is a reading of the name "Bayesian estimation" in its first version.
    """

    def build(self, encoder: Encoder) -> Pooling:
        """The read-out for the tokens of `encoder`.

        Raises:
            RecipeError: the encoder takes no tokens.
        """
        _expect_tokens("class_token", encoder)
        return TokenPooling(self._class_token(encoder.frames_dim))


@POOLINGS.register("class_distillation_token", source=_SOURCE + "; after Touvron et al., DeiT, ICML 2021")
@dataclass(frozen=True, kw_only=True)
class ClassDistillationTokenSettings(_TokenSettings):
    """A class token, which gives the embedding, and beside it a token for what a teacher says.

    The distillation token's state is `EncoderOutput.tokens[:, 1]`; the method `distillation_token` gives it a head of
    its own, for training. At test it may be read in place of the class token, or beside it, without training anew:
    see `parvox.training.run.Run.reading`.
    """

    read: Literal["class", "distillation", "both"] = "class"
    """Which states are the embedding: the class token's, the distillation token's, or both, each of unit length."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.read not in READS:
            raise RecipeError(f"class_distillation_token: read {self.read!r} given; expected {', '.join(READS)}")

    def build(self, encoder: Encoder) -> Pooling:
        """The read-out for the tokens of `encoder`.

        Raises:
            RecipeError: the encoder takes no tokens.
        """
        _expect_tokens("class_distillation_token", encoder)
        distillation_token = SampledToken(encoder.frames_dim, 1)
        return TokenPooling(self._class_token(encoder.frames_dim), distillation_token, read=self.read)


def _expect_tokens(name: str, encoder: Encoder) -> None:
    if not encoder.accepts_tokens:
        able = [entry.name for entry in ENCODERS if getattr(entry.settings, "accepts_tokens", False)]
        raise RecipeError(
            f"{name}: given an encoder that takes no tokens; expected one that does ({', '.join(able)}), or another "
            "pooling, such as mean"
        )


class SampledToken(nn.Module):
    """A token drawn in training from a list of trainable vectors, uniformly for each utterance; their mean at test.

    With one vector nothing is drawn, and it is a plain token.

    Args:
        channels: Size of the token.
        vectors: Length of the list.
    """

    def __init__(self, channels: int, vectors: int) -> None:
        super().__init__()
        mean = torch.randn(channels) * _INITIAL_SIZE
        self.vectors = nn.Parameter(mean + torch.randn(vectors, channels) * _INITIAL_DEVIATION)

    def forward(self, batch: int) -> Tensor:
        """(batch, channels)."""
        count = self.vectors.shape[0]
        if self.training and count > 1:
            return self.vectors[torch.randint(count, (batch,), device=self.vectors.device)]
        return self.vectors.mean(0).expand(batch, -1)


class VariationalToken(nn.Module):
    """A token drawn in training from a Gaussian, mean + softplus(rho) × noise, for each utterance; its mean at test.

    `divergence` is added to the loss, times a weight; without it, training may shrink the deviation at will. By the
    variational bound the weight is one over the number of training utterances; so large a prior term drowns the rest
    where those are few, which is why it is an option.

    Source: the reparameterisation of Kingma and Welling, 2014, as in Blundell et al., "Weight Uncertainty in Neural
    Networks", 2015.

    Args:
        channels: Size of the token.
        weight: Of the divergence in the loss.
    """

    def __init__(self, channels: int, weight: float = 0.0) -> None:
        super().__init__()
        self.weight = weight
        self.mean = nn.Parameter(torch.randn(channels) * _INITIAL_SIZE)
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
    """The final state of tokens that it has the encoder prepend.

    Args:
        class_token: The first token.
        *others: Tokens that go beside it.
        read: Which are read: see `ClassDistillationTokenSettings`.
    """

    def __init__(
        self,
        class_token: SampledToken | VariationalToken,
        *others: SampledToken,
        read: Literal["class", "distillation", "both"] = "class",
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList([class_token, *others])
        self.read = read
        width: int = next(class_token.parameters()).shape[-1]
        self.output_dim = 2 * width if read == "both" else width

    def tokens(self, batch: int) -> Tensor:
        """See `Pooling.tokens`."""
        return torch.stack([part(batch) for part in self.parts], 1)

    def forward(self, frames: Tensor, lengths: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        """See `Pooling.forward`; the frames are not looked at."""
        if tokens is None:
            raise RecipeError("class token: the encoder gave no token states; pass it the tokens of this read-out")
        if self.read == "both":
            return F.normalize(full_precision(tokens[:, :2]), dim=-1).flatten(1)
        return full_precision(tokens[:, 0 if self.read == "class" else 1])

    def own_terms(self) -> dict[str, tuple[Tensor, float]]:
        """See `Pooling.own_terms`."""
        token = self.parts[0]
        if isinstance(token, VariationalToken):
            return {"token_divergence": (token.divergence(), token.weight)}
        return {}
