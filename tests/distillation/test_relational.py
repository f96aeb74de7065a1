"""Relations between embeddings: direct loops, invariances, and gradients that stay small."""

import math

import pytest
import torch
from distillation_pairs import make, pair_of

from parvox.distillation import View
from parvox.distillation.relational import RelationalSettings, angles, relative_distances
from parvox.errors import RecipeError


def embeddings(seed, batch=5, dim=6):
    return torch.randn(batch, dim, generator=torch.Generator().manual_seed(seed))


def huber(one, other):
    gap = abs(one - other)
    return 0.5 * gap**2 if gap < 1 else gap - 0.5


def by_loop(points):
    """Distances by their mean, and cosines at the middle one of every three, from coordinates."""
    points = points.tolist()
    n = len(points)
    distances = [[math.dist(a, b) for b in points] for a in points]
    mean = sum(map(sum, distances)) / (n * (n - 1))
    corners = {}
    for j in range(n):
        for i in range(n):
            for k in range(n):
                a = [x - y for x, y in zip(points[i], points[j], strict=True)]
                b = [x - y for x, y in zip(points[k], points[j], strict=True)]
                lengths = math.hypot(*a) * math.hypot(*b)
                corners[j, i, k] = sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0
    return [[d / mean for d in row] for row in distances], corners


def test_distances_and_angles_equal_a_direct_loop():
    points = embeddings(1)
    distances, corners = by_loop(points)
    torch.testing.assert_close(relative_distances(points), torch.tensor(distances), rtol=1e-4, atol=1e-5)
    got = angles(points)
    for place, value in corners.items():
        assert got[place].item() == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("normalise", [False, True])
def test_terms_are_the_mean_huber_loss_of_relations(normalise):
    ours, theirs = embeddings(1), embeddings(2, dim=9)  # sizes may differ
    settings = RelationalSettings(distance_weight=0.5, angle_weight=3.0, normalise=normalise)
    got = settings.build(pair_of(make(), make()))(View(ours), View(theirs), 0.0)
    if normalise:
        ours, theirs = (x / x.norm(dim=1, keepdim=True) for x in (ours, theirs))
    (d, c), (d2, c2) = by_loop(ours), by_loop(theirs)
    expected = sum(huber(x, y) for a, b in zip(d, d2, strict=True) for x, y in zip(a, b, strict=True)) / 25
    assert got["relational_distance"].item() == pytest.approx(0.5 * expected, rel=1e-4)
    expected = sum(huber(c[place], c2[place]) for place in c) / 125
    assert got["relational_angle"].item() == pytest.approx(3 * expected, rel=1e-4)


def test_turned_moved_and_scaled_embeddings_have_the_same_relations():
    points = embeddings(3)
    turn, _ = torch.linalg.qr(embeddings(4, 6, 6))
    moved = 7 * points @ turn + 5
    settings = RelationalSettings(normalise=False)
    terms = settings.build(pair_of(make(), make()))(View(moved), View(points), 0.0)
    assert all(value.item() < 1e-8 for value in terms.values())


def test_angles_are_those_of_the_first_utterances():
    ours, theirs = embeddings(1, batch=8), embeddings(2, batch=8)
    few = RelationalSettings(angle_utterances=4, distance_weight=0.0).build(pair_of(make(), make()))
    every = RelationalSettings(distance_weight=0.0).build(pair_of(make(), make()))
    got, expected = few(View(ours), View(theirs), 0.0), every(View(ours[:4]), View(theirs[:4]), 0.0)
    assert got["relational_angle"].item() == pytest.approx(expected["relational_angle"].item())


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_collapsed_embeddings_give_finite_gradients(batch):
    ours = torch.ones(batch, 6, requires_grad=True)
    terms = RelationalSettings().build(pair_of(make(), make()))(View(ours), View(embeddings(1, batch)), 0.0)
    sum(terms.values()).backward()
    assert torch.isfinite(ours.grad).all()


def test_senseless_settings_are_named():
    with pytest.raises(RecipeError, match=r"angle_utterances: 2 given; expected 3 or more"):
        RelationalSettings(angle_utterances=2)
    with pytest.raises(RecipeError, match=r"relational.distance_weight: -1 given"):
        RelationalSettings(distance_weight=-1)
