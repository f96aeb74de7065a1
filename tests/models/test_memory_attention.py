"""The encoder of memory layers: order of frames, tokens, padding, options."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from parvox.errors import RecipeError
from parvox.models.frame_classifier import FrameClassifier
from parvox.models.memory_attention import MemoryAttentionSettings
from parvox.models.pooling import MeanPoolingSettings
from parvox.models.positions import sinusoids
from parvox.models.speaker_model import ModelSettings, SpeakerModel
from parvox.models.tokens import ClassDistillationTokenSettings, ClassTokenSettings

SMALL = {"width": 16, "heads": 2, "memory_slots": 9, "memory_heads": 2, "memory_key_dim": 4, "memory_top_k": 2}
VARIANTS = [
    {},
    {"memory": "product_key", "positions": "none"},
    {"memory": "feed_forward", "norm": "before"},
    {"positions": "phonetic", "phones": 7, "stride": 2},
    {"stride": 3, "kernel": 5},
]


def build(pooling=None, **options) -> SpeakerModel:
    torch.manual_seed(4)
    model = SpeakerModel(
        ModelSettings(
            encoder=MemoryAttentionSettings(**{**SMALL, **options}),
            pooling=pooling or ClassTokenSettings(),
            embedding_dim=16,
            head="none",
        )
    ).eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
        if isinstance(part, nn.LayerNorm):
            part.weight.data.uniform_(0.5, 1.5)
            part.bias.data.normal_(0, 0.3)
    for part in getattr(model.pooling, "parts", []):  # as big as frames, so that what they say is not drowned
        part.vectors.data.normal_()
    return model


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((nn.functional.normalize(first) - nn.functional.normalize(second)).norm(dim=1).max())


@pytest.mark.parametrize("memory", ["key_value", "product_key", "feed_forward"])
def test_mean_of_frames_does_not_know_their_order_without_positions(memory):
    features = torch.randn(3, 20, 80)
    shuffled = features[:, torch.randperm(20, generator=torch.Generator().manual_seed(1))]
    free = build(MeanPoolingSettings(), memory=memory, positions="none", kernel=1)
    with torch.no_grad():
        given, permuted = free.embed_features(features), free.embed_features(shuffled)
        torch.testing.assert_close(given.embedding, permuted.embedding, atol=1e-5, rtol=0)
        assert (given.encoded.frames - permuted.encoded.frames).abs().max() > 0.1  # they did move


@pytest.mark.parametrize("pooling", [ClassTokenSettings(), ClassDistillationTokenSettings(vectors=3)])
def test_a_token_knows_the_order_of_frames_by_positions(pooling):
    features = torch.randn(3, 20, 80)
    for positions, differs in (("none", False), ("sinusoidal", True)):
        model = build(pooling, positions=positions, kernel=1)
        with torch.no_grad():
            gap = distance(model.embed_features(features).embedding, model.embed_features(features.flip(1)).embedding)
        assert (gap > 1e-3) if differs else (gap < 1e-5), positions


@pytest.mark.parametrize("options", VARIANTS)
def test_every_length_alone_equals_padded(options):
    model = build(ClassDistillationTokenSettings(), **options)
    lengths = torch.arange(1, 24)
    features = torch.randn(len(lengths), 26, 80) * (torch.arange(26)[None, :, None] < lengths[:, None, None])
    with torch.no_grad():
        together = model.embed_features(features, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = model.embed_features(features[row : row + 1, :length])
            assert distance(together.embedding[row : row + 1], alone.embedding) < 1e-5
            frames = alone.encoded.frames.shape[2]
            assert together.encoded.lengths[row] == frames
            torch.testing.assert_close(
                together.encoded.frames[row, :, :frames], alone.encoded.frames[0], atol=1e-5, rtol=1e-5
            )
            torch.testing.assert_close(together.encoded.tokens[row], alone.encoded.tokens[0], atol=1e-5, rtol=1e-5)


def test_maps_hold_tokens_first_and_tokens_are_never_masked():
    model = build(ClassDistillationTokenSettings())
    features = torch.randn(2, 12, 80)
    features[1, 5:] = 0
    assert model.embed_features(features).encoded.attention_maps == {}
    model.encoder.expose_attention = True
    with torch.no_grad():
        encoded = model.embed_features(features, torch.tensor([12, 5])).encoded
    assert list(encoded.attention_maps) == ["block1", "block2"]
    for values in encoded.attention_maps.values():
        assert values.shape == (2, 2, 14, 14)
        torch.testing.assert_close(values.sum(-1), torch.ones(2, 2, 14))
        assert values[:, :, :, :2].min() > 0
        assert values[1, :, :, :7].min() > 0
        assert values[1, :, :, 7:].max() == 0
    assert encoded.frames.shape == (2, 16, 12)
    assert encoded.tokens.shape == (2, 2, 16)


@pytest.mark.parametrize("norm", ["after", "before"])
def test_a_block_equals_torchs_own_transformer_layer(norm):
    """With a feed-forward layer for its memory, and torch's weights."""
    model = build(memory="feed_forward", memory_slots=32, norm=norm)
    block = model.encoder.blocks[0]
    reference = nn.TransformerEncoderLayer(
        16, 2, 32, activation="gelu", batch_first=True, norm_first=norm == "before"
    ).eval()
    renamed = {
        "self_attn.in_proj_": block.inputs,
        "self_attn.out_proj.": block.out,
        "linear1.": block.memory.enter,
        "linear2.": block.memory.leave,
        "norm1.": block.attention_norm,
        "norm2.": block.memory_norm,
    }
    reference.load_state_dict(
        {prefix + name: values for prefix, part in renamed.items() for name, values in part.state_dict().items()}
    )
    sequence = torch.randn(2, 9, 16)
    valid = torch.arange(9) < torch.tensor([9, 4])[:, None]
    with torch.no_grad():
        found, _ = block(sequence, valid[:, None, None].float().log(), False)
        expected = reference(sequence, src_key_padding_mask=~valid)
    torch.testing.assert_close(found[valid], expected[valid], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", VARIANTS)
def test_options_train_in_bf16(options):
    model = build(ClassTokenSettings(vectors=2), **options).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embedding = model.embed_features(torch.randn(6, 30, 80), torch.full((6,), 30)).embedding
        (embedding * torch.randn(6, 16)).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, name


def test_the_frame_classifier_stays_as_it_is():
    model = build(positions="phonetic", phones=5)
    classifier = model.encoder.positions.classifier
    before = {name: values.clone() for name, values in classifier.state_dict().items()}
    model.train().embed_features(torch.randn(4, 20, 80)).embedding.sum().backward()
    assert not classifier.training
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert all(torch.equal(values, before[name]) for name, values in classifier.state_dict().items())
    assert model.encoder.positions.project.weight.grad.abs().max() > 0


def test_phonetic_positions_are_projected_posteriors():
    model = build(positions="phonetic", phones=5, stride=2)
    classifier = FrameClassifier(80, 5).eval()
    model.encoder.positions.classifier.load_state_dict(classifier.state_dict())
    features = torch.randn(1, 9, 80)
    with torch.no_grad():
        posteriors = classifier(features).softmax(-1)
        torch.testing.assert_close(posteriors.sum(-1), torch.ones(1, 9))
        positions = model.encoder.positions(torch.zeros(1, 5, 16), features, None)
        torch.testing.assert_close(positions[0, 2], model.encoder.positions.project.weight @ posteriors[0, 4])


def test_sinusoids_by_their_formula():
    table = sinusoids(7, 6)
    for time in range(7):
        for channel in range(6):
            angle = time / 10000 ** ((channel - channel % 2) / 6)
            expected = math.cos(angle) if channel % 2 else math.sin(angle)
            assert table[time, channel].item() == pytest.approx(expected, abs=1e-6)
    assert sinusoids(4, 5).shape == (4, 5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"heads": 3}, "width 16 with 3 heads"),
        ({"memory_heads": 3}, "memory_heads that divide the width"),
        ({"memory": "product_key", "memory_slots": 10}, "square number"),
        ({"memory": "product_key", "memory_top_k": 4}, "at most 3"),
        ({"memory": "product_key", "memory_key_dim": 5}, "even"),
        ({"positions": "phonetic"}, "phones 0"),
        ({"phones": 4}, "phones 4 with sinusoidal"),
        ({"positions": "learned"}, "none, sinusoidal, phonetic"),
        ({"kernel": 4}, "odd"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"blocks": 0}, "blocks 0"),
    ],
)
def test_settings_that_do_not_go_together(options, said):
    with pytest.raises(RecipeError, match=said):
        MemoryAttentionSettings(**{**SMALL, **options})


class _Exported(nn.Module):
    def __init__(self, model: SpeakerModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.model.embed_features(features, lengths).embedding


@pytest.mark.slow
@pytest.mark.parametrize("options", [VARIANTS[1], VARIANTS[3]])
def test_export_of_options_agrees(options, tmp_path):
    import onnxruntime

    model = build(ClassTokenSettings(vectors=2), blocks=1, **{key: options[key] for key in options})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Exported(model).eval(),
            (torch.randn(2, 31, 80), torch.tensor([31, 20])),
            str(tmp_path / "model.onnx"),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["features", "lengths"],
            dynamic_shapes={"features": {0: "batch", 1: "frames"}, "lengths": {0: "batch"}},
        )
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for batch, frames in ((1, 4), (3, 50)):
        features, lengths = torch.randn(batch, frames, 80), torch.full((batch,), frames)
        lengths[-1] -= 2
        features[-1, -2:] = 0
        found = session.run(None, {"features": features.numpy(), "lengths": lengths.numpy()})[0]
        with torch.no_grad():
            expected = model.embed_features(features, lengths).embedding.numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4)
