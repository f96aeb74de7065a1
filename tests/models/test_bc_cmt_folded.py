"""BC-CMT for inference: the same function as the trained network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from parvox.models.bc_cmt import BcCmt, BcCmtSettings
from parvox.models.bc_cmt_folded import FoldedBcCmt, scale_and_shift
from parvox.models.memory_attention import MemoryAttentionSettings
from parvox.models.speaker_model import ModelSettings, SpeakerModel
from parvox.models.tokens import ClassTokenSettings


def trained(**options) -> BcCmt:
    """An encoder whose every normalisation does something."""
    torch.manual_seed(11)
    encoder = BcCmtSettings(**options).build(80)
    for part in encoder.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm | nn.LayerNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.3)
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
    return encoder.eval()


def test_is_made_where_the_network_is():
    """A tensor that were made on the processor would not go with those of another device."""
    folded = trained().to("meta").for_inference()
    assert isinstance(folded, FoldedBcCmt)
    assert {each.device.type for each in (*folded.parameters(), *folded.buffers())} == {"meta"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": "small", "blocks": (1, 1, 1, 1)},
        {"groups": 2, "sub_bands": 1, "blocks": (1, 2, 1, 1), "heads": (2, 2, 2, 2)},
        {"reductions": (1, 3, 1, 2), "expansion": 3, "blocks": (2, 1, 1, 1)},
    ],
)
def test_agrees_with_the_trained_network(options):
    encoder = trained(**options)
    folded = encoder.for_inference()
    assert isinstance(folded, FoldedBcCmt)
    for name in ("frames_dim", "frame_bins", "time_stride", "min_frames"):
        assert getattr(folded, name) == getattr(encoder, name), name
    lengths = torch.tensor([41, 4, 17, 30])
    features = torch.randn(4, 41, 80) * (torch.arange(41)[None, :, None] < lengths[:, None, None])
    for given in (lengths, None):
        expected, found = encoder(features, given), folded(features, given)
        scale = expected.frames.abs().max().item()
        for row in range(4):
            valid = 10 if given is None else int(expected.lengths[row])
            torch.testing.assert_close(
                found.frames[row, :, :valid], expected.frames[row, :, :valid], atol=2e-6 * scale, rtol=1e-4
            )
    assert torch.equal(encoder(features, lengths).lengths, folded(features, lengths).lengths)


def test_trained_network_and_folded_one_go_their_own_ways():
    encoder, features = trained(blocks=(1, 1, 1, 1)), torch.randn(1, 20, 80)
    expected, own = encoder(features).frames, copy.deepcopy(encoder.state_dict())
    folded = encoder.train().for_inference()
    assert all(part.training for part in encoder.modules())
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert all(torch.equal(values, own[name]) for name, values in encoder.state_dict().items())
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1)
    torch.testing.assert_close(folded(features).frames, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(encoder.eval()(features).frames, expected, atol=0.1)
    assert not any(parameter.requires_grad for parameter in folded.parameters())


@pytest.mark.parametrize(
    "options", [{"attention": "2d"}, {"broadcast_perception": False}, {"broadcast_attention": False}]
)
def test_variants_stay_as_they_are(options):
    encoder = BcCmtSettings(**options).build(80)
    assert encoder.for_inference() is encoder


def test_models_of_other_encoders_stay_equal():
    settings = MemoryAttentionSettings(width=16, heads=2, memory_slots=8, memory_heads=2, memory_key_dim=4)
    model = SpeakerModel(
        ModelSettings(encoder=settings, pooling=ClassTokenSettings(vectors=3), embedding_dim=8, head="linear")
    )
    waveforms = torch.randn(2, 8000) * 0.1
    ready = model.for_inference()
    assert not ready.training
    assert model.training
    torch.testing.assert_close(ready(waveforms).embedding, model.eval()(waveforms).embedding)


def test_scale_and_shift():
    norm = trained().stages[0].norm
    values = torch.randn(1, norm.num_features, 9)
    scale, shift = scale_and_shift(norm)
    torch.testing.assert_close((values * scale[:, None] + shift[:, None]).float(), norm(values))
