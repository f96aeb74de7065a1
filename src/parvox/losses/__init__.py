"""What a model is trained on: telling training speakers apart, with a margin."""

from __future__ import annotations

from parvox.losses import margin
from parvox.losses.registry import LOSSES, LossSettings, SpeakerLoss

__all__ = ["LOSSES", "LossSettings", "SpeakerLoss", "margin"]
