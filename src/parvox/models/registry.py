"""The encoders and poolings a recipe can name."""

from __future__ import annotations

from parvox.models.contract import EncoderSettings, PoolingSettings
from parvox.registry import Registry

ENCODERS: Registry[EncoderSettings] = Registry("model")
POOLINGS: Registry[PoolingSettings] = Registry("pooling")
