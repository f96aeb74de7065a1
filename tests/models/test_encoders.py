"""Sizes, receptive fields and bad settings of the convolutional encoders."""

from __future__ import annotations

import pytest
import torch

from parvox.errors import RecipeError
from parvox.models import ENCODERS, POOLINGS, ModelSettings, SpeakerModel
from parvox.models.depthwise_tdnn import DepthwiseTdnnSettings
from parvox.models.ecapa_tdnn import EcapaTdnnSettings, Res2Layer
from parvox.models.resnet import ResNetSettings
from parvox.models.xvector import XVectorSettings


def parameters(encoder, pooling=None, embedding_dim=None) -> int:
    model = SpeakerModel(
        ModelSettings(
            encoder=encoder,
            pooling=POOLINGS[pooling or encoder.default_pooling].settings(),
            embedding_dim=embedding_dim or encoder.default_embedding_dim,
            head=encoder.default_head,
        )
    )
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameters_agree_with_published_counts():
    """WeSpeaker, examples/voxceleb/v2/README.md."""
    assert parameters(EcapaTdnnSettings()) == pytest.approx(6.19e6, rel=0.01)
    assert parameters(EcapaTdnnSettings(channels=1024)) == pytest.approx(14.65e6, rel=0.01)
    assert parameters(ResNetSettings()) == pytest.approx(6.63e6, rel=0.01)
    assert parameters(ResNetSettings(blocks=(6, 16, 48, 3), block="bottleneck")) == pytest.approx(23.79e6, rel=0.01)
    assert parameters(ResNetSettings(blocks=(10, 20, 64, 3), block="bottleneck")) == pytest.approx(28.62e6, rel=0.01)


def test_the_small_student_is_under_one_million():
    assert parameters(DepthwiseTdnnSettings()) < 1_000_000


def reach(encoder, frames: int, at: int) -> list[int]:
    """Input frames on which output frame `at` depends, by gradients."""
    built = encoder.build(80).eval()
    features = torch.randn(1, frames, 80, generator=torch.Generator().manual_seed(0)).requires_grad_()
    built(features).frames[0, :, at].sum().backward()
    return features.grad[0].abs().sum(1).nonzero().squeeze(1).tolist()


def test_xvector_sees_its_published_context():
    """Layers of 5, 3 (2 apart), 3 (3 apart) frames: t-7 to t+7; nothing is padded."""
    assert reach(XVectorSettings(), 40, 10) == list(range(10, 25))
    built = XVectorSettings().build(80).eval()
    assert built.min_frames == 15
    assert built(torch.zeros(1, 15, 80)).frames.shape == (1, 1500, 1)


def test_resnet_reaches_as_far_as_its_kernels_say():
    """2 frames for the stem, then two 3×3 kernels a block, each twice as wide after a halving."""
    stride, field = 1, 3
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            field += 2 * stride
            if stage and block == 0:
                stride *= 2
            field += 2 * stride
    seen = reach(ResNetSettings(base_channels=4), 600, 37)
    assert max(seen) - min(seen) + 1 == field
    assert ResNetSettings(base_channels=4).build(80).time_stride == stride == 8


def test_resnet_frame_bins_follow_odd_bins():
    for bins in (80, 81, 40, 7):
        built = ResNetSettings(base_channels=2, blocks=(1, 1, 1, 1)).build(bins).eval()
        frames = built(torch.zeros(1, 33, bins)).frames
        assert frames.shape == (1, built.frames_dim, 5)
        assert built.frames_dim == 16 * built.frame_bins


def test_frames_are_flattened_channels_major():
    """Reading back (channels, bins): a change in low bins alone moves low bins most."""
    built = ResNetSettings(base_channels=4, blocks=(1, 1)).build(80).eval()
    quiet, loud = torch.zeros(1, 30, 80), torch.zeros(1, 30, 80)
    loud[:, :, :8] = 5.0
    with torch.no_grad():
        moved = (built(loud).frames - built(quiet).frames).abs().unflatten(1, (-1, built.frame_bins)).sum((0, 1, 3))
    assert moved[:4].min() > 0
    assert moved[-20:].max() == 0


def test_res2_layer_passes_its_last_part_and_chains_the_others():
    layer = Res2Layer(EcapaTdnnSettings(channels=16, scale=4), 2).eval()
    frames = torch.randn(1, 16, 20, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = layer(frames)
        first = layer.convs[0](frames[:, :4])
        second = layer.convs[1](frames[:, 4:8] + first)
    assert torch.equal(out[:, 12:], frames[:, 12:])
    torch.testing.assert_close(out[:, :8], torch.cat([first, second], 1))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: EcapaTdnnSettings(channels=100), "scale 8 with 100 channels"),
        (lambda: EcapaTdnnSettings(kernel=4), "kernel 4"),
        (lambda: EcapaTdnnSettings(dilations=()), r"dilations \[\]"),
        (lambda: EcapaTdnnSettings(frames_dim=0), "frames_dim 0"),
        (lambda: ResNetSettings(blocks=(3, 0)), r"blocks \[3, 0\]"),
        (lambda: ResNetSettings(base_channels=-1), "base_channels -1"),
        (lambda: XVectorSettings(kernels=(5, 3)), "5 channels, 2 kernels and 5 dilations"),
        (lambda: XVectorSettings(channels=(1, 2, 3, 4, 0)), "channels"),
        (lambda: DepthwiseTdnnSettings(kernel=6), "kernel 6"),
        (lambda: DepthwiseTdnnSettings(se_dim=-1), "se_dim -1"),
        (lambda: ENCODERS["ecapa"], "did you mean 'ecapa_tdnn'"),
    ],
)
def test_bad_settings_are_refused(make, says):
    with pytest.raises(RecipeError, match=says):
        make()
