"""Every model by name: each encoder at its defaults, and other sizes of it, most of them published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from parvox.errors import RecipeError, nearest
from parvox.models.frontend import FbankSettings
from parvox.models.registry import ENCODERS, POOLINGS
from parvox.models.speaker_model import ModelSettings


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One size of an encoder, with read-out and head.

    Attributes:
        encoder: Its name in a recipe.
        fields: Fields of the recipe's model section that are not at their defaults.
        pooling: The read-out; None for the encoder's usual one.
        head: The head; None for the encoder's usual one.
        bins: Feature bins.
    """

    encoder: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    pooling: str | None = None
    head: str | None = None
    bins: int = 80

    def settings(self) -> ModelSettings:
        """All that is needed to build it."""
        encoder: Any = ENCODERS[self.encoder].settings(**self.fields)
        return ModelSettings(
            encoder=encoder,
            pooling=POOLINGS[self.pooling or encoder.default_pooling].settings(),
            embedding_dim=encoder.default_embedding_dim,
            head=self.head or encoder.default_head,
            features=FbankSettings(bins=self.bins),
        )

    def section(self) -> dict[str, Any]:
        """The model section of a recipe that gives it."""
        section: dict[str, Any] = {"name": self.encoder}
        section |= {name: list(value) if isinstance(value, tuple) else value for name, value in self.fields.items()}
        if self.pooling:
            section["pooling"] = {"name": self.pooling}
        if self.head:
            section["head"] = self.head
        if self.bins != FbankSettings().bins:
            section["features"] = {"bins": self.bins}
        return section


SIZES: Mapping[str, Configuration] = MappingProxyType(
    {
        "bc_cmt-small": Configuration(encoder="bc_cmt", fields={"size": "small"}),
        "bc_cmt-base": Configuration(encoder="bc_cmt", fields={"size": "base"}),
        # the net of 2022, whose projections had more groups: 4 and 8 lie on both sides of the published saving
        "bc_cmt-2d": Configuration(encoder="bc_cmt", fields={"attention": "2d", "groups": 8}),
        # teacher and student of integrated multi-level distillation (Yang et al.)
        "ecapa_tdnn-256": Configuration(encoder="ecapa_tdnn", fields={"channels": 256, "frames_dim": 768}),
        "ecapa_tdnn-128": Configuration(encoder="ecapa_tdnn", fields={"channels": 128, "frames_dim": 384}),
        "ecapa_tdnn-1024": Configuration(encoder="ecapa_tdnn", fields={"channels": 1024}),
        "memory_attention-mean": Configuration(encoder="memory_attention", pooling="mean"),
        "mobilenet_v2-0.5": Configuration(encoder="mobilenet_v2", fields={"width": 0.5, "frames_dim": 512}),
        "redimnet2-b0": Configuration(encoder="redimnet2", bins=72),
        "redimnet2-b1": Configuration(encoder="redimnet2", fields={"size": "b1"}, bins=72),
        "redimnet2-b2": Configuration(encoder="redimnet2", fields={"size": "b2"}, bins=72),
        "resnet221": Configuration(encoder="resnet34", fields={"blocks": (6, 16, 48, 3), "block": "bottleneck"}),
        "resnet293": Configuration(encoder="resnet34", fields={"blocks": (10, 20, 64, 3), "block": "bottleneck"}),
        "xvector-two_layers": Configuration(encoder="xvector", head="linear_relu_bn_linear"),
    }
)
"""Sizes beside the defaults, by name."""


def configurations() -> Iterator[tuple[str, Configuration]]:
    """Name and configuration of every model: each encoder at its defaults, then its other sizes."""
    for entry in sorted(ENCODERS, key=lambda entry: entry.name):
        yield entry.name, Configuration(encoder=entry.name)
        yield from ((name, size) for name, size in SIZES.items() if size.encoder == entry.name)


def configuration(name: str) -> Configuration:
    """The configuration of that name.

    Raises:
        RecipeError: there is none; the nearest is named.
    """
    known = dict(configurations())
    if name not in known:
        raise RecipeError(f"unknown model {name!r}: {nearest(name, known)}")
    return known[name]
