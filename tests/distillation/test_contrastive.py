"""Contrastive embedding distillation: by hand, its negatives, and what it teaches."""

import math

import pytest
import torch
from distillation_pairs import make, pair_of

from parvox.distillation import View
from parvox.distillation.contrastive import ContrastiveSettings, info_nce
from parvox.errors import RecipeError


def build(**settings):
    return ContrastiveSettings(**settings).build(pair_of(make(), make()))


def test_by_hand():
    anchors, others = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    first = -math.log(math.exp(0.0) / (math.exp(0.0) + math.exp(1 / 0.5)))
    second = -math.log(math.exp(0.6 / 0.5) / (math.exp(0.8 / 0.5) + math.exp(0.6 / 0.5)))
    assert info_nce(anchors, others, 0.5).item() == pytest.approx((first + second) / 2)


def test_other_utterances_of_the_same_speaker_are_no_negatives():
    draw = torch.Generator().manual_seed(1)
    ours, theirs = (torch.nn.functional.normalize(torch.randn(4, 6, generator=draw)) for _ in range(2))
    labels = [2, 0, 2, 1]
    expected = 0.0
    for i in range(4):
        scores = {
            j: math.exp((ours[i] @ theirs[j]).item() / 0.07) for j in range(4) if j == i or labels[j] != labels[i]
        }
        expected -= math.log(scores[i] / sum(scores.values())) / 4
    method = build()
    known, unknown = (
        method(View(ours, labels=given), View(theirs, labels=given), 0.0)["contrastive"].item()
        for given in (torch.tensor(labels), None)
    )
    same = torch.tensor([[a == b for b in labels] for a in labels])
    assert known == pytest.approx(expected - info_nce(theirs, theirs, 0.07, same).item(), rel=1e-4)
    everywhere = info_nce(ours, theirs, 0.07) - info_nce(theirs, theirs, 0.07)
    assert unknown == pytest.approx(everywhere.item(), rel=1e-4)
    assert known != pytest.approx(unknown, rel=1e-5)


def test_an_embedding_swapped_for_a_neighbours_costs_and_lengths_do_not():
    theirs = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
    method = build()
    right, longer, swapped = (
        method(View(ours), View(theirs), 0.0)["contrastive"].item() for ours in (theirs, 9 * theirs, theirs.roll(1, 0))
    )
    assert right == pytest.approx(0, abs=1e-6)
    assert longer == pytest.approx(0, abs=1e-6)
    assert swapped > 1


def test_a_projector_bridges_sizes():
    method = ContrastiveSettings().build(pair_of(make(embedding_dim=8), make(embedding_dim=16)))
    assert sum(parameter.numel() for parameter in method.parameters()) == 8 * 16
    with pytest.raises(RecipeError, match=r"distillation.contrastive: a student of 8 and a teacher of 16 dimensions"):
        ContrastiveSettings(projector="never").build(pair_of(make(embedding_dim=8), make(embedding_dim=16)))


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(RecipeError, match=r"contrastive.temperature: 0 given"):
        ContrastiveSettings(temperature=0)
