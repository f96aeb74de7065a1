"""Integrated gradients: how much of a model's score is owed to each bin of its features."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from parvox.errors import RecipeError
from parvox.losses import SpeakerLoss
from parvox.models.speaker_model import SpeakerModel

Rule = Literal["midpoint", "trapezoid", "left", "right", "gauss_legendre"]
Target = Literal["posterior", "cosine"]
Score = Callable[[Tensor, Tensor], Tensor]
"""Of points (rows, frames, bins), and the utterance that each row belongs to (rows,) int64, the scores (rows,)."""


def path_points(rule: Rule, steps: int) -> tuple[list[float], list[float]]:
    """Where on the way from baseline (0) to input (1) gradients are taken, and with which weights, whose sum is 1.

    Args:
        rule: How the integral is approximated; `left` and `right` are first order, `midpoint` and `trapezoid` second,
            `gauss_legendre` is exact for polynomials of degree 2 · steps - 1.
        steps: How many gradients.

    Raises:
        RecipeError: fewer than 1 step, or than 2 for the trapezoid.
    """
    fewest = 2 if rule == "trapezoid" else 1
    if steps < fewest:
        raise RecipeError(f"integrated gradients: {steps} steps given; expected {fewest} or more for the {rule} rule")
    if rule == "gauss_legendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return ((nodes + 1) / 2).tolist(), (weights / 2).tolist()
    if rule == "trapezoid":
        inner = 1 / (steps - 1)
        return [k * inner for k in range(steps)], [inner / 2 if k in (0, steps - 1) else inner for k in range(steps)]
    shift = {"left": 0.0, "midpoint": 0.5, "right": 1.0}[rule]
    return [(k + shift) / steps for k in range(steps)], [1 / steps] * steps


def integrated_gradients(
    score: Score,
    features: Tensor,
    baseline: Tensor | float = 0.0,
    *,
    steps: int = 16,
    rule: Rule = "midpoint",
    most_frames: int | None = None,
    differentiable: bool = False,
) -> Tensor:
    """(x - x') ∘ ∫₀¹ ∂F(x' + a (x - x')) / ∂x da, by a sum over `steps` gradients.

    The attributions of an utterance sum to F(x) - F(x') as far as the sum is exact (completeness). Gradients are taken
    whatever mode surrounds the call; parameters get none. The scores of different rows must not depend on each other:
    a model is to be in evaluation mode, see `evaluating`.

    Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, equation 1.

    Args:
        score: F. It is given points of several utterances and steps at once.
        features: x, (batch, frames, bins) float.
        baseline: x', broadcast to the features; 0 is the mean of mean-normalised ones.
        steps: Gradients an utterance.
        rule: Where on the path they are taken.
        most_frames: Most feature frames in one call of `score`, which bounds the memory; those of the batch if None.
            Each call has at least one point.
        differentiable: Whether the attributions are to be differentiated; the graph of all steps is kept then.

    Returns:
        (batch, frames, bins), of the features' type.
    """
    positions, weights = path_points(rule, steps)
    # Tensors made in inference mode cannot enter a graph, and what is made here must be able to.
    kind = features.device.type
    with torch.inference_mode(False), torch.enable_grad(), _second_derivatives(differentiable), _small_gradients(kind):
        features = features.detach().clone()
        start = torch.as_tensor(baseline, dtype=features.dtype, device=features.device).detach().clone()
        start = start.expand_as(features)
        batch, frames, _ = features.shape
        most_rows = max(1, (most_frames or batch * frames) // frames)
        together = min(batch, most_rows)
        at_once = max(1, min(steps, most_rows // together))
        parts = []
        for first in range(0, batch, together):
            x, origin = features[first : first + together], start[first : first + together]
            which = torch.arange(first, first + len(x), device=features.device)
            total = torch.zeros_like(x)
            for k in range(0, steps, at_once):
                a = x.new_tensor(positions[k : k + at_once]).view(-1, 1, 1, 1)
                points = (origin + a * (x - origin)).flatten(0, 1).requires_grad_()  # (steps × utterances, …)
                (gradient,) = torch.autograd.grad(
                    score(points, which.repeat(len(a))).sum(), points, create_graph=differentiable
                )
                w = x.new_tensor(weights[k : k + at_once]).view(-1, 1, 1, 1)
                total = total + (w * gradient.view(len(a), *x.shape)).sum(0)
            parts.append((x - origin) * total)
        return torch.cat(parts)


def true_speaker_score(
    model: SpeakerModel, classifier: SpeakerLoss, labels: Tensor, target: Target = "posterior"
) -> Score:
    """How sure a model is of the true speakers.

    Args:
        model: Whose score.
        classifier: Its speaker head; the score carries no margin.
        labels: (batch,) int64, the true speaker of each utterance.
        target: The posterior softmax(s cos θ)_y, which is flat where the model is certain, or s cos θ_y itself.
    """

    def score(points: Tensor, which: Tensor) -> Tensor:
        logits = classifier.logits(model.embed_features(points).embedding)
        wanted = logits.gather(1, labels[which].unsqueeze(1)).squeeze(1)
        return wanted if target == "cosine" else (wanted - logits.logsumexp(1)).exp()

    return score


def similarity_score(model: SpeakerModel, references: Tensor) -> Score:
    """How close an utterance is to its speaker, for speakers that no classifier knows.

    Args:
        model: Whose score.
        references: (batch, embedding_dim), an embedding of each utterance's speaker from other speech.
    """

    def score(points: Tensor, which: Tensor) -> Tensor:
        embeddings = model.embed_features(points).embedding.float()
        return nn.functional.cosine_similarity(embeddings, references[which].float())

    return score


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block; every module is as before after it."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _second_derivatives(wanted: bool) -> contextlib.AbstractContextManager[object]:
    """Fused attention has first derivatives only."""
    if not wanted:
        return contextlib.nullcontext()
    plain_attention: contextlib.AbstractContextManager[object] = sdpa_kernel(SDPBackend.MATH)
    return plain_attention


def _small_gradients(device: str) -> contextlib.AbstractContextManager[object]:
    """Float32 in place of float16, which rounds to zero the gradients of a score that is next to nothing.

    In training the loss is scaled up against that; a score is not. bf16 reaches as far down as float32.
    """
    if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16:
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()
