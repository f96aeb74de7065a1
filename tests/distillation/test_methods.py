"""Every distillation method: zero for equals, gradients to the student alone, finite in half precision."""

import copy
import math

import pytest
import torch
from distillation_pairs import features, frozen, look, make, pair_of
from torch import nn

from parvox.distillation import METHODS, View
from parvox.distillation.distillation_token import DistillationToken
from parvox.distillation.embedding import EmbeddingSettings
from parvox.distillation.label import LabelSettings
from parvox.errors import RecipeError

LABELS = torch.tensor([0, 1, 2, 3, 6])


def names():
    return sorted(entry.name for entry in METHODS)


@pytest.mark.parametrize("name", names())
def test_every_term_is_zero_when_student_equals_teacher(name):
    student = make()
    teacher = frozen(copy.deepcopy(student))
    method = METHODS[name].settings().build(pair_of(student, teacher)).eval()
    with torch.no_grad():
        ours, theirs = look(student, features(5), LABELS), look(teacher, features(5), LABELS)
        if isinstance(method, DistillationToken):  # its own head equals the teacher's where both see and are the same
            method.head.load_state_dict(teacher[1].state_dict())
            theirs = View(ours.encoded.tokens[:, 1], teacher[1], LABELS)
        terms = method(ours, theirs, 0.5)
    assert terms
    for value in terms.values():
        assert abs(value.item()) < 1e-5


@pytest.mark.parametrize("name", names())
def test_gradients_reach_the_student_and_never_the_teacher(name):
    student, teacher = make(seed=1), frozen(make(seed=2))
    before = {key: value.clone() for key, value in teacher[0].state_dict().items()}
    method = METHODS[name].settings().build(pair_of(student, teacher))
    with torch.no_grad():
        target = look(teacher, features(5), LABELS)
    sum(method(look(student, features(5), LABELS), target, 0.5).values()).backward()
    reached = [parameter.grad for parameter in student[0].parameters() if parameter.grad is not None]
    assert sum(gradient.abs().sum() for gradient in reached) > 0
    assert all(parameter.grad is None for part in teacher for parameter in part.parameters())
    assert all(torch.equal(before[key], value) for key, value in teacher[0].state_dict().items())
    for parameter in method.parameters():  # a method's own parameters are trained
        assert parameter.grad is not None


CHOICES = [
    *((name, {}) for name in names()),
    *(("integrated", {"reading": reading}) for reading in ("amplify", "path", "attributions")),
    ("integrated", {"normalisation": "minmax"}),
    ("integrated", {"sign": "positive"}),
    ("embedding", {"distance": "mse"}),
    ("attention_maps", {"distance": "mse", "blocks": "all"}),
    ("label", {"margin": True}),
    ("non_target", {"margin": True, "temperature": 1.0, "gamma": 8.0}),
]


@pytest.mark.parametrize(("name", "options"), CHOICES, ids=str)
def test_finite_in_bf16_with_a_certain_teacher_and_many_classes(name, options):
    sizes = {"embedding_dim": 64, "classes": 100_000, "scale": 64.0}
    student, teacher = make(seed=1, **sizes), frozen(make(seed=2, **sizes))
    labels, inputs = torch.tensor([0, 99_999]), features(2) * torch.tensor([1.0, 20.0])[:, None, None]  # far apart
    with torch.no_grad():  # its class centres are where it hears these utterances
        teacher[1].weight[labels] = nn.functional.normalize(look(teacher, inputs, labels).embedding, dim=-1)
    method = METHODS[name].settings(**options).build(pair_of(student, teacher))
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            target = look(teacher, inputs, labels)
            assert target.free_logits.softmax(-1).gather(1, labels[:, None]).min() >= 1 - 1.2e-7  # the next below 1
        total = sum(method(look(student, inputs, labels), target, 1.0).values())
    assert torch.isfinite(total)
    total.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for part in student for p in part.parameters())


@pytest.mark.parametrize("margin", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_label_level_equals_a_direct_loop(temperature, margin):
    student, teacher = make(seed=1), make(seed=2)
    ours, theirs, labels = torch.randn(4, 16), torch.randn(4, 16), torch.tensor([3, 0, 6, 2])
    method = LabelSettings(temperature=temperature, margin=margin).build(pair_of(student, teacher))
    got = method(View(ours, student[1], labels), View(theirs, teacher[1], labels), 0.0)["label_kl"]
    given = labels if margin else None
    zs, zt = student[1].logits(ours, given), teacher[1].logits(theirs, given)
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
        LabelSettings().build(pair_of(make(), make(classes=8)))


def test_label_level_refuses_a_teacher_without_a_classifier():
    with pytest.raises(RecipeError, match="the teacher has no speaker classifier"):
        LabelSettings().build(pair_of(make(), (make()[0], None)))


def test_margins_refuse_speech_without_labels():
    pair = pair_of(make(), make(), labelled=False)
    LabelSettings().build(pair)
    with pytest.raises(RecipeError, match="without speaker labels"):
        LabelSettings(margin=True).build(pair)


def test_embedding_level_by_hand():
    pair = pair_of(make(), make())
    ours, theirs = View(torch.tensor([[1.0, 0.0], [1.0, 1.0]])), View(torch.tensor([[0.0, 2.0], [3.0, 3.0]]))
    cosine = EmbeddingSettings(distance="cosine").build(pair)(ours, theirs, 0.0)
    assert cosine["embedding_cosine"].item() == pytest.approx((1.0 + 0.0) / 2)
    squared = EmbeddingSettings(distance="mse").build(pair)(ours, theirs, 0.0)
    assert squared["embedding_mse"].item() == pytest.approx(((1 + 4) + (4 + 4)) / 2)


def test_a_projector_bridges_sizes_and_is_counted():
    small, large = make(embedding_dim=8), make(embedding_dim=16)
    method = EmbeddingSettings().build(pair_of(small, large))
    assert sum(parameter.numel() for parameter in method.parameters()) == 8 * 16
    assert not list(EmbeddingSettings().build(pair_of(large, large)).parameters())
    with pytest.raises(RecipeError, match="8 and a teacher of 16 dimensions"):
        EmbeddingSettings(projector="never").build(pair_of(small, large))


@pytest.mark.parametrize(
    ("settings", "values", "says"),
    [
        (LabelSettings, {"weight": -1}, "weight: -1 given"),
        (LabelSettings, {"weight": math.nan}, "weight: nan given"),
        (LabelSettings, {"weight": math.inf}, "weight: inf given"),
        (LabelSettings, {"temperature": math.inf}, "temperature: inf given; expected 0.001 to 1000"),
        (LabelSettings, {"temperature": 0}, "temperature: 0 given; expected 0.001 to 1000"),
        (EmbeddingSettings, {"weight": -0.5}, "weight: -0.5 given"),
    ],
)
def test_senseless_settings_are_named(settings, values, says):
    with pytest.raises(RecipeError, match=says):
        settings(**values)
