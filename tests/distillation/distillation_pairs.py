"""A small model that has all that any method asks for: attention maps, a distillation token, a classifier."""

import torch

from parvox.distillation import Pair, Side, View
from parvox.losses import LOSSES
from parvox.models import ENCODERS, POOLINGS, ModelSettings, SpeakerModel
from parvox.models.frontend import FbankSettings

BINS, FRAMES = 20, 30


def make(embedding_dim=16, classes=7, seed=0, width=16, scale=32.0, shift_ms=10.0, pooling="class_distillation_token"):
    """A model and its classifier."""
    torch.manual_seed(seed)
    settings = ModelSettings(
        encoder=ENCODERS["memory_attention"].settings(
            width=width, conv_blocks=1, blocks=1, heads=2, memory_slots=8, memory_heads=1, memory_key_dim=8
        ),
        pooling=POOLINGS[pooling].settings(),
        embedding_dim=embedding_dim,
        head="linear",
        features=FbankSettings(bins=BINS, frame_shift_ms=shift_ms),
    )
    classifier = LOSSES["aam_softmax"].settings(scale=scale).build(embedding_dim, classes)
    return SpeakerModel(settings).eval(), classifier


def pair_of(student, teacher, **options):
    """What a method is built for."""
    return Pair(Side.of("the student", *student), Side.of("the teacher", *teacher), **options)


def features(batch, seed=5):
    """(batch, frames, bins)."""
    return torch.randn(batch, FRAMES, BINS, generator=torch.Generator().manual_seed(seed))


def look(side, inputs, labels):
    """A model's view of features."""
    return View.of(*side, inputs, labels)


def frozen(side):
    """The same, without gradients."""
    for part in side:
        part.requires_grad_(False)
    return side
