"""BC-CMT: sizes from the published tables, units against loops, padding, options."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from parvox.errors import RecipeError
from parvox.models.bc_cmt import BcCmtSettings
from parvox.models.bc_cmt_blocks import (
    BroadcastUnit,
    FeedForward,
    FrequencyResidual,
    GroupedLinear,
    Padding,
    PlaneAttention,
    TemporalAttention,
    normalise,
    patches,
)
from parvox.models.pooling_plane import FsdAspSettings
from parvox.models.speaker_model import ModelSettings, SpeakerModel

MAP_SIZES = {1: (1, 50, 7), 2: (2, 25, 7), 3: (4, 25, 13), 4: (8, 25, 25)}  # for 100 features
PLAIN = {"broadcast_perception": False, "broadcast_attention": False, "broadcast_feed_forward": False, "sub_bands": 1}
VARIANTS = [
    {},
    {"attention": "2d", "groups": 4},
    {"groups": 2, "sub_bands": 1},
    PLAIN,
    {**PLAIN, "attention": "2d"},
]


def build(**options) -> SpeakerModel:
    torch.manual_seed(3)
    return SpeakerModel(
        ModelSettings(
            encoder=BcCmtSettings(**options), pooling=FsdAspSettings(), embedding_dim=256, head="bn_linear_bn"
        )
    )


def shaken(module: nn.Module) -> nn.Module:
    """`module` in evaluation mode, its normalisations with statistics and affine maps that matter."""
    generator = torch.Generator().manual_seed(5)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm | nn.LayerNorm):
            part.weight.data.uniform_(0.5, 1.5, generator=generator)
            part.bias.data.normal_(0, 0.3, generator=generator)
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(0, 0.3, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
    return module.eval()


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def macs(model: SpeakerModel, frames: int = 100) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval().embed_features(torch.zeros(1, frames, 80))
    return counter.get_total_flops() / 2


def test_tiny_has_the_published_number_of_parameters():
    model = build()
    assert parameters(model) == 271_440
    assert parameters(model.encoder.stem) == 1_272
    assert [parameters(stage) for stage in model.encoder.stages] == [3_816, 10_768, 33_632, 117_696]
    assert parameters(model.pooling) == 37_440
    assert parameters(model.head) == 66_816


@pytest.mark.parametrize(("size", "millions", "mega_macs"), [("small", 0.825, 87), ("base", 2.78, 336)])
def test_larger_sizes(size, millions, mega_macs):
    model = build(size=size)
    assert parameters(model) / 1e6 == pytest.approx(millions, rel=2e-3)
    assert macs(model) / 1e6 == pytest.approx(mega_macs, rel=5e-3)


@pytest.mark.parametrize("channels", [8, 16, 64])
def test_parameters_of_each_unit(channels):
    """The formulas of the reconstruction: LPU 18C, SA 15C + 4(C² + C) + rC + 2C, IRFFN 4C² + 20(2C) + 2C."""
    assert parameters(BroadcastUnit(channels, 5)) == 18 * channels
    for reduction in (1, 4):
        reduced = (reduction + 2) * channels if reduction > 1 else 0
        unit = TemporalAttention(channels, 5, 2, reduction, 1, True)
        assert parameters(unit) == 15 * channels + 4 * (channels**2 + channels) + reduced
    assert parameters(FeedForward(channels, 2, 5, True)) == 4 * channels**2 + 40 * channels + 2 * channels


@pytest.mark.parametrize(
    ("frames", "mega_macs", "expected"),
    [
        (100, 23.26, {1: 0.517, 2: 0.580, 4: 0.617, 8: 0.637}),
        (98, 22.45, {1: 0.526, 2: 0.590, 4: 0.629, 8: 0.650}),  # one second here, without padding at its ends
    ],
)
def test_multiplications_of_one_second(frames, mega_macs, expected):
    tiny = macs(build(), frames)
    assert tiny / 1e6 == pytest.approx(mega_macs, abs=0.01)
    left = {groups: tiny / macs(build(attention="2d", groups=groups), frames) for groups in expected}
    assert left == pytest.approx(expected, abs=6e-4)
    assert left[4] < 1 - 0.368 < left[8]  # as published, for groups that are not


@pytest.mark.parametrize("options", [{}, {"size": "small"}, {"widths": (24, 32, 40, 48)}])
def test_maps_have_the_same_size_for_every_width(options):
    encoder = BcCmtSettings(**options).build(80).eval()
    features = torch.randn(2, 100, 80)
    assert encoder(features).attention_maps == {}
    encoder.expose_attention = True
    output = encoder(features)
    expected = {f"stage{stage}.block{block}": (2, *MAP_SIZES[stage]) for stage in MAP_SIZES for block in (1, 2, 3)}
    assert {name: tuple(values.shape) for name, values in output.attention_maps.items()} == expected
    for values in output.attention_maps.values():
        torch.testing.assert_close(values.sum(-1), torch.ones(values.shape[:-1]))
    encoder.expose_attention = False
    torch.testing.assert_close(encoder(features).frames, output.frames)


def test_maps_of_padded_rows():
    encoder = shaken(BcCmtSettings().build(80))
    encoder.expose_attention = True
    features = torch.randn(2, 101, 80)
    features[1, 37:] = 0
    with torch.no_grad():
        together = encoder(features, torch.tensor([101, 37])).attention_maps
        alone = encoder(features[1:, :37]).attention_maps
    for name, expected in alone.items():
        queries, keys = expected.shape[2:]
        torch.testing.assert_close(together[name][1:, :, :queries, :keys], expected, atol=1e-5, rtol=0)
        assert together[name][1, :, :, keys:].abs().max() == 0, name


@pytest.mark.parametrize("options", VARIANTS)
def test_every_length_alone_equals_padded(options):
    model = shaken(build(**options))
    lengths = torch.arange(4, 40)
    features = torch.randn(len(lengths), 43, 80)
    clean = torch.where(torch.arange(43)[None, :, None] < lengths[:, None, None], features, 0)
    with torch.no_grad():
        together = nn.functional.normalize(model.embed_features(clean, lengths).embedding)
        for row, length in enumerate(lengths.tolist()):
            alone = nn.functional.normalize(model.embed_features(clean[row : row + 1, :length]).embedding)
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0, msg=f"{length} frames")


@pytest.mark.parametrize("options", VARIANTS[1:])
def test_options_train(options):
    model = build(**options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embedding = model.embed_features(torch.randn(4, 50, 80)).embedding
        (embedding * torch.randn(4, 256)).sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        if not name.endswith("key.bias"):  # it shifts all of a query's scores alike: no gradient but rounding
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("options", "bins", "said"),
    [
        ({}, 64, r"\[32, 16, 8, 4\].*multiple of 5"),
        ({"sub_bands": 1}, 14, "14 feature bins"),
        ({"size": "huge"}, 80, "tiny, small or base"),
        ({"widths": (8, 16, 32)}, 80, "expected 4 numbers"),
        ({"heads": (3, 2, 4, 8)}, 80, "8 channels with 3 heads"),
        ({"attention": "2d", "groups": 16}, 80, "16 groups"),
        ({"attention": "3d"}, 80, "1d or 2d"),
        ({"expansion": 0}, 80, "expansion 0"),
    ],
)
def test_settings_that_do_not_go_together(options, bins, said):
    with pytest.raises(RecipeError, match=said):
        BcCmtSettings(**options).build(bins)


def test_other_numbers_of_bins():
    encoder = BcCmtSettings(sub_bands=1).build(60)
    assert encoder(torch.randn(2, 30, 60)).frames.shape == (2, encoder.frames_dim, 7)
    assert (encoder.frames_dim, encoder.frame_bins) == (64 * 3, 3)
    assert BcCmtSettings().build(160).frame_bins == 10


# The units, one by one, against loops over NumPy arrays.


def laid(plane: torch.Tensor) -> torch.Tensor:
    """(batch, channels, bins, time) as the units want it."""
    return plane.permute(1, 2, 0, 3).contiguous()


def unlaid(plane: torch.Tensor) -> torch.Tensor:
    return plane.permute(2, 0, 1, 3)


def sub_spectral_loop(plane: np.ndarray, norm: nn.BatchNorm1d) -> np.ndarray:
    bands = norm.num_features // plane.shape[1]
    out = np.empty_like(plane)
    height = plane.shape[2] // bands
    for channel in range(plane.shape[1]):
        for bin_ in range(plane.shape[2]):
            index = channel * bands + bin_ // height
            scale = norm.weight[index].item() / math.sqrt(norm.running_var[index].item() + norm.eps)
            mean, shift = norm.running_mean[index].item(), norm.bias[index].item()
            out[:, channel, bin_] = (plane[:, channel, bin_] - mean) * scale + shift
    return out


def frequency_loop(plane: np.ndarray, unit) -> np.ndarray:
    """y of the docstrings."""
    taps = unit.conv.weight.detach().numpy()[:, 0, :, 0]
    out = np.zeros_like(plane)
    for bin_ in range(plane.shape[2]):
        for tap in (-1, 0, 1):
            if 0 <= bin_ + tap < plane.shape[2]:
                out[:, :, bin_] += taps[:, tap + 1, None] * plane[:, :, bin_ + tap]
    return sub_spectral_loop(out, unit.norm)


def norm_loop(frames: np.ndarray, norm: nn.BatchNorm1d) -> np.ndarray:
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    return frames * scale.detach().numpy()[:, None] + shift.detach().numpy()[:, None]


def example(channels: int, bins: int, time: int) -> torch.Tensor:
    return torch.randn(2, channels, bins, time, generator=torch.Generator().manual_seed(channels + time))


def test_sub_spectral_norm_trains_on_each_channels_bands():
    plane = torch.randn(4, 3, 10, 7) * torch.arange(1, 11).view(10, 1) + 3
    out = unlaid(normalise(laid(plane), nn.BatchNorm1d(3 * 5)))
    assert out.shape == plane.shape
    for channel in range(3):
        for band in range(5):
            part = out[:, channel, 2 * band : 2 * band + 2]
            assert part.mean().item() == pytest.approx(0, abs=1e-5)
            assert part.var(unbiased=False).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalising_in_training_is_batch_normalisation(dtype):
    generator = torch.Generator().manual_seed(2)
    ours, theirs = nn.BatchNorm1d(6), nn.BatchNorm1d(6)
    for step in range(3):
        values = (torch.randn(6, 4, 5, 7, generator=generator) * 2 + step).to(dtype)
        pull = torch.randn(6, 4, 5, 7, generator=generator).to(dtype)
        results = []
        for norm, normalised in ((ours, normalise), (theirs, lambda given, norm: norm(given.flatten(1).T).T)):
            given = values.clone().requires_grad_()
            out = normalised(given, norm).reshape(values.shape)
            results.append((out, *torch.autograd.grad((out * pull).sum(), (given, norm.weight, norm.bias))))
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4 if dtype == torch.float32 else 0.05, rtol=1e-2)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()))


def test_sum_and_mean_have_the_gradients_of_their_formula_twice():
    unit = FrequencyResidual(4, 5).double()
    plane = torch.randn(4, 5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    assert torch.autograd.gradcheck(unit, (plane,))
    assert torch.autograd.gradgradcheck(unit, (plane,))


def test_training_convolves_by_other_means_but_equally():
    unit = FrequencyResidual(4, 5)
    rows = torch.randn(4, 10, 21, requires_grad=True)
    pull = torch.randn(4, 10, 21)
    results = []
    for training in (True, False):
        out = unit.train(training).convolve(rows)
        results.append((out, *torch.autograd.grad((out * pull).sum(), (rows, unit.conv.weight))))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_patches_against_a_strided_convolution():
    plane = torch.randn(2, 3, 5, 7)
    for bins, frames in ((1, 2), (2, 2), (2, 1)):
        weight = torch.randn(4, 3, bins, frames)
        expected = nn.functional.conv2d(plane, weight, stride=(bins, frames))
        cut = patches(laid(plane), bins, frames)
        torch.testing.assert_close(unlaid(torch.einsum("oi,i...->o...", weight.flatten(1), cut)), expected)


def test_broadcast_unit_against_loops():
    unit = shaken(BroadcastUnit(4, 5))
    plane = example(4, 10, 6)
    x = plane.numpy()
    y = frequency_loop(x, unit.frequency)
    mean = y.mean(2)
    taps = unit.time.weight.detach().numpy()[:, 0, 0]
    mixed = np.zeros_like(mean)
    for time in range(6):
        for tap in (-1, 0, 1):
            if 0 <= time + tap < 6:
                mixed[:, :, time] += taps[:, tap + 1] * mean[:, :, time + tap]
    z = norm_loop(mixed, unit.norm)
    z = z / (1 + np.exp(-z))
    with torch.no_grad():
        np.testing.assert_allclose(unlaid(unit(laid(plane), None)), x + y + z[:, :, None], atol=1e-5)


@pytest.mark.parametrize(("reduction", "heads", "time"), [(1, 1, 5), (1, 2, 6), (4, 2, 10), (8, 1, 5), (4, 2, 8)])
def test_temporal_attention_against_loops(reduction, heads, time):
    channels = 4
    unit = shaken(TemporalAttention(channels, 5, heads, reduction, 1, True))
    plane = example(channels, 5, time)
    x = plane.numpy().astype(np.float64)
    y = frequency_loop(x, unit.frequency)
    u = y.mean(2).transpose(0, 2, 1)  # (batch, time, channels)
    u = (u - u.mean(-1, keepdims=True)) / np.sqrt(u.var(-1, keepdims=True) + unit.norm.eps)
    u = u * unit.norm.weight.detach().numpy() + unit.norm.bias.detach().numpy()
    sources = u
    if reduction > 1:
        keys = -(-time // reduction)
        sources = np.zeros((2, keys, channels))
        for frame in range(time):
            sources[:, frame // reduction] += unit.reduce.detach().numpy()[frame % reduction] * u[:, frame]
        sources = norm_loop(sources.transpose(0, 2, 1), unit.reduce_norm).transpose(0, 2, 1)

    def linear(layer: GroupedLinear, values: np.ndarray) -> np.ndarray:
        return values @ layer.weight[0].detach().numpy() + layer.bias.detach().numpy()

    query, key, value = (
        linear(layer, values)
        for layer, values in (
            (unit.attention.query, u),
            (unit.attention.key, sources),
            (unit.attention.value, sources),
        )
    )
    width = channels // heads
    mixed, maps = np.zeros_like(u), np.zeros((2, heads, time, sources.shape[1]))
    for row in range(2):
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            for frame in range(time):
                scores = np.array([query[row, frame, part] @ k[part] for k in key[row]]) / math.sqrt(width)
                weights = np.exp(scores - scores.max())
                maps[row, head, frame] = weights / weights.sum()
                mixed[row, frame, part] = maps[row, head, frame] @ value[row, :, part]
    expected = x + y + linear(unit.attention.out, mixed).transpose(0, 2, 1)[:, :, None]
    with torch.no_grad():
        found, found_maps = unit(laid(plane), None, True)
    np.testing.assert_allclose(unlaid(found), expected, atol=1e-5)
    np.testing.assert_allclose(found_maps, maps, atol=1e-5)


def test_feed_forward_against_its_formula():
    unit = shaken(FeedForward(4, 2, 5, True))
    plane = example(4, 5, 7)

    def point(values, conv, norm):
        values = np.einsum("oc,bcft->boft", conv.weight.detach().numpy(), values)
        return norm_loop(values.reshape(2, values.shape[1], -1), norm).reshape(values.shape)

    def gelu(values):
        return values * 0.5 * (1 + np.vectorize(math.erf)(values / math.sqrt(2)))

    with torch.no_grad():
        inner = gelu(point(plane.numpy(), unit.enter, unit.enter_norm))
        inner = gelu(unlaid(unit.unit(laid(torch.from_numpy(inner).float()), None)).numpy())
        np.testing.assert_allclose(
            unlaid(unit(laid(plane), None)), plane.numpy() + point(inner, unit.leave, unit.leave_norm), atol=1e-5
        )


def test_plane_attention_without_reduction_equals_torchs_own():
    unit = shaken(PlaneAttention(8, 2, 1, 1))
    reference = nn.MultiheadAttention(8, 2, batch_first=True)
    parts = unit.attention
    with torch.no_grad():
        weights = [layer.weight[0].T for layer in (parts.query, parts.key, parts.value)]
        reference.in_proj_weight.copy_(torch.cat(weights))
        reference.in_proj_bias.copy_(torch.cat([parts.query.bias, parts.key.bias, parts.value.bias]))
        reference.out_proj.weight.copy_(parts.out.weight[0].T)
        reference.out_proj.bias.copy_(parts.out.bias)
        plane = example(8, 3, 5)
        sequence = unit.norm(plane.flatten(2).transpose(1, 2))
        expected, maps = reference(sequence, sequence, sequence, average_attn_weights=False)
        found, found_maps = unit(laid(plane), None, True)
    torch.testing.assert_close(unlaid(found), plane + expected.transpose(1, 2).view_as(plane), atol=1e-5, rtol=0)
    torch.testing.assert_close(found_maps, maps, atol=1e-5, rtol=0)


def test_plane_attention_reduces_bins_and_frames():
    unit = shaken(PlaneAttention(8, 2, 4, 1))
    plane = example(8, 10, 9)
    with torch.no_grad():
        _, maps = unit(laid(plane), None, True)
        _, padded = unit(laid(plane), Padding.of(plane, torch.tensor([9, 4])), True)
    assert maps.shape == (2, 2, 90, 3 * 3)
    torch.testing.assert_close(padded[0], maps[0])
    assert padded[1].view(2, 90, 3, 3)[..., 1:].abs().max() == 0  # only the first block of frames is valid
    torch.testing.assert_close(padded[1].sum(-1), torch.ones(2, 90))


def test_grouped_linear_is_block_diagonal():
    layer = GroupedLinear(6, 3)
    dense = torch.block_diag(*layer.weight.detach())
    values = torch.randn(2, 5, 6)
    torch.testing.assert_close(layer(values), values @ dense + layer.bias)


def test_attention_over_time_is_the_same_for_all_bins():
    unit = shaken(TemporalAttention(4, 5, 1, 2, 1, True))
    plane = example(4, 10, 6)
    with torch.no_grad():
        added = unlaid(unit(laid(plane), None, False)[0]) - plane
        added -= torch.from_numpy(frequency_loop(plane.numpy(), unit.frequency))
    torch.testing.assert_close(added, added[:, :, :1].expand_as(added), atol=1e-5, rtol=0)
