"""Integrated gradients: completeness, agreement with captum, and that the model is left as it was."""

import math

import numpy as np
import pytest
import torch
from distillation_pairs import features, frozen, make
from hypothesis import given
from hypothesis import strategies as st

from parvox.distillation.attribution import (
    evaluating,
    integrated_gradients,
    path_points,
    similarity_score,
    true_speaker_score,
)
from parvox.errors import RecipeError
from parvox.models import ENCODERS, POOLINGS, ModelSettings, SpeakerModel
from parvox.models.frontend import FbankSettings

RULES = ["midpoint", "trapezoid", "left", "right", "gauss_legendre"]
LABELS = torch.tensor([0, 6, 2])
CAPTUM = {
    "midpoint": "riemann_middle",
    "trapezoid": "riemann_trapezoid",
    "left": "riemann_left",
    "right": "riemann_right",
    "gauss_legendre": "gausslegendre",
}


def by_hand(points, which):
    """Σ w x³ of each row, with weights of each utterance: the integral along a path is a polynomial."""
    weights = torch.arange(1.0, 1 + points[0].numel()).view(points.shape[1:])
    return ((which + 1).view(-1, 1, 1) * weights * points**3).sum((1, 2))


def teacher(target="posterior", seed=2):
    side = frozen(make(seed=seed))
    return side, true_speaker_score(*side, LABELS, target)


def score_of(score, inputs):
    with torch.no_grad():
        return score(inputs, torch.arange(len(inputs)))


@pytest.mark.parametrize("rule", RULES)
def test_weights_sum_to_one_and_the_order_of_the_rule_is_right(rule):
    for steps in (2, 3, 8):
        positions, weights = path_points(rule, steps)
        assert len(positions) == len(weights) == steps
        assert sum(weights) == pytest.approx(1)
        exact = {"left": 0, "right": 0, "midpoint": 1, "trapezoid": 1, "gauss_legendre": 2 * steps - 1}[rule]
        for degree in range(exact + 1):
            integral = sum(w * p**degree for p, w in zip(positions, weights, strict=True))
            assert integral == pytest.approx(1 / (degree + 1))
        if steps < 8:  # then the next degree is beyond it by more than rounding
            beyond = sum(w * p ** (exact + 1) for p, w in zip(positions, weights, strict=True))
            assert beyond != pytest.approx(1 / (exact + 2), rel=1e-6, abs=0)


def test_too_few_steps_are_refused():
    with pytest.raises(RecipeError, match="0 steps given; expected 1 or more for the midpoint rule"):
        path_points("midpoint", 0)
    with pytest.raises(RecipeError, match="1 steps given; expected 2 or more for the trapezoid rule"):
        path_points("trapezoid", 1)


def test_a_cubic_by_hand():
    x, baseline = torch.tensor([[[1.0, 2.0]], [[-1.0, 3.0]]]), torch.tensor([0.5, 1.0])
    got = integrated_gradients(by_hand, x, baseline, steps=2, rule="gauss_legendre")
    # the integral of 3 w x² over the path is w (x³ - x'³) / (x - x'), times x - x'
    expected = [[1 * (1 - 0.125), 2 * (8 - 1)], [2 * 1 * (-1 - 0.125), 2 * 2 * (27 - 1)]]
    np.testing.assert_allclose(got.squeeze(1).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("target", ["posterior", "cosine"])
@pytest.mark.parametrize("zero", [True, False])
def test_attributions_add_up_to_the_difference_of_scores(target, zero):
    _, score = teacher(target)
    x = features(3)
    baseline = torch.zeros_like(x) if zero else 0.5 * features(3, seed=9)
    # the kinks of a network that has learnt nothing ask for many steps
    got = integrated_gradients(score, x, baseline, steps=2048, most_frames=64 * 90).sum((1, 2))
    expected = score_of(score, x) - score_of(score, baseline)
    assert expected.abs().min() > 1e-4
    assert ((got - expected).abs() / expected.abs()).max() < 1e-3


@pytest.mark.parametrize("rule", RULES)
def test_agrees_with_captum(rule):
    from captum.attr import IntegratedGradients

    side, score = teacher()
    x, baseline, steps = features(3), 0.3 * features(3, seed=9), 7
    theirs = IntegratedGradients(
        lambda points: side[1].logits(side[0].embed_features(points).embedding).softmax(1), multiply_by_inputs=True
    ).attribute(x, baselines=baseline, target=LABELS, n_steps=steps, method=CAPTUM[rule])
    if rule == "trapezoid":  # captum divides by the number of points, whose intervals are one fewer
        theirs = theirs * steps / (steps - 1)
    ours = integrated_gradients(score, x, baseline, steps=steps, rule=rule)
    assert ours.abs().max() > 1e-4
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5 * ours.abs().max().item())


