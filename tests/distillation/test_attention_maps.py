"""Attention maps: between BC-CMTs of different width, on memory attention, by hand, and what is refused."""

import math

import pytest
import torch
from distillation_pairs import features, frozen, look, make, pair_of

from parvox.distillation import View
from parvox.distillation.attention_maps import AttentionMapsSettings, chosen, divergence, squared_distance
from parvox.errors import RecipeError
from parvox.losses import LOSSES
from parvox.models import ENCODERS, POOLINGS, ModelSettings, SpeakerModel
from parvox.models.contract import EncoderOutput
from parvox.models.frontend import FbankSettings


def model(encoder, bins=80, **options):
    """A model of a family and its classifier."""
    settings = ENCODERS[encoder].settings(**options)
    parts = ModelSettings(
        encoder=settings,
        pooling=POOLINGS["mean"].settings(),
        embedding_dim=8,
        head="linear",
        features=FbankSettings(bins=bins),
    )
    return SpeakerModel(parts), LOSSES["softmax"].settings().build(8, 5)


def bc_cmt(widths=(4, 4, 8, 8), heads=(1, 2, 2, 4), bins=16, **options):
    return model("bc_cmt", bins, widths=widths, heads=heads, blocks=(2, 1, 1, 2), sub_bands=1, **options)


def showing(maps):
    return View(torch.zeros(1, 1), encoded=EncoderOutput(torch.zeros(1, 1, 1), attention_maps=maps))


def rows(*values):
    """A map of one head from rows of numbers, which are made to sum to 1."""
    weights = torch.tensor(values, dtype=torch.float32)
    return (weights / weights.sum(-1, keepdim=True))[None, None]


def test_distances_by_hand():
    ours, theirs = rows([1, 1, 2], [1, 1, 0]), rows([1, 1, 0], [1, 3, 0])
    first = 0.5 * math.log(2) + 0.5 * math.log(2)
    second = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert divergence(ours, theirs).item() == pytest.approx((first + second) / 2)
    squares = (0.25**2 + 0.25**2 + 0.5**2) + (0.25**2 + 0.25**2)
    assert squared_distance(ours, theirs).item() == pytest.approx(squares / 2)


def test_a_stages_last_or_every_block_counts_and_stages_have_weights():
    student, teacher = bc_cmt(), bc_cmt()
    draw = torch.Generator().manual_seed(1)
    names = ["stage1.block1", "stage1.block2", "stage2.block1", "stage3.block1", "stage4.block1", "stage4.block2"]
    ours, theirs = ({name: torch.rand(2, 1, 3, 4, generator=draw).softmax(-1) for name in names} for _ in range(2))
    views = showing(ours), showing(theirs)
    each = {name: divergence(ours[name], theirs[name]).item() for name in names}
    last = AttentionMapsSettings(stage_weights=(1.0, 0.5, 0.0, 2.0)).build(pair_of(student, teacher))
    assert last(*views, 0.0)["attention_maps"].item() == pytest.approx(
        each["stage1.block2"] + 0.5 * each["stage2.block1"] + 2 * each["stage4.block2"]
    )
    every = AttentionMapsSettings(blocks="all", stage_weights=(1.0, 0.0, 0.0, 2.0)).build(pair_of(student, teacher))
    assert every(*views, 0.0)["attention_maps"].item() == pytest.approx(
        (each["stage1.block1"] + each["stage1.block2"]) / 2 + each["stage4.block1"] + each["stage4.block2"]
    )


@pytest.mark.parametrize("size", ["small", "base"])
def test_maps_of_bc_cmt_tiny_are_as_large_as_those_of_wider_teachers(size):
    short = {"blocks": (1, 1, 1, 2)}
    student, teacher = model("bc_cmt", size="tiny", **short), frozen(model("bc_cmt", size=size, **short))
    method = AttentionMapsSettings().build(pair_of(student, teacher))
    teacher[0].eval()
    inputs, labels = torch.randn(2, 40, 80), torch.tensor([0, 1])
    ours, theirs = look(student, inputs, labels), look(teacher, inputs, labels)
    sizes = [{name: maps.shape for name, maps in view.encoded.attention_maps.items()} for view in (ours, theirs)]
    assert sizes[0] == sizes[1]
    assert sizes[0]["stage4.block2"] == (2, 8, 10, 10)
    before = method(ours, theirs, 0.0)["attention_maps"]
    before.backward()
    assert any(parameter.grad.any() for parameter in student[0].encoder.stages[0].parameters())
    assert math.isfinite(before.item())
    assert before.item() > 0


