"""Every distillation method: zero for equals, gradients to the student alone, finite in half precision."""

import math

import pytest
import torch
from torch import nn

from parvox.distillation import METHODS, View
from parvox.distillation.contract import Side
from parvox.distillation.embedding import EmbeddingSettings
from parvox.distillation.label import LabelSettings
from parvox.errors import RecipeError
from parvox.losses import LOSSES
from parvox.models import ENCODERS, POOLINGS, ModelSettings, SpeakerModel
from parvox.models.contract import EncoderOutput, SpeakerOutput


def side(embedding_dim=16, classes=7, seed=0):
    torch.manual_seed(seed)
    settings = ModelSettings(
        encoder=ENCODERS["xvector"].settings(),
        pooling=POOLINGS["statistics"].settings(),
        embedding_dim=embedding_dim,
        head="linear",
    )
    classifier = LOSSES["aam_softmax"].settings().build(embedding_dim, classes)
    return Side(SpeakerModel(settings), classifier)


def view(embedding, classifier, labels):
    return View(SpeakerOutput(embedding, EncoderOutput(torch.zeros(len(labels), 1, 1))), classifier, labels)


def names():
    return sorted(entry.name for entry in METHODS)


@pytest.mark.parametrize("name", names())
def test_every_term_is_zero_when_student_equals_teacher(name):
    pair = side()
    method = METHODS[name].settings().build(pair, pair)
    embedding, labels = torch.randn(5, 16), torch.tensor([0, 1, 2, 3, 6])
    same = view(embedding, pair.classifier, labels)
    terms = method(same, view(embedding.clone(), pair.classifier, labels), 0.5)
    assert terms
    for value in terms.values():
        assert abs(value.item()) < 1e-5


@pytest.mark.parametrize("name", names())
def test_gradients_reach_the_student_and_never_the_teacher(name):
    student, teacher = side(seed=1), side(seed=2)
    method = METHODS[name].settings().build(student, teacher)
    ours, theirs = torch.randn(5, 16, requires_grad=True), torch.randn(5, 16)
    for parameter in teacher.classifier.parameters():
        parameter.requires_grad_(False)
    labels = torch.tensor([0, 1, 2, 3, 6])
    with torch.no_grad():
        target = view(theirs, teacher.classifier, labels)
        _ = target.free_logits, target.margin_logits
    sum(method(view(ours, student.classifier, labels), target, 0.5).values()).backward()
    assert ours.grad is not None
    assert ours.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.classifier.parameters())


@pytest.mark.parametrize("name", names())
def test_finite_in_bf16_with_a_certain_teacher_and_many_classes(name):
    student, teacher = side(classes=100_000, seed=1), side(classes=100_000, seed=2)
    method = METHODS[name].settings().build(student, teacher)
    labels = torch.tensor([0, 99_999])
    with torch.no_grad():
        certain = nn.functional.normalize(teacher.classifier.weight[labels], dim=-1) * 50
    ours = torch.randn(2, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        terms = method(
            view(ours.bfloat16(), student.classifier, labels), view(certain.bfloat16(), teacher.classifier, labels), 1.0
        )
        total = sum(terms.values())
    assert torch.isfinite(total)
    total.backward()
    assert torch.isfinite(ours.grad).all()


@pytest.mark.parametrize("margin", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_label_level_equals_a_direct_loop(temperature, margin):
    student, teacher = side(seed=1), side(seed=2)
    ours, theirs, labels = torch.randn(4, 16), torch.randn(4, 16), torch.tensor([3, 0, 6, 2])
    method = LabelSettings(temperature=temperature, margin=margin).build(student, teacher)
    got = method(view(ours, student.classifier, labels), view(theirs, teacher.classifier, labels), 0.0)["label_kl"]
    given = labels if margin else None
    zs, zt = student.classifier.logits(ours, given), teacher.classifier.logits(theirs, given)
    expected = 0.0
    for row in range(4):
        s = [math.exp(z / temperature) for z in zs[row].tolist()]
        t = [math.exp(z / temperature) for z in zt[row].tolist()]
        for a, b in zip(s, t, strict=True):
            p, q = b / sum(t), a / sum(s)
            expected += temperature**2 * p * math.log(p / q) / 4
    assert got.item() == pytest.approx(expected, rel=1e-4)


def test_label_level_refuses_other_speakers():
    with pytest.raises(RecipeError, match="7 speaker classes and a teacher of 8"):
        LabelSettings().build(side(), side(classes=8))


def test_embedding_level_by_hand():
    pair = side()
    labels = torch.tensor([0, 1])
    ours = view(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), pair.classifier, labels)
    theirs = view(torch.tensor([[0.0, 2.0], [3.0, 3.0]]), pair.classifier, labels)
    cosine = EmbeddingSettings(distance="cosine").build(pair, pair)(ours, theirs, 0.0)
    assert cosine["embedding_cosine"].item() == pytest.approx((1.0 + 0.0) / 2)
    squared = EmbeddingSettings(distance="mse").build(pair, pair)(ours, theirs, 0.0)
    assert squared["embedding_mse"].item() == pytest.approx(((1 + 4) + (4 + 4)) / 2)


def test_a_projector_bridges_sizes_and_is_counted():
    small, large = side(embedding_dim=8), side(embedding_dim=16)
    method = EmbeddingSettings().build(small, large)
    assert sum(parameter.numel() for parameter in method.parameters()) == 8 * 16
    assert sum(p.numel() for p in EmbeddingSettings().build(large, side(embedding_dim=16)).parameters()) == 0
    with pytest.raises(RecipeError, match="8 and a teacher of 16 dimensions"):
        EmbeddingSettings(projector="never").build(small, large)


@pytest.mark.parametrize(
    ("settings", "values", "says"),
    [
        (LabelSettings, {"weight": -1}, "weight: -1 given"),
        (LabelSettings, {"weight": math.nan}, "weight: nan given"),
        (LabelSettings, {"temperature": 0}, "temperature: 0 given; expected more than 0"),
        (EmbeddingSettings, {"weight": -0.5}, "weight: -0.5 given"),
    ],
)
def test_senseless_settings_are_named(settings, values, says):
    with pytest.raises(RecipeError, match=says):
        settings(**values)