@given(st.integers(1, 200))
def test_memory_bounds_change_nothing(most_frames):
    x = torch.linspace(-1, 1, 4 * 5 * 2).view(4, 5, 2)
    whole = integrated_gradients(by_hand, x, 0.1, steps=6)
    largest = 0

    def watched(points, which):
        nonlocal largest
        largest = max(largest, points.shape[0] * points.shape[1])
        return by_hand(points, which)

    part = integrated_gradients(watched, x, 0.1, steps=6, most_frames=most_frames)
    np.testing.assert_allclose(part, whole, rtol=1e-5, atol=1e-6)
    assert largest <= max(5, most_frames)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_works_in_every_mode_and_leaves_the_model_as_it_was(mode):
    side = make(seed=2)  # not frozen: gradients could go somewhere
    score = true_speaker_score(*side, LABELS)
    before = {name: value.clone() for part in side for name, value in part.state_dict().items()}
    expected = integrated_gradients(score, features(3), steps=4)
    with mode():
        got = integrated_gradients(score, features(3), steps=4)
    assert not got.requires_grad
    assert torch.equal(got, expected)
    assert all(parameter.grad is None for part in side for parameter in part.parameters())
    after = {name: value for part in side for name, value in part.state_dict().items()}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_bf16_autocast_gives_float32_of_nearly_the_same_direction():
    _, score = teacher("cosine")
    exact = integrated_gradients(score, features(3), steps=8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough = integrated_gradients(score, features(3), steps=8)
    assert rough.dtype == torch.float32
    assert torch.cosine_similarity(rough.flatten(), exact.flatten(), dim=0) > 0.99
    assert not torch.equal(rough, exact)


def test_float16_loses_nothing_of_a_score_next_to_nothing():
    side, x = frozen(make(seed=2)), features(3)
    with torch.no_grad():
        logits = side[1].logits(side[0].embed_features(x).embedding)
    score = true_speaker_score(*side, logits.argmin(1))  # posteriors of the speakers that are least likely
    assert score_of(score, x).max() < 1e-5
    exact = integrated_gradients(score, x, steps=4)
    with torch.autocast("cpu", torch.float16):
        rough = integrated_gradients(score, x, steps=4)
    np.testing.assert_allclose(rough, exact, rtol=1e-3)


def test_a_certain_teacher_gives_zeros_and_no_nan():
    side = frozen(make(seed=2, scale=2000.0))
    x = features(3)
    with torch.no_grad():
        labels = side[1].logits(side[0].embed_features(x).embedding).argmax(1)
    got = integrated_gradients(true_speaker_score(*side, labels), x, steps=4)
    assert torch.isfinite(got).all()


def test_attributions_can_be_differentiated():
    x = torch.tensor([[[2.0, 3.0]]])
    weight = torch.tensor(1.5, requires_grad=True)
    got = integrated_gradients(lambda points, which: (weight * points**2).sum((1, 2)), x, steps=4, differentiable=True)
    got.sum().backward()
    assert got.detach().flatten().tolist() == pytest.approx([1.5 * 4, 1.5 * 9])
    assert weight.grad.item() == pytest.approx(13)


@pytest.mark.parametrize("encoder", [entry.name for entry in ENCODERS])
def test_every_encoder_can_be_attributed(encoder):
    settings = ENCODERS[encoder].settings()
    model = SpeakerModel(
        ModelSettings(
            encoder=settings,
            pooling=POOLINGS[settings.default_pooling].settings(),
            embedding_dim=settings.default_embedding_dim,
            head=settings.default_head,
            features=FbankSettings(),
        )
    ).eval()
    x = torch.randn(1, max(24, model.encoder.min_frames), 80, generator=torch.Generator().manual_seed(1))
    score = similarity_score(model, torch.randn(1, settings.default_embedding_dim))
    got = integrated_gradients(score, x, steps=1)
    assert got.shape == x.shape
    assert torch.isfinite(got).all()
    assert got.abs().sum() > 0


def test_evaluating_restores_every_module_even_after_an_error():
    model = make()[0].train()
    model.encoder.eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(ZeroDivisionError), evaluating(model):
        assert not any(module.training for module in model.modules())
        math.log(1 // 0)
    assert [module.training for module in model.modules()] == before