@pytest.mark.parametrize("blocks", ["last", "all"])
def test_memory_attention_of_different_widths(blocks):
    student, teacher = make(seed=1), frozen(make(seed=2, width=32))
    method = AttentionMapsSettings(blocks=blocks, distance="mse").build(pair_of(student, teacher))
    inputs, labels = features(2), torch.tensor([0, 1])
    ours, theirs = look(student, inputs, labels), look(teacher, inputs, labels)
    got = method(ours, theirs, 0.0)["attention_maps"]
    one, other = (view.encoded.attention_maps["block1"] for view in (ours, theirs))  # tokens and frames: 2 + 30
    assert one.shape == other.shape == (2, 2, 32, 32)
    assert got.item() == pytest.approx((one - other).square().sum().item() / (2 * 2 * 32), rel=1e-4)
    got.backward()
    assert student[0].encoder.blocks[0].inputs.weight.grad.any()


def test_a_token_that_one_of_the_pair_has_alone_is_left_out():
    student, teacher = make(seed=1), frozen(make(seed=2, pooling="class_token"))
    method = AttentionMapsSettings(blocks="last").build(pair_of(student, teacher))
    inputs, labels = features(2), torch.tensor([0, 1])
    ours, theirs = look(student, inputs, labels), look(teacher, inputs, labels)
    mine, its = (list(view.encoded.attention_maps.values())[-1] for view in (ours, theirs))
    assert (mine.shape[-1], its.shape[-1]) == (32, 31)  # class and distillation token, or class token; 30 frames
    kept = torch.cat([mine[..., :1], mine[..., 2:]], -1)
    kept = torch.cat([kept[..., :1, :], kept[..., 2:, :]], -2)
    expected = divergence(kept / kept.sum(-1, keepdim=True), its)
    got = method(ours, theirs, 0.0)["attention_maps"]
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)
    got.backward()
    assert student[0].encoder.blocks[0].inputs.weight.grad.any()


def test_looking_whether_the_pair_fits_changes_neither_model():
    student, teacher = bc_cmt(), bc_cmt(widths=(8, 8, 16, 16))
    student[0].train()
    before = {name: value.clone() for name, value in student[0].state_dict().items()}
    state = torch.get_rng_state()
    AttentionMapsSettings().build(pair_of(student, teacher))
    assert torch.equal(state, torch.get_rng_state())
    assert student[0].training
    assert all(torch.equal(before[name], value) for name, value in student[0].state_dict().items())


def test_blocks_are_chosen_by_the_name_of_their_stage():
    maps = {"stage1.block1": 1, "stage1.block2": 2, "stage2.block1": 3}
    assert chosen(maps, every=False) == [[2], [3]]
    assert chosen(maps, every=True) == [[1, 2], [3]]
    assert chosen({"block1": 1, "block2": 2}, every=False) == [[2]]


@pytest.mark.parametrize(
    ("student", "teacher", "says"),
    [
        (lambda: model("xvector", channels=(8, 8, 8, 8, 8)), bc_cmt, "the encoder of the student gives no attention"),
        (bc_cmt, lambda: model("xvector", channels=(8, 8, 8, 8, 8)), "the encoder of the teacher gives no attention"),
        (bc_cmt, lambda: bc_cmt(heads=(1, 2, 4, 4)), "2 heads in stage 3 of the student and 4 in the teacher"),
        (make, bc_cmt, "in 1 stages and a teacher, the teacher, in 4"),
        (
            bc_cmt,
            lambda: bc_cmt(reductions=(8, 4, 1, 1)),
            "maps of 24 × 12 frames for a second of speech in stage 3 of the student and 24 × 24 in the teacher",
        ),
    ],
)
def test_pairs_that_do_not_fit_are_refused_by_name(student, teacher, says):
    with pytest.raises(RecipeError, match=says):
        AttentionMapsSettings().build(pair_of(student(), teacher()))


def test_every_block_needs_as_many_blocks():
    deeper = model("bc_cmt", 16, widths=(4, 4, 8, 8), heads=(1, 2, 2, 4), blocks=(2, 2, 1, 2), sub_bands=1)
    AttentionMapsSettings().build(pair_of(bc_cmt(), deeper))
    with pytest.raises(RecipeError, match="1 blocks in stage 2 of the student and 2 in the teacher"):
        AttentionMapsSettings(blocks="all").build(pair_of(bc_cmt(), deeper))


def test_weights_of_stages_are_checked():
    with pytest.raises(RecipeError, match=r"stage_weights: -1.0 given; expected 0 or more"):
        AttentionMapsSettings(stage_weights=(1.0, -1.0))
    with pytest.raises(RecipeError, match="stage_weights: 3 given; expected one for each of the 4 stages"):
        AttentionMapsSettings(stage_weights=(1.0, 1.0, 1.0)).build(pair_of(bc_cmt(), bc_cmt()))


def test_a_teacher_that_shows_its_embedding_only_is_refused():
    from parvox.distillation import Pair, Side

    with pytest.raises(RecipeError, match=r"distillation.attention_maps: an ONNX file shows its embedding only"):
        AttentionMapsSettings().build(Pair(Side.of("the student", *bc_cmt()), Side("an ONNX file", 8, 5)))
