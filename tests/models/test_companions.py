"""CAM++, ReDimNet2, MobileNetV2 and the x-vector at published sizes: parameters, arithmetic, and their own parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from parvox.errors import RecipeError
from parvox.models import POOLINGS, ModelSettings, SpeakerModel
from parvox.models.cam_plus_plus import CamPlusPlus, CamPlusPlusSettings, segment_means
from parvox.models.cost import count_frame_macs, count_parameters
from parvox.models.frontend import FbankSettings
from parvox.models.mobilenet_v2 import MobileNetV2Settings
from parvox.models.redimnet2 import ReDimNet2Settings
from parvox.models.xvector import XVectorSettings


def model(encoder, bins: int = 80, head: str | None = None) -> SpeakerModel:
    return SpeakerModel(
        ModelSettings(
            encoder=encoder,
            pooling=POOLINGS[encoder.default_pooling].settings(),
            embedding_dim=encoder.default_embedding_dim,
            head=head or encoder.default_head,
            features=FbankSettings(bins=bins),
        )
    )


def normalised(made: SpeakerModel, frames: int) -> int:
    """Numbers that go through normalisations; counters such as thop add four operations for each."""
    total = 0

    def count(_: nn.Module, __: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel()

    kinds = nn.BatchNorm1d | nn.BatchNorm2d
    hooks = [part.register_forward_hook(count) for part in made.modules() if isinstance(part, kinds)]
    with torch.no_grad():
        made.eval().embed_features(torch.zeros(1, frames, made.settings.features.bins))
    for hook in hooks:
        hook.remove()
    return total


def test_xvector_at_the_papers_size():
    """WeSpeaker: 4.61 M with both layers of the embedding head."""
    assert count_parameters(model(XVectorSettings(), head="linear_relu_bn_linear")) == pytest.approx(4.61e6, rel=0.02)


def test_cam_plus_plus_agrees_with_published_figures():
    """WeSpeaker: 7.18 M, 1.15 G for 200 frames; 3D-Speaker: 7.2 M."""
    made = model(CamPlusPlusSettings())
    assert count_parameters(made) == pytest.approx(7.18e6, rel=0.01)
    # There every frame computes its gate, here every segment of 100 does, to the same effect: of 100 frames (after
    # the stride) 99 are saved in each of 52 layers. And the figure counts normalisations.
    saved = 99 * 52 * (128 * 64 + 64 * 32)
    total = count_frame_macs(made, 200) + saved + 4 * normalised(made, 200)
    assert total == pytest.approx(1.15e9, rel=0.02)


@pytest.mark.parametrize(
    ("size", "parameters", "macs"), [("b0", 1.1e6, 0.33e9), ("b1", 2.1e6, 0.56e9), ("b2", 3.6e6, 0.95e9)]
)
def test_redimnet2_agrees_with_published_figures(size, parameters, macs):
    """PalabraAI/redimnet2, README: with 72 bins, for 200 frames."""
    made = model(ReDimNet2Settings(size=size), bins=72)
    # The published counts leave out the weights of the weighted sums: that brings B0 to B6 alike to their figures.
    sums = sum(value.numel() for name, value in made.named_parameters() if name.endswith("scores"))
    assert count_parameters(made) - sums == pytest.approx(parameters, rel=0.02)
    # As for ECAPA-TDNN, the pooling computes what mean and deviation contribute once instead of 200 times. The
    # figures are rounded to 0.01 G, which is 3 % of B0's.
    saved = 199 * 2 * made.encoder.frames_dim * 128
    assert count_frame_macs(made, 200) + saved == pytest.approx(macs, abs=0.02 * macs + 0.005e9)


def test_mobilenet_v2_has_the_papers_parameters():
    """torchvision's mobilenet_v2: 2,223,872 before its classifier, with three input channels where ours has one."""
    built = MobileNetV2Settings().build(80)
    assert count_parameters(built) == 2_223_872 - 2 * 9 * 32


