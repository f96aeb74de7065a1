"""Parameters and multiply-accumulates against hooks on the layers and against published figures."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from parvox.errors import RecipeError
from parvox.losses import LOSSES
from parvox.models import ENCODERS, POOLINGS, ModelSettings, SpeakerModel
from parvox.models.cost import cost, count_feature_macs, count_frame_macs, count_macs, count_parameters
from parvox.models.ecapa_tdnn import EcapaTdnnSettings
from parvox.models.resnet import ResNetSettings
from parvox.models.xvector import XVectorSettings


def model(encoder, pooling=None) -> SpeakerModel:
    return SpeakerModel(
        ModelSettings(
            encoder=encoder,
            pooling=POOLINGS[pooling or encoder.default_pooling].settings(),
            embedding_dim=encoder.default_embedding_dim,
            head=encoder.default_head,
        )
    )


def macs_by_hooks(made: SpeakerModel, frames: int) -> int:
    """Outputs times inputs per output, layer by layer."""
    total = 0

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features
        else:
            total += output.numel() * layer.in_channels // layer.groups * math.prod(layer.kernel_size)

    hooks = [
        layer.register_forward_hook(count)
        for layer in made.modules()
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        made.eval().embed_features(torch.zeros(1, frames, made.settings.features.bins))
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize("name", ["ecapa_tdnn", "resnet34", "xvector", "depthwise_tdnn"])
@pytest.mark.parametrize("pooling", ["statistics", "attentive_statistics", "mqmha"])
def test_macs_equal_a_count_by_hooks(name, pooling):
    made = model(ENCODERS[name].settings(), pooling)
    assert count_frame_macs(made, 61) == macs_by_hooks(made, 61)


def test_macs_agree_with_published_figures():
    """WeSpeaker, examples/voxceleb/v2/README.md, for 200 frames."""
    assert count_frame_macs(model(XVectorSettings()), 200) == pytest.approx(0.53e9, rel=0.02)
    assert count_frame_macs(model(ResNetSettings()), 200) == pytest.approx(4.55e9, rel=0.02)
    for channels, published in ((512, 1.04e9), (1024, 2.65e9)):
        made = model(EcapaTdnnSettings(channels=channels))
        # There the attention's layer is applied to [frame; mean; deviation] of every frame; here the part of mean
        # and deviation, equal for all frames, is computed once: 199 times 2 · 1536 · 128 fewer, the same result.
        saved = 199 * 2 * 1536 * 128
        assert count_frame_macs(made, 200) + saved == pytest.approx(published, rel=0.02)


def test_one_second_is_98_frames():
    made = model(XVectorSettings())
    assert count_macs(made) == count_macs(made, 1.0) == count_frame_macs(made, 98)
    assert count_macs(made, 2.0) == count_frame_macs(made, 198)


def test_attention_is_counted_on_any_path():
    """Fused attention must not escape the counter."""

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = model(XVectorSettings(channels=(8, 8, 8, 8, 8)))
            self.settings = self.base.settings

        def embed_features(self, features: torch.Tensor) -> torch.Tensor:
            states = torch.zeros(1, 2, features.shape[1], 16)
            return nn.functional.scaled_dot_product_attention(states, states, states)

    assert count_frame_macs(Attending(), 50) == 2 * (2 * 50 * 50 * 16)


def test_features_are_counted_apart():
    made = model(XVectorSettings())
    # 98 frames: 200 folded samples by cosines and by sines, then those bins by 80 mel bins.
    bins = made.frontend.cosine.shape[1]
    assert count_feature_macs(made) == 98 * (2 * 200 * bins + bins * 80)


def test_cost_gathers_all_and_leaves_the_model_as_it_was():
    made = model(EcapaTdnnSettings(channels=64, frames_dim=96)).train()
    made.pooling.eval()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    found = cost(made, 1.5)
    assert (found.parameters, found.seconds) == (count_parameters(made), 1.5)
    assert found.parameters == sum(value.numel() for value in made.parameters())
    assert (found.macs, found.feature_macs) == (count_macs(made, 1.5), count_feature_macs(made, 1.5))
    assert made.training
    assert made.encoder.training
    assert not made.pooling.training
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())


def test_too_few_seconds_are_refused():
    with pytest.raises(RecipeError, match=r"0\.1 s given, but this model needs at least 0\.165 s"):
        count_macs(model(XVectorSettings()), 0.1)


def test_the_table_in_the_documentation_is_true():
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| (\d+) \| (\w+) \| (\d+) \|", page, re.MULTILINE)
    assert [row[0] for row in rows] == sorted(entry.name for entry in ENCODERS)
    for name, parameters, macs, pooling, dim in rows:
        settings = ENCODERS[name].settings()
        assert (settings.default_pooling, settings.default_embedding_dim) == (pooling, int(dim))
        found = cost(model(settings))
        assert f"{found.parameters / 1e6:.3f}" == parameters, name
        assert f"{found.macs / 1e6:.0f}" == macs, name
    for kind in (POOLINGS, LOSSES):
        assert all(f"`{entry.name}`" in page for entry in kind)
