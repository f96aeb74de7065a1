"""Every encoder with every pooling: one contract, tested once for all of them.

A pooling that asks for what an encoder does not have (a place for tokens, a frequency axis) refuses it with one clear
line; those pairs are tested for just that.
"""

from __future__ import annotations

import copy
import itertools

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
from torch import nn

from parvox.errors import RecipeError
from parvox.models import ENCODERS, POOLINGS, ModelSettings, SpeakerModel

ENCODER_NAMES = [entry.name for entry in ENCODERS]
EACH_ONCE = [(entry.name, entry.settings.default_pooling) for entry in ENCODERS]


def split_pairs() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """All (encoder, pooling), those that go together and those that are refused."""
    good, bad = [], []
    for encoder in ENCODERS:
        built = encoder.settings().build(80)
        for pooling in POOLINGS:
            try:
                pooling.settings().build(built)
            except RecipeError:
                bad.append((encoder.name, pooling.name))
            else:
                good.append((encoder.name, pooling.name))
    return good, bad


GOOD, BAD = split_pairs()
each_pair = pytest.mark.parametrize(("encoder", "pooling"), GOOD)


# Exporting takes time by the number of layers: fewer of the same kinds.
FEWER_LAYERS = {
    "bc_cmt": {"blocks": (1, 1, 1, 1)},
    "cam_plus_plus": {"layers": (2, 2, 1)},
    "depthwise_tdnn": {"dilations": (1, 2)},
    "memory_attention": {"blocks": 1},
    "resnet34": {"blocks": (1, 1, 1, 1)},
}
# The same for all that the softmax weighs. BC-CMT's published number of parameters includes them.
CANCELLED_BY_SOFTMAX = ("attention.key.bias", "pooling.bin_scores.bias", "pooling.time_scores.bias")
LEAST = 1e-6  # of the largest gradient, far above what rounding leaves
QUICK_EXPORTS = {("xvector", "mqmha"), ("memory_attention", "class_token"), ("ecapa_tdnn", "attentive_statistics")}


def build(encoder: str, pooling: str, **fields: object) -> SpeakerModel:
    """The model of these two with all else at its defaults, but for the encoder's `fields`."""
    settings = ENCODERS[encoder].settings(**fields)
    torch.manual_seed(1)
    return SpeakerModel(
        ModelSettings(
            encoder=settings,
            pooling=POOLINGS[pooling].settings(),
            embedding_dim=settings.default_embedding_dim,
            head=settings.default_head,
        )
    )


