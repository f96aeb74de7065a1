"""Random Erasing: what is erased, how often, where, and that draws decide it all."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parvox.data.random_erasing import DRAWS, RandomErasingSettings, erase, random_erasing, rectangles
from parvox.errors import RecipeError

ALWAYS = RandomErasingSettings(probability=1.0)


def draws(batch: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, DRAWS, generator=torch.Generator().manual_seed(seed))


def test_a_rectangle_by_hand():
    """Area 0.02 + 0.5 × 0.38 = 0.21, aspect exp(middle of the logs), of 100 frames and 80 bins."""
    aspect = math.sqrt(0.3 * 3.3)
    width = round(math.sqrt(0.21 * aspect) * 100)
    height = round(math.sqrt(0.21 / aspect) * 80)
    found = rectangles(torch.tensor([[0.0, 0.5, 0.5, 0.0, 0.999999]]), torch.tensor([100]), 80, ALWAYS)
    assert found.tolist() == [[0, width, 80 - height, 80]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1 - 2**-24, width=32), min_size=DRAWS, max_size=DRAWS), st.integers(1, 300))
def test_rectangles_lie_inside(numbers, frames):
    left, right, bottom, top = rectangles(torch.tensor([numbers]), torch.tensor([frames]), 80, ALWAYS)[0].tolist()
    assert 0 <= left < right <= frames
    assert 0 <= bottom < top <= 80


def test_areas_and_how_often():
    options = RandomErasingSettings(probability=0.3, area=(0.1, 0.2), aspect=(0.5, 2.0))
    corners = rectangles(draws(5000), torch.full((5000,), 200), 80, options)
    areas = (corners[:, 1] - corners[:, 0]) * (corners[:, 3] - corners[:, 2]) / (200 * 80)
    erased = areas > 0
    assert erased.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert areas[erased].min() > 0.095
    assert areas[erased].max() < 0.205
    assert areas[erased].mean().item() == pytest.approx(0.15, abs=0.005)
    middle = (corners[erased, :2].sum(1) / 400).mean().item()
    assert middle == pytest.approx(0.5, abs=0.02)


def test_only_the_rectangle_changes_and_padding_never():
    features = torch.randn(6, 50, 20) + torch.arange(20.0)
    lengths = torch.tensor([50, 40, 30, 20, 10, 1])
    features *= (torch.arange(50) < lengths[:, None]).unsqueeze(2)
    given = features.clone()
    numbers = draws(6)
    for fill in ("mean", "noise"):
        options = RandomErasingSettings(probability=1.0, fill=fill)
        out = erase(features, lengths, numbers, options, torch.randn(6, 50, 20))
        assert torch.equal(features, given)
        for row, (left, right, bottom, top) in enumerate(rectangles(numbers, lengths, 20, options).tolist()):
            changed = torch.zeros(50, 20, dtype=torch.bool)
            changed[left:right, bottom:top] = True
            assert torch.equal(out[row][~changed], features[row][~changed])
            if fill == "mean":
                expected = features[row, : lengths[row], bottom:top].mean(0)
                torch.testing.assert_close(
                    out[row, left:right, bottom:top], expected.expand(right - left, -1), atol=1e-4, rtol=1e-5
                )


def test_noise_has_each_bins_mean_and_deviation():
    features = torch.randn(1, 4000, 3) * torch.tensor([1.0, 2.0, 0.5]) + torch.tensor([0.0, 5.0, -3.0])
    options = RandomErasingSettings(probability=1.0, area=(1.0, 1.0), aspect=(1.0, 1.0))
    out = random_erasing(features, None, options, torch.Generator().manual_seed(3))
    assert (out != features).all()
    torch.testing.assert_close(out.mean(1), features.mean(1), atol=0.15, rtol=0)
    torch.testing.assert_close(out.std(1), features.std(1), atol=0.1, rtol=0.05)


def test_rows_are_decided_by_their_own_draws_alone():
    features, numbers, noise = torch.randn(4, 30, 20), draws(4), torch.randn(4, 30, 20)
    together = erase(features, None, numbers, ALWAYS, noise)
    for row in range(4):
        part = slice(row, row + 1)
        assert torch.equal(erase(features[part], None, numbers[part], ALWAYS, noise[part]), together[part])


def test_a_generator_repeats_itself():
    features = torch.randn(8, 40, 20)
    first, second, other = (
        random_erasing(features, None, ALWAYS, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    never = RandomErasingSettings(probability=0.0)
    assert torch.equal(random_erasing(features, None, never), features)


def test_gradients_pass_where_nothing_was_erased():
    features = torch.randn(2, 30, 20, requires_grad=True)
    options = RandomErasingSettings(probability=0.0)
    random_erasing(features, None, options).sum().backward()
    assert torch.equal(features.grad, torch.ones(2, 30, 20))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"probability": 1.1}, "probability 1.1"),
        ({"area": (0.5, 0.4)}, r"area \[0.5, 0.4\]"),
        ({"area": (0.0, 0.4)}, r"area \[0.0, 0.4\]"),
        ({"aspect": (0.3, 0.1)}, r"aspect \[0.3, 0.1\]"),
        ({"aspect": (0.3, math.inf)}, r"aspect \[0.3, inf\]"),
        ({"fill": "zeros"}, "noise or mean"),
    ],
)
def test_settings_out_of_range(options, said):
    with pytest.raises(RecipeError, match=said):
        RandomErasingSettings(**options)


def test_noise_must_be_given():
    with pytest.raises(RecipeError, match="needs noise"):
        erase(torch.randn(1, 5, 4), None, draws(1), ALWAYS)
