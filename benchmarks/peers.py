"""Other toolkits' published networks, built from a checkout of theirs with random weights, behind Parvox's front end.

Nothing of theirs is kept here: which class of which module is built, and with what, is all that is written down.
"""

from __future__ import annotations

import copy
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from parvox.errors import ParvoxError, nearest
from parvox.models import SpeakerModel
from parvox.models.contract import EncoderOutput, SpeakerOutput
from parvox.models.frontend import Fbank, FbankSettings

_LEAST_FRAMES = 60


class Network(NamedTuple):
    """Where a network is found, and what it is built with."""

    module: str
    name: str
    options: dict[str, Any]


_WESPEAKER = {"feat_dim": 80, "embed_dim": 192}
_SPEAKERLAB = {"feat_dim": 80, "embedding_size": 192}
NETWORKS: dict[str, dict[str, Network]] = {
    "wespeaker": {
        "ECAPA-TDNN 512": Network(
            "wespeaker.models.ecapa_tdnn", "ECAPA_TDNN_GLOB_c512", {**_WESPEAKER, "pooling_func": "ASTP"}
        ),
        "ECAPA-TDNN 1024": Network(
            "wespeaker.models.ecapa_tdnn", "ECAPA_TDNN_GLOB_c1024", {**_WESPEAKER, "pooling_func": "ASTP"}
        ),
        "ResNet34": Network("wespeaker.models.resnet", "ResNet34", {**_WESPEAKER, "embed_dim": 256}),
        "CAM++": Network("wespeaker.models.campplus", "CAMPPlus", {**_WESPEAKER, "embed_dim": 512}),
        "x-vector": Network("wespeaker.models.tdnn", "XVEC", {**_WESPEAKER, "embed_dim": 512}),
    },
    "3dspeaker": {
        "CAM++": Network("speakerlab.models.campplus.DTDNN", "CAMPPlus", {**_SPEAKERLAB, "embedding_size": 512}),
        "ERes2Net-base": Network("speakerlab.models.eres2net.ERes2Net", "ERes2Net", {**_SPEAKERLAB, "m_channels": 32}),
        "ERes2NetV2": Network("speakerlab.models.eres2net.ERes2NetV2", "ERes2NetV2", _SPEAKERLAB),
    },
}
"""Networks by toolkit; with the sizes of their published recipes."""


class PeerModel(SpeakerModel):
    """A network of another toolkit, features (batch, frames, bins) in, embedding out, as a speaker model of ours.

    Args:
        network: Gives (batch, embedding_dim), or a tuple whose last part that is.
        embedding_dim: Size of the embedding.
    """

    def __init__(self, network: nn.Module, embedding_dim: int) -> None:
        nn.Module.__init__(self)
        features = FbankSettings()
        settings: Any = types.SimpleNamespace(features=features, embedding_dim=embedding_dim)
        self.settings = settings
        self.frontend = Fbank(features)
        encoder: Any = network  # the name by which int8 export knows what to quantise
        self.encoder = encoder

    @property
    def min_samples(self) -> int:
        """More than any of the networks needs."""
        return self.settings.features.samples(_LEAST_FRAMES)

    def embed_features(self, features: Tensor, lengths: Tensor | None = None) -> SpeakerOutput:
        """Features (batch, frames, bins) to the embedding; rows are taken as full, as the networks do."""
        result: Any = self.encoder(features)
        embedding = result[-1] if isinstance(result, tuple) else result
        return SpeakerOutput(embedding=embedding, encoded=EncoderOutput(features.transpose(1, 2)))

    def for_inference(self) -> SpeakerModel:
        """A copy in evaluation mode."""
        return copy.deepcopy(self).eval()


def peers(given: list[str]) -> Iterator[tuple[str, str, Callable[[], SpeakerModel]]]:
    """Toolkit, network and how to build it, for checkouts given as TOOLKIT=PATH.

    Raises:
        ParvoxError: a toolkit is unknown, or the folder holds no checkout of it.
    """
    for words in given:
        toolkit, _, path = words.partition("=")
        if toolkit not in NETWORKS:
            raise ParvoxError(f"--peers {words!r}: unknown toolkit {toolkit!r}: {nearest(toolkit, NETWORKS)}")
        for name, network in NETWORKS[toolkit].items():
            package = network.module.partition(".")[0]
            if not (Path(path) / package).is_dir():
                raise ParvoxError(f"--peers {words!r}: no folder {package} in it; expected a checkout of {toolkit}")
            yield toolkit, name, _builder(network, package, Path(path))


def _builder(network: Network, package: str, checkout: Path) -> Callable[[], SpeakerModel]:
    def build() -> SpeakerModel:
        # the packages' own __init__ imports what their command lines need; the networks do without
        bare = types.ModuleType(package)
        bare.__path__ = [str(checkout.resolve() / package)]
        sys.modules.setdefault(package, bare)
        module = importlib.import_module(network.module)
        dim = network.options.get("embed_dim") or network.options["embedding_size"]
        return PeerModel(getattr(module, network.name)(**network.options), int(dim))

    return build
