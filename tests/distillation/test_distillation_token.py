"""The distillation token: labels train the class token's head, the teacher trains the other one."""

import copy
import math

import pytest
import torch
from distillation_pairs import BINS, features, frozen, look, make, pair_of
from torch.nn.functional import cross_entropy

from parvox.distillation.distillation_token import DistillationTokenSettings
from parvox.errors import RecipeError
from parvox.losses import LOSSES
from parvox.models import POOLINGS, ModelSettings, SpeakerModel

LABELS = torch.tensor([0, 1, 2, 3, 6])


def given_pooling(name, **fields):
    """The pair's model with another read-out, and its classifier."""
    model, classifier = make()
    pooling = POOLINGS[name].settings(**fields)
    settings = ModelSettings(
        encoder=model.settings.encoder,
        pooling=pooling,
        embedding_dim=16,
        head="linear",
        features=model.settings.features,
    )
    return SpeakerModel(settings).eval(), classifier


@pytest.mark.parametrize("margin", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_it_equals_a_direct_loop(temperature, margin):
    student, teacher = make(seed=1), frozen(make(seed=2))
    teacher[1].set_progress(1.0)
    settings = DistillationTokenSettings(temperature=temperature, margin=margin, scale=10.0)
    method = settings.build(pair_of(student, teacher))
    ours, theirs = look(student, features(5), LABELS), look(teacher, features(5), LABELS)
    got = method(ours, theirs, 0.5)
    assert list(got) == ["distillation_token"]
    target = teacher[1].logits(theirs.embedding, LABELS if margin else None)
    expected = 0.0
    for row in range(5):
        state = ours.encoded.tokens[row, 1]
        cosines = [(state @ centre / (state.norm() * centre.norm())).item() for centre in method.head.weight]
        s = [math.exp(10.0 * cosine / temperature) for cosine in cosines]
        t = [math.exp(z / temperature) for z in target[row].tolist()]
        for a, b in zip(s, t, strict=True):
            p, q = b / sum(t), a / sum(s)
            expected += temperature**2 * p * math.log(p / q) / 5
    assert got["distillation_token"].item() == pytest.approx(expected, rel=1e-4)


def test_labels_reach_the_class_tokens_head_alone_and_the_teacher_the_other_alone():
    student, teacher = make(seed=1), frozen(make(seed=2))
    method = DistillationTokenSettings().build(pair_of(student, teacher))
    own = [*method.head.parameters()]
    labelled = [*student[1].parameters(), *student[0].head.parameters()]
    shared = [*student[0].encoder.parameters()]

    def gradients(loss):
        every = torch.autograd.grad(loss, own + labelled + shared, allow_unused=True)
        return every[: len(own)], every[len(own) : len(own) + len(labelled)], every[-len(shared) :]

    view = look(student, features(5), LABELS)
    to_own, to_labelled, to_shared = gradients(cross_entropy(view.margin_logits, LABELS))
    assert all(gradient is None for gradient in to_own)
    assert all(gradient.abs().sum() > 0 for gradient in to_labelled)
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in to_shared)
    view = look(student, features(5), LABELS)
    term = method(view, look(teacher, features(5), LABELS), 0.0)["distillation_token"]
    to_own, to_labelled, to_shared = gradients(term)
    assert all(gradient.abs().sum() > 0 for gradient in to_own)
    assert all(gradient is None for gradient in to_labelled)
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in to_shared)


def test_only_the_distillation_tokens_state_is_looked_at():
    student, teacher = make(seed=1), frozen(make(seed=2))
    method = DistillationTokenSettings().build(pair_of(student, teacher))
    ours, theirs = look(student, features(5), LABELS), look(teacher, features(5), LABELS)
    ours.encoded.tokens.retain_grad()
    method(ours, theirs, 0.0)["distillation_token"].backward()
    gradient = ours.encoded.tokens.grad
    assert gradient[:, 0].abs().max() == 0
    assert (gradient[:, 1].abs().amax(1) > 0).all()


@pytest.mark.parametrize(("head", "expected"), [("cosine", 7 * 16), ("linear", 7 * 16 + 7)])
def test_its_head_is_counted_and_learns(head, expected):
    student, teacher = make(seed=1), frozen(make(seed=2))
    method = DistillationTokenSettings(head=head).build(pair_of(student, teacher))
    assert sum(parameter.numel() for parameter in method.parameters()) == expected
    ours, theirs = look(student, features(5), LABELS), look(teacher, features(5), LABELS)
    ours.encoded.tokens = ours.encoded.tokens.detach()
    optimiser = torch.optim.Adam(method.parameters(), 0.05)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = method(ours, theirs, 0.0)["distillation_token"]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize(
    ("student", "says"),
    [
        (given_pooling("class_token"), r"the student has no distillation token.*class_distillation_token"),
        (given_pooling("mean"), "has no distillation token"),
        (given_pooling("class_distillation_token", read="distillation"), "pooling.read distillation given"),
        (make(classes=8), "8 speaker classes and a teacher of 7"),
    ],
)
def test_what_a_pair_lacks_is_named(student, says):
    with pytest.raises(RecipeError, match=says):
        DistillationTokenSettings().build(pair_of(student, make()))


def test_a_teacher_without_classifier_and_margins_without_labels_are_refused():
    with pytest.raises(RecipeError, match="the teacher has no speaker classifier"):
        DistillationTokenSettings().build(pair_of(make(), (make()[0], None)))
    unlabelled = pair_of(make(), make(), labelled=False)
    for margin in (False, True):  # without labels nobody would train the class token
        with pytest.raises(RecipeError, match="without speaker labels"):
            DistillationTokenSettings(margin=margin).build(unlabelled)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"weight": -1.0}, "weight: -1.0"),
        ({"temperature": 0.0}, "temperature: 0.0"),
        ({"head": "deep"}, "head: 'deep' given; expected cosine or linear"),
        ({"scale": 0.0}, "scale: 0.0"),
    ],
)
def test_senseless_settings_are_named(values, says):
    with pytest.raises(RecipeError, match=says):
        DistillationTokenSettings(**values)


def test_the_teachers_speakers_may_be_told_by_another_kind_of_model():
    student = make(seed=1)
    teacher = given_pooling("mean")[0], LOSSES["softmax"].settings().build(16, 7)
    method = DistillationTokenSettings().build(pair_of(student, frozen(copy.deepcopy(teacher))))
    inputs = torch.randn(3, 12, BINS)
    assert method(look(student, inputs, LABELS[:3]), look(teacher, inputs, LABELS[:3]), 0.0)["distillation_token"] > 0
