"""Deletion and insertion curves, by hand and for maps whose worth is known."""

import numpy as np
import pytest
import torch
from distillation_pairs import features, frozen, make
from hypothesis import given
from hypothesis import strategies as st

from parvox.distillation.attribution import similarity_score, true_speaker_score
from parvox.distillation.deletion import deletion_insertion
from parvox.distillation.maps import MapSettings, permuted, saliency
from parvox.errors import RecipeError


def total(points, which):
    return points.sum((1, 2))


def test_curves_by_hand():
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 1.0], [1.0, 1.0]]])
    maps = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 5.0], [5.0, 6.0]]])
    curves = deletion_insertion(total, x, maps, baseline=0.5, fractions=(0, 0.25, 0.5, 1))
    # in the second, the equal bins go in the order in which they lie
    np.testing.assert_allclose(curves.deletion, [[10, 6.5, 4, 2], [8, 7.5, 7, 2]])
    np.testing.assert_allclose(curves.insertion, [[2, 5.5, 8, 10], [2, 2.5, 3, 8]])
    np.testing.assert_allclose(curves.deletion_area, [(16.5 + 10.5 + 2 * 6) / 8, (15.5 + 14.5 + 2 * 9) / 8])
    np.testing.assert_allclose(curves.insertion_area, [(7.5 + 13.5 + 2 * 18) / 8, (4.5 + 5.5 + 2 * 11) / 8])


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 999))
def test_bins_deleted_and_bins_inserted_make_up_the_input(frames, bins, seed):
    draw = torch.Generator().manual_seed(seed)
    x, maps = (torch.randn(2, frames, bins, generator=draw) for _ in range(2))
    curves = deletion_insertion(total, x, maps)
    whole = x.sum((1, 2)).unsqueeze(1)
    np.testing.assert_allclose(curves.deletion + curves.insertion, whole.expand(2, 21), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(curves.deletion[:, -1], [0, 0], atol=1e-6)
    # no map takes the sum away sooner than the input itself
    best = deletion_insertion(total, x, x)
    assert (best.deletion <= curves.deletion + 1e-4).all()


def test_a_gradient_map_finds_what_counts_sooner_than_chance():
    side = frozen(make(seed=2))
    x = features(8)
    with torch.no_grad():
        for token in side[0].pooling.parts:  # small, they are what they attend to, trained or not
            token.vectors.mul_(0.02)
        embeddings = side[0].embed_features(x).embedding
    labels = side[1].logits(embeddings).argmax(1)
    for score in (true_speaker_score(*side, labels), similarity_score(side[0], embeddings)):
        maps = saliency(score, x, [30], MapSettings(steps=8))
        torch.manual_seed(0)
        found, chance = deletion_insertion(score, x, maps), deletion_insertion(score, x, permuted(maps))
        assert found.insertion_area.mean() > chance.insertion_area.mean()
        assert found.deletion_area.mean() < chance.deletion_area.mean()


def test_fractions_must_rise_from_nothing_to_all():
    for fractions in ((0.0,), (0.1, 1.0), (0.0, 0.9), (0.0, 0.5, 0.5, 1.0)):
        with pytest.raises(RecipeError, match="expected them to rise from 0 to 1"):
            deletion_insertion(total, torch.ones(1, 2, 2), torch.ones(1, 2, 2), fractions=fractions)
