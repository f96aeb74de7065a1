"""Class tokens: plain, sampled, variational, with a distillation token beside."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from parvox.errors import RecipeError
from parvox.models.ecapa_tdnn import EcapaTdnnSettings
from parvox.models.memory_attention import MemoryAttentionSettings
from parvox.models.tokens import (
    READS,
    ClassDistillationTokenSettings,
    ClassTokenSettings,
    SampledToken,
    VariationalToken,
)

ENCODER = MemoryAttentionSettings(width=16, heads=2, memory_slots=8, memory_heads=2, memory_key_dim=4, dropout=0.0)


def encoder() -> nn.Module:
    torch.manual_seed(6)
    return ENCODER.build(20)


@pytest.mark.parametrize("training", [False, True])
def test_one_vector_equals_a_plain_token(training):
    """A parameter put in front of the frames by hand, with the same states of random generators after it."""
    built = encoder().train(training)
    pooling = ClassTokenSettings(vectors=1).build(built).train(training)
    plain = nn.Parameter(pooling.parts[0].vectors.detach()[0].clone())
    features = torch.randn(3, 9, 20)
    torch.manual_seed(8)
    sampled = built(features, None, pooling.tokens(3))
    state = torch.get_rng_state()
    torch.manual_seed(8)
    expected = built(features, None, plain.view(1, 1, -1).expand(3, 1, -1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(pooling(sampled.frames, None, sampled.tokens), expected.tokens[:, 0])


def test_sampling_is_uniform_by_utterance_in_training_and_the_mean_at_test():
    token = SampledToken(4, 5)
    torch.manual_seed(0)
    drawn = token.train()(4000)
    chosen = torch.cdist(drawn, token.vectors).argmin(1)
    assert torch.equal(drawn, token.vectors[chosen])
    counts = torch.bincount(chosen, minlength=5)
    assert ((counts - 800).abs() < 5 * (4000 * 0.2 * 0.8) ** 0.5).all()  # within five deviations of the binomial
    torch.manual_seed(0)
    assert torch.equal(token(4000), drawn)
    token.eval()
    torch.testing.assert_close(token(3), token.vectors.detach().mean(0).expand(3, 4))
    assert torch.equal(token(3), token(3))


def test_a_class_and_a_distillation_token_begin_as_different_tokens():
    """Tokens much smaller than frames would both become what they first attend to."""
    alike = []
    for seed in range(6):
        torch.manual_seed(seed)
        built = ENCODER.build(20).eval()
        pooling = ClassDistillationTokenSettings().build(built).eval()
        states = built(torch.randn(8, 40, 20), None, pooling.tokens(8)).tokens
        alike.append(torch.cosine_similarity(states[:, 0], states[:, 1]).mean())
    assert torch.stack(alike).mean() < 0.5  # 0.99 if they begin fifty times smaller


def test_the_vectors_of_a_sampled_token_begin_alike():
    vectors = SampledToken(64, 10).vectors.detach()
    mean = vectors.mean(0)
    assert torch.cosine_similarity(vectors, mean, dim=1).min() > 0.99
    assert 0.7 < mean.std() < 1.3


def test_only_drawn_vectors_learn():
    token = SampledToken(4, 50).train()
    torch.manual_seed(1)
    drawn = token(3)
    chosen = torch.cdist(drawn, token.vectors).argmin(1)
    drawn.sum().backward()
    learnt = token.vectors.grad.abs().sum(1).nonzero().flatten()
    assert set(learnt.tolist()) == set(chosen.tolist())


def test_variational_token():
    token = VariationalToken(3)
    with torch.no_grad():
        token.mean.copy_(torch.tensor([0.5, -1.0, 2.0]))
        token.rho.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    deviation = torch.nn.functional.softplus(token.rho)
    torch.manual_seed(2)
    drawn = token.train()(20_000)
    torch.testing.assert_close(drawn.mean(0), token.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.std(0), deviation, atol=0.05, rtol=0)
    assert torch.equal(token.eval()(2), token.mean.expand(2, 3))
    expected = kl_divergence(Normal(token.mean, deviation), Normal(0.0, 1.0)).sum()
    torch.testing.assert_close(token.divergence(), expected)
    assert torch.nn.functional.softplus(VariationalToken(3).rho).tolist() == pytest.approx([0.02] * 3, rel=1e-4)


def test_class_and_distillation_token():
    built = encoder().eval()
    pooling = ClassDistillationTokenSettings(vectors=3).build(built).eval()
    tokens = pooling.tokens(2)
    assert tokens.shape == (2, 2, 16)
    assert tuple(part.vectors.shape[0] for part in pooling.parts) == (3, 1)
    output = built(torch.randn(2, 9, 20), None, tokens)
    embedding = pooling(output.frames, None, output.tokens)
    assert torch.equal(embedding, output.tokens[:, 0])
    assert (output.tokens[:, 1] - embedding).abs().max() > 1e-3
    (output.tokens[:, 1] * torch.randn(2, 16)).sum().backward()
    assert pooling.parts[1].vectors.grad.abs().max() > 0
    assert pooling.output_dim == 16


def test_read_outs_of_one_model():
    """The same weights; both states count alike in a cosine, however long they are."""
    built = encoder().eval()
    poolings = {read: ClassDistillationTokenSettings(read=read).build(built) for read in READS}
    for pooling in poolings.values():
        pooling.load_state_dict(poolings["class"].state_dict())
    assert [pooling.output_dim for pooling in poolings.values()] == [16, 16, 32]
    states = torch.randn(4, 2, 16) * torch.tensor([1.0, 20.0])[:, None]
    read = {name: pooling(torch.zeros(4, 16, 3), None, states) for name, pooling in poolings.items()}
    assert torch.equal(read["class"], states[:, 0])
    assert torch.equal(read["distillation"], states[:, 1])
    one, other, both = (torch.cosine_similarity(read[name][:1], read[name]) for name in READS)
    torch.testing.assert_close(both, (one + other) / 2)


def test_the_embedding_is_in_full_precision():
    built = encoder()
    pooling = ClassTokenSettings().build(built)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = built(torch.randn(2, 9, 20), None, pooling.tokens(2))
        assert pooling(output.frames, None, output.tokens).dtype == torch.float32


@pytest.mark.parametrize("settings", [ClassTokenSettings(), ClassDistillationTokenSettings()])
def test_an_encoder_without_tokens_is_refused(settings):
    with pytest.raises(RecipeError, match=r"takes no tokens.*\(memory_attention\)"):
        settings.build(EcapaTdnnSettings(channels=16, frames_dim=24).build(80))


def test_settings_that_do_not_go_together():
    with pytest.raises(RecipeError, match="vectors 0"):
        ClassTokenSettings(vectors=0)
    with pytest.raises(RecipeError, match="sampled or variational"):
        ClassDistillationTokenSettings(estimation="drawn")
    with pytest.raises(RecipeError, match="class_token: 5 vectors with variational"):
        ClassTokenSettings(vectors=5, estimation="variational")
    with pytest.raises(RecipeError, match="class_distillation_token: divergence_weight -1"):
        ClassDistillationTokenSettings(divergence_weight=-1)
    with pytest.raises(RecipeError, match="read 'all' given; expected class, distillation, both"):
        ClassDistillationTokenSettings(read="all")