def test_mobilenet_v2_halves_time_as_often_as_asked():
    for stride in (1, 2, 4, 8, 16, 32):
        built = MobileNetV2Settings(width=0.1, frames_dim=16, time_stride=stride).build(80).eval()
        frames = built(torch.zeros(1, 97, 80)).frames
        assert frames.shape == (1, 16, -(-97 // stride))
        assert built.time_stride == stride


def test_mobilenet_v2_is_smaller_when_narrow():
    assert count_parameters(model(MobileNetV2Settings(width=0.5, frames_dim=512))) < 1_000_000


@pytest.mark.parametrize("lengths", [None, [250, 101, 100, 7]])
def test_segment_means_equal_direct_loops(lengths):
    frames = torch.randn(4, 3, 250, generator=torch.Generator().manual_seed(0))
    found = segment_means(frames, None if lengths is None else torch.tensor(lengths), 100)
    assert found.shape == (4, 3, 3)
    for row, length in enumerate(lengths or [250] * 4):
        for segment in range(3):
            part = frames[row, :, :length][:, 100 * segment : 100 * segment + 100]
            expected = part.mean(1) if part.shape[1] else torch.zeros(3)
            torch.testing.assert_close(found[row, :, segment], expected)


def test_cam_plus_plus_pads_without_a_trace_across_segments():
    built = CamPlusPlus(CamPlusPlusSettings(layers=(2, 1), dilations=(1, 2), segment=20), 80).eval()
    lengths = [203, 81, 80, 79, 12]
    features = torch.randn(5, 203, 80, generator=torch.Generator().manual_seed(3))
    for row, length in enumerate(lengths):
        features[row, length:] = 0
    with torch.no_grad():
        together = built(features, torch.tensor(lengths))
        for row, length in enumerate(lengths):
            alone = built(features[row : row + 1, :length]).frames[0]
            assert together.lengths[row] == alone.shape[1]
            found = together.frames[row, :, : alone.shape[1]]
            torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-4)


def test_cam_plus_plus_gates_by_context():
    """A change far away, in another segment, reaches a frame only through the utterance's mean."""
    built = CamPlusPlus(CamPlusPlusSettings(layers=(1,), dilations=(1,), segment=10), 80).eval()
    features = torch.randn(1, 200, 80, generator=torch.Generator().manual_seed(3))
    changed = features.clone()
    changed[:, 150:] *= 3
    with torch.no_grad():
        moved = (built(features).frames - built(changed).frames)[0, :, :50].abs()
    assert 0 < moved.max() < 1


def test_redimnet2_drops_what_does_not_fill_a_step():
    built = ReDimNet2Settings().build(72).eval()
    features = torch.randn(1, 43, 72, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, cut = built(features), built(features[:, :40])
        padded = built(features, torch.tensor([43]))
    assert whole.frames.shape[2] == 40
    assert torch.equal(whole.frames, cut.frames)
    assert padded.lengths.tolist() == [40]
    torch.testing.assert_close(padded.frames, whole.frames, atol=1e-5, rtol=1e-5)


def test_redimnet2_takes_any_number_of_bins():
    for size, step in (("b0", 8), ("b1", 8), ("b2", 12)):
        for bins in (step, 40, 80):
            built = ReDimNet2Settings(size=size).build(bins).eval()
            frames = built(torch.randn(1, 8, bins)).frames
            assert frames.shape[1] == built.frames_dim
            assert built.frame_bins == -(-bins // step)


def test_redimnet2_attends_to_the_whole_utterance():
    built = ReDimNet2Settings().build(72).eval()
    features = torch.randn(1, 400, 72, generator=torch.Generator().manual_seed(0)).requires_grad_()
    built(features).frames[0, :, 0].sum().backward()
    assert (features.grad[0].abs().sum(1) > 0).all()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ReDimNet2Settings(size="b7"), "unknown size 'b7'"),
        (lambda: MobileNetV2Settings(time_stride=3), "time_stride 3"),
        (lambda: MobileNetV2Settings(width=0), "width 0"),
        (lambda: CamPlusPlusSettings(layers=(1, 2)), "2 layers and 3 dilations"),
        (lambda: CamPlusPlusSettings(layers=()), r"layers \[\]"),
        (lambda: CamPlusPlusSettings(kernel=2), "kernel 2"),
        (lambda: CamPlusPlusSettings(segment=0), "segment 0"),
    ],
)
def test_bad_settings_are_refused(make, says):
    with pytest.raises(RecipeError, match=says):
        make()