def waveforms(batch: int, samples: int, seed: int = 0) -> torch.Tensor:
    """Noise with a spectrum and loudness that change, so that frames and rows differ."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, samples, generator=generator)
    tilt = torch.linspace(0, 0.95, batch)[:, None]
    noise[:, 1:] += tilt * noise[:, :-1]
    return 0.1 * noise * (1.1 + torch.sin(torch.arange(samples) / 1700 + torch.arange(batch)[:, None]))


def settled(encoder: str, pooling: str, **fields: object) -> SpeakerModel:
    """A model whose normalisations have seen data, as after training, in evaluation mode."""
    model = build(encoder, pooling, **fields)
    norms = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None  # the plain average over all batches
    model.train()
    with torch.no_grad():
        for seed in (1, 2):
            model(waveforms(3, model.settings.features.samples(model.encoder.min_frames + 60), seed))
    return model.eval()


def test_defaults_and_plain_poolings_go_with_every_encoder():
    plain = ("mean", "statistics", "attentive_statistics", "mqmha")
    assert set(EACH_ONCE) <= set(GOOD)
    assert set(itertools.product(ENCODER_NAMES, plain)) <= set(GOOD)


@pytest.mark.parametrize(("encoder", "pooling"), BAD)
def test_a_refusal_has_a_reason(encoder, pooling):
    built = ENCODERS[encoder].settings().build(80)
    with pytest.raises(RecipeError, match=pooling) as caught:
        build(encoder, pooling)
    reasons = {"token": not built.accepts_tokens, "frequency": built.frame_bins == 1}
    assert any(true and word in str(caught.value) for word, true in reasons.items()), str(caught.value)


@each_pair
def test_gradients_reach_every_parameter(encoder, pooling):
    """With normalisations that are fixed: those of a batch cancel shifts in front of them, all but for rounding."""
    model = settled(encoder, pooling)
    samples = model.settings.features.samples(model.encoder.min_frames + 60)
    embedding = model(waveforms(4, samples)).embedding
    assert embedding.shape == (4, model.settings.embedding_dim)
    pull = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(2))
    (embedding * pull).sum().backward()
    pulls = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        pulls[name] = float(parameter.grad.abs().max())
    largest = max(pulls.values())
    cancelled = {name for name in pulls if name.endswith(CANCELLED_BY_SOFTMAX)}
    for name, found in pulls.items():
        assert (found < 1e-5 * largest) if name in cancelled else (found > LEAST * largest), (name, found / largest)


@each_pair
def test_bf16_training_and_inference_stay_finite(encoder, pooling):
    model = build(encoder, pooling)
    samples = model.settings.features.samples(model.encoder.min_frames + 50)
    batch = waveforms(3, samples)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embedding = model.train()(batch).embedding
        embedding.float().square().mean().backward()
        masked = model.eval()(batch, torch.tensor([samples, samples - 1600, samples - 2345])).embedding
    assert torch.isfinite(embedding).all()
    assert torch.isfinite(masked).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@each_pair
def test_alone_equals_padded_in_a_batch(encoder, pooling):
    """Rows of the shortest length, odd ones and the full one; embeddings compared at length 1.

    In float64, where what is left of padding could not hide among rounding errors.
    """
    model = settled(encoder, pooling).double()
    shortest = model.min_samples
    counts = [shortest, shortest + 160, shortest + 1777, shortest + 4001, shortest + 8000]
    batch = waveforms(len(counts), max(counts) + 900, seed=7).double()
    spoilt = batch.clone()
    for row, count in enumerate(counts):
        batch[row, count:] = 0
    with torch.no_grad():
        together = model(batch, torch.tensor(counts))
        unclean = model(spoilt, torch.tensor(counts))  # what stands in the padding must not matter either
        for row, count in enumerate(counts):
            alone = model(batch[row : row + 1, :count])
            assert torch.isfinite(alone.embedding).all()
            expected = nn.functional.normalize(alone.embedding[0], dim=0)
            for output in (together, unclean):
                found = nn.functional.normalize(output.embedding[row], dim=0)
                torch.testing.assert_close(found, expected, atol=1e-9, rtol=0, msg=lambda m, n=count: f"{n}: {m}")
            assert together.encoded.lengths[row] == alone.encoded.frames.shape[2]
    assert together.encoded.frames.shape[1] == model.encoder.frames_dim


@each_pair
def test_full_lengths_equal_no_lengths(encoder, pooling):
    model = settled(encoder, pooling)
    batch = waveforms(2, model.min_samples + 5000, seed=3)
    with torch.no_grad():
        without = model(batch)
        full = model(batch, torch.tensor([batch.shape[1]] * 2))
    assert without.encoded.lengths is None
    assert full.encoded.lengths.tolist() == [full.encoded.frames.shape[2]] * 2
    torch.testing.assert_close(
        nn.functional.normalize(full.embedding), nn.functional.normalize(without.embedding), atol=1e-5, rtol=0
    )


@each_pair
def test_weights_survive_safetensors(encoder, pooling):
    model = settled(encoder, pooling)
    data = safetensors.torch.save(model.state_dict())
    other = build(encoder, pooling).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    batch = waveforms(2, model.min_samples + 3000)
    with torch.no_grad():
        expected = model(batch).embedding
        assert not torch.allclose(other(batch).embedding, expected)
        other.load_state_dict(safetensors.torch.load(data))
        assert torch.equal(other(batch).embedding, expected)


@pytest.mark.parametrize("encoder", ENCODER_NAMES)
def test_utterances_differ_and_frames_are_read(encoder):
    """An embedding depends on its own waveform, also on the last valid frame, and on no other row."""
    model = settled(encoder, ENCODERS[encoder].settings.default_pooling)
    batch = waveforms(2, model.min_samples + 6000, seed=5)
    changed = batch.clone()
    changed[1, -1600:] *= -0.3
    with torch.no_grad():
        first, second = model(batch).embedding, model(changed).embedding
    torch.testing.assert_close(first[0], second[0], atol=1e-4, rtol=1e-4)
    assert nn.functional.cosine_similarity(first[1], second[1], dim=0) < 0.99999
    assert nn.functional.cosine_similarity(first[0], first[1], dim=0) < 0.9999


@pytest.mark.parametrize("encoder", ENCODER_NAMES)
def test_a_copy_is_independent(encoder):
    settings = ENCODERS[encoder].settings()
    built = settings.build(80)
    copied = copy.deepcopy(built)
    with torch.no_grad():
        next(copied.parameters()).zero_()
    assert next(built.parameters()).abs().max() > 0
    assert hash(settings) == hash(ENCODERS[encoder].settings())  # settings are values


@pytest.mark.parametrize(
    ("encoder", "pooling"),
    [pair if pair in QUICK_EXPORTS else pytest.param(*pair, marks=pytest.mark.slow) for pair in GOOD],
)
def test_export_agrees(encoder, pooling):
    """The exported graph, at batch sizes and lengths other than those it was traced with."""
    from parvox.export.onnx_graph import to_onnx

    model = settled(encoder, pooling, **FEWER_LAYERS.get(encoder, {}))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(to_onnx(model).SerializeToString(), options)
    for batch, count in ((1, model.min_samples), (1, 32_001), (3, model.min_samples + 13_333)):
        waveform = waveforms(batch, count, seed=count)
        lengths = torch.full((batch,), count)
        lengths[-1] = max(model.min_samples, count - 2222)
        with torch.no_grad():
            expected = nn.functional.normalize(model(waveform, lengths).embedding).numpy()
        found = session.run(None, {"waveform": waveform.numpy(), "lengths": lengths.numpy()})[0]
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
