"""Speaker models: features, encoders, read-outs. Importing this registers every encoder and pooling."""

from __future__ import annotations

from parvox.models import (
    bc_cmt,
    cam_plus_plus,
    depthwise_tdnn,
    ecapa_tdnn,
    memory_attention,
    mobilenet_v2,
    pooling,
    pooling_mqmha,
    pooling_plane,
    redimnet2,
    resnet,
    tokens,
    xvector,
)
from parvox.models.registry import ENCODERS, POOLINGS
from parvox.models.speaker_model import ModelSettings, SpeakerModel

__all__ = [
    "ENCODERS",
    "POOLINGS",
    "ModelSettings",
    "SpeakerModel",
    "bc_cmt",
    "cam_plus_plus",
    "depthwise_tdnn",
    "ecapa_tdnn",
    "memory_attention",
    "mobilenet_v2",
    "pooling",
    "pooling_mqmha",
    "pooling_plane",
    "redimnet2",
    "resnet",
    "tokens",
    "xvector",
]
