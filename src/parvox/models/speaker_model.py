"""The speaker model: front end, encoder, read-out and embedding head in one module."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from torch import Tensor, nn

from parvox.errors import RecipeError, nearest
from parvox.models.contract import EncoderSettings, PoolingSettings, SpeakerOutput
from parvox.models.frontend import Fbank, FbankSettings
from parvox.models.layers import check_positive

HEADS = ("linear", "bn_linear", "bn_linear_bn", "linear_bn", "linear_relu_bn_linear", "none")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """All that is needed to build a speaker model."""

    encoder: EncoderSettings
    """The network from features to frames."""
    pooling: PoolingSettings
    """The read-out from frames to one vector."""
    embedding_dim: int
    """Size of the embedding."""
    head: str
    """Layers between pooled vector and embedding: linear, bn_linear, linear_bn, bn_linear_bn, linear_relu_bn_linear
    (the x-vector's two), or none."""
    features: FbankSettings = field(default_factory=FbankSettings)
    """The front end."""

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise RecipeError(f"model: unknown head {self.head!r}: {nearest(self.head, HEADS)}")
        check_positive("model", embedding_dim=self.embedding_dim)


class SpeakerModel(nn.Module):
    """Waveforms to speaker embeddings.

    An utterance's embedding is the same alone or padded in a batch. The two halves, `extract_features` and
    `embed_features`, can be called apart by methods that erase or attribute features.

    Args:
        settings: What to build.

    Raises:
        RecipeError: the parts do not go together.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.frontend = Fbank(settings.features)
        self.encoder = settings.encoder.build(settings.features.bins)
        self.pooling = settings.pooling.build(self.encoder)
        self.head = _head(settings.head, self.pooling.output_dim, settings.embedding_dim)

    @property
    def min_samples(self) -> int:
        """The shortest waveform it accepts, in samples: of two frames or more, for one less its mean is nothing."""
        return self.settings.features.samples(max(2, self.encoder.min_frames))

    def extract_features(self, waveforms: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Waveforms (batch, samples) and valid samples (batch,) to features (batch, frames, bins) and valid frames."""
        features: tuple[Tensor, Tensor | None] = self.frontend(waveforms, lengths)
        return features

    def embed_features(self, features: Tensor, lengths: Tensor | None = None) -> SpeakerOutput:
        """Features (batch, frames, bins) and valid frames (batch,) to the model's result."""
        encoded = self.encoder(features, lengths, self.pooling.tokens(features.shape[0]))
        pooled = self.pooling(encoded.frames, encoded.lengths, encoded.tokens)
        return SpeakerOutput(embedding=self.head(pooled), encoded=encoded)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> SpeakerOutput:
        """Embed a batch.

        Args:
            waveforms: (batch, samples) float in [-1, 1] at the settings' sample rate, zero where padded.
            lengths: (batch,) int64 valid samples; None when every row is full.
        """
        return self.embed_features(*self.extract_features(waveforms, lengths))

    def own_terms(self) -> dict[str, tuple[Tensor, float]]:
        """What the pooling adds to the training loss, such as a divergence: by name, a scalar and its weight."""
        return self.pooling.own_terms()

    def for_inference(self) -> SpeakerModel:
        """A copy in evaluation mode that gives the same embeddings, faster; for export and serving, not for training.

        Parameters and operations are to be counted on the model itself: see `Encoder.for_inference`.
        """
        model = copy.deepcopy(self).eval()
        model.encoder = model.encoder.for_inference()
        return model


def _head(kind: str, pooled_dim: int, embedding_dim: int) -> nn.Module:
    if kind == "none":
        if pooled_dim != embedding_dim:
            raise RecipeError(
                f"model: head none gives embeddings of the pooled size {pooled_dim}, but embedding_dim is "
                f"{embedding_dim}: set embedding_dim to {pooled_dim} or choose another head"
            )
        return nn.Identity()
    layers: list[nn.Module] = []
    if kind.startswith("bn_"):
        layers.append(nn.BatchNorm1d(pooled_dim))
    # a norm cancels the bias before it; that of bn_linear_bn belongs to BC-CMT's published number of parameters
    layers.append(nn.Linear(pooled_dim, embedding_dim, bias=kind != "linear_bn"))
    if kind == "linear_relu_bn_linear":
        layers += [nn.ReLU(), nn.BatchNorm1d(embedding_dim), nn.Linear(embedding_dim, embedding_dim)]
    if kind.endswith("_bn"):
        layers.append(nn.BatchNorm1d(embedding_dim))
    return nn.Sequential(*layers)
