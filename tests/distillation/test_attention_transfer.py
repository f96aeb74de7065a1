"""Attention transfer over time: by hand, and between encoders of different strides."""

import pytest
import torch
from distillation_pairs import make, pair_of

from parvox.distillation import Pair, Side, View
from parvox.distillation.attention_transfer import AttentionTransferSettings, averaged
from parvox.errors import RecipeError
from parvox.models.contract import EncoderOutput


def showing(*frames):
    """A view of frames (channels, time) of each utterance."""
    return View(torch.zeros(1, 1), encoded=EncoderOutput(torch.tensor(frames, dtype=torch.float32)))


def term(ours, theirs):
    method = AttentionTransferSettings().build(pair_of(make(), make(seed=1, width=32)))
    return method(ours, theirs, 0.0)["attention_transfer"].item()


def test_by_hand():
    # energies (mean over channels) [2.5, 0] and [0, 4], so directions [1, 0] and [0, 1]
    assert term(showing([[1, 0], [2, 0]]), showing([[0, 2]])) == pytest.approx(2.0)
    # energies [1, 1] and [1, 0]
    assert term(showing([[1, -1]]), showing([[1, 0]])) == pytest.approx((1 - 2**-0.5) ** 2 + 0.5)


def test_scale_and_number_of_channels_do_not_matter():
    frames = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(1)).tolist()
    doubled = [[*[[2 * x for x in row] for row in rows], *[[2 * x for x in row] for row in rows]] for rows in frames]
    assert term(showing(*frames), showing(*doubled)) == pytest.approx(0, abs=1e-9)


def test_the_longer_map_is_averaged_down_to_the_shorter():
    values = torch.tensor([[1.0, 3.0, 5.0, 7.0, 9.0, 11.0]])
    assert averaged(values, 3).tolist() == [[2.0, 6.0, 10.0]]
    assert averaged(values, 6) is values
    uneven = averaged(torch.arange(7.0)[None], 3)  # windows 0-2, 2-4, 4-6
    assert uneven.tolist() == [[1.0, 3.0, 5.0]]
    # energies [1, 9, 4, 0] averaged to [5, 2]
    assert term(showing([[1, 3, 2, 0]]), showing([[5**0.5, 2**0.5]])) == pytest.approx(0, abs=1e-6)


def test_a_teacher_that_shows_its_embedding_only_is_refused():
    pair = Pair(Side.of("the student", *make()), Side("an ONNX file", 16, 7))
    with pytest.raises(RecipeError, match="an ONNX file shows its embedding only"):
        AttentionTransferSettings().build(pair)
