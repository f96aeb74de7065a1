"""Target and non-target parts: the identity with plain distillation, direct loops, and fixed other speakers."""

import math

import pytest
import torch
import torch.nn.functional as F
from distillation_pairs import make, pair_of
from hypothesis import given, settings
from hypothesis import strategies as st

from parvox.distillation import View
from parvox.distillation.decoupled import NonTargets, decoupled
from parvox.distillation.dkd import DkdSettings
from parvox.distillation.non_target import NonTargetSettings
from parvox.errors import RecipeError
from parvox.losses.margin import AamSoftmaxSettings

LABELS = torch.tensor([3, 0, 6, 2])


def draws(seed, classes=7, size=3.0):
    return size * torch.randn(4, classes, generator=torch.Generator().manual_seed(seed))


def by_loop(ours, theirs, labels, temperature, others=None):
    """Mean target and non-target parts, and the mean of plain KL over the same speakers, from probabilities."""
    sums = [0.0, 0.0, 0.0]
    for row, label in enumerate(labels.tolist()):
        looked_at = [j for j in (others[row] if others else range(ours.shape[1])) if j != label]
        both = []
        for logits in (theirs, ours):
            scores = {j: math.exp(logits[row, j].item() / temperature) for j in [label, *looked_at]}
            both.append({j: score / sum(scores.values()) for j, score in scores.items()})
        p, q = both
        sums[0] += p[label] * math.log(p[label] / q[label])
        sums[0] += (1 - p[label]) * math.log((1 - p[label]) / (1 - q[label]))
        for j in looked_at:
            a, b = p[j] / (1 - p[label]), q[j] / (1 - q[label])
            sums[1] += a * math.log(a / b)
        sums[2] += sum(p[j] * math.log(p[j] / q[j]) for j in p)
    return [value / len(labels) for value in sums]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_parts_equal_a_direct_loop(temperature):
    ours, theirs = draws(1), draws(2)
    parts = decoupled(ours, theirs, LABELS, temperature)
    expected = by_loop(ours, theirs, LABELS, temperature)
    for part, value in zip(parts, expected, strict=False):
        assert part.mean().item() == pytest.approx(value, rel=1e-4)


@given(st.integers(0, 2**31), st.sampled_from([1.0, 2.5, 4.0]), st.floats(0.1, 20.0))
@settings(max_examples=25, deadline=None)
def test_plain_divergence_is_the_target_part_plus_the_rest_by_its_share(seed, temperature, size):
    ours, theirs = draws(seed, size=size), draws(seed + 1, size=size)
    target, rest = decoupled(ours, theirs, LABELS, temperature)
    plain = F.kl_div(
        (ours / temperature).log_softmax(-1), (theirs / temperature).log_softmax(-1), reduction="none", log_target=True
    ).sum(-1)
    share = 1 - (theirs / temperature).softmax(-1).gather(1, LABELS[:, None])[:, 0]
    torch.testing.assert_close(target + share * rest, plain, rtol=1e-4, atol=1e-5)


def plainly(ours, theirs, temperature, looked_at):
    """Both parts as they are written, for autograd to differentiate; `looked_at` is True at the other speakers."""
    ours, theirs = ours.double() / temperature, theirs.double() / temperature
    shares = []
    for logits in (theirs, ours):
        others = logits.masked_fill(~looked_at, -math.inf)
        target = logits.gather(1, LABELS[:, None])[:, 0] - others.logsumexp(-1)
        shares.append((target.sigmoid(), others.softmax(-1)))
    (p, among), (q, student_among) = shares
    target = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    return target, (among * ((among + 1e-300) / (student_among + 1e-300)).log()).sum(-1)


@pytest.mark.parametrize("in_cache", [1, 12, 1000])  # blocks of one column, of three, and all at once
@pytest.mark.parametrize("count", [None, 3])
def test_values_and_gradients_are_those_of_autograd(monkeypatch, in_cache, count):
    monkeypatch.setattr("parvox.distillation.blocks._IN_CACHE", in_cache)
    others = None if count is None else NonTargets(7, count, seed=5)
    looked_at = torch.ones(4, 7, dtype=torch.bool)
    if count is not None:
        order = torch.randperm(7, generator=torch.Generator().manual_seed(5)).tolist()
        for row, label in zip(looked_at, LABELS.tolist(), strict=True):
            row[[speaker for speaker in order if speaker != label][count:]] = False
    looked_at.scatter_(1, LABELS[:, None], False)
    theirs, weights = draws(2), torch.tensor([1.0, 0.5, 2.0, 3.0])
    got, expected = draws(1).requires_grad_(), draws(1).requires_grad_()
    parts, plain = decoupled(got, theirs, LABELS, 2.0, others), plainly(expected, theirs, 2.0, looked_at)
    for part, value in zip(parts, plain, strict=True):
        torch.testing.assert_close(part, value.float(), rtol=1e-4, atol=1e-6)
    for target, rest in (parts, plain):
        (weights * (target + 3 * rest.flip(0))).sum().backward()
    torch.testing.assert_close(got.grad, expected.grad, rtol=1e-3, atol=1e-6)


def test_a_certain_teacher_starves_the_rest_of_plain_distillation_alone():
    """The gradient of plain KL at the other speakers shrinks by 1 - p_t; that of the non-target part does not."""
    sizes = []
    for logit in (0.0, 12.0):
        theirs = draws(2)
        theirs.scatter_(1, LABELS[:, None], theirs.logsumexp(1, keepdim=True) + logit)
        ours = draws(1).requires_grad_()
        _, rest = decoupled(ours, theirs, LABELS, 1.0)
        (gradient,) = torch.autograd.grad(rest.mean(), ours)
        sizes.append((gradient.norm().item(), (1 - theirs.softmax(-1).gather(1, LABELS[:, None])).mean().item()))
    assert sizes[1][1] < 1e-4 < sizes[0][1]
    assert sizes[1][0] == pytest.approx(sizes[0][0], rel=1e-3)


@pytest.mark.parametrize("certainty", [20.0, 200.0])
def test_finite_and_not_rounded_to_zero_where_the_teacher_is_certain(certainty):
    ours, theirs = draws(1).requires_grad_(), draws(2)
    theirs.scatter_(1, LABELS[:, None], certainty)
    target, rest = decoupled(ours, theirs, LABELS, 1.0)
    (target + rest).sum().backward()
    assert torch.isfinite(target + rest).all()
    assert torch.isfinite(ours.grad).all()
    assert (rest > 0.01).all()


@pytest.mark.parametrize(
    ("method", "name", "weights"),
    [
        (NonTargetSettings(gamma=2.0, temperature=1.5, warmup=0.0), "non_target", (1.0, 2.0)),
        (DkdSettings(alpha=0.5, beta=8.0, temperature=4.0, margin=True, warmup=0.0), "dkd", (0.5, 8.0)),
    ],
)
def test_methods_weight_the_parts_of_logits_with_margin(method, name, weights):
    student, teacher = make(seed=1), make(seed=2)
    student[1].set_progress(0.2)  # the student's margin follows its schedule, the teacher's is final
    teacher[1].set_progress(1.0)
    ours, theirs = draws(3, 16), draws(4, 16)
    got = method.build(pair_of(student, teacher))(View(ours, student[1], LABELS), View(theirs, teacher[1], LABELS), 0.5)
    with_margin = student[1].logits(ours, LABELS), teacher[1].logits(theirs, LABELS)
    target, rest, _ = by_loop(*with_margin, LABELS, method.temperature)
    assert got[f"{name}_target"].item() == pytest.approx(method.temperature**2 * weights[0] * target, rel=1e-3)
    assert got[f"{name}_rest"].item() == pytest.approx(method.temperature**2 * weights[1] * rest, rel=1e-3)


def test_the_margin_changes_the_target_part_alone():
    student, teacher = make(seed=1), make(seed=2)
    for _, classifier in (student, teacher):
        classifier.set_progress(1.0)
    views = View(draws(3, 16), student[1], LABELS), View(draws(4, 16), teacher[1], LABELS)
    terms = [NonTargetSettings(margin=margin).build(pair_of(student, teacher))(*views, 1.0) for margin in (False, True)]
    assert terms[0]["non_target_rest"].item() == pytest.approx(terms[1]["non_target_rest"].item(), rel=1e-5)
    assert abs(terms[0]["non_target_target"] - terms[1]["non_target_target"]) > 1e-3


def test_the_penalty_of_confused_speakers_comes_with_the_margin_and_changes_the_rest():
    sides = [make(seed=seed) for seed in (1, 2)]
    views = []
    for seed, (_, plain) in enumerate(sides):
        loss = AamSoftmaxSettings(top_k=2, top_k_penalty=0.1).build(16, 7)
        loss.load_state_dict(plain.state_dict())
        loss.set_progress(1.0)
        views.append(View(draws(3 + seed, 16), loss, LABELS))
    found = []
    for margin in (False, True):
        got = NonTargetSettings(margin=margin, gamma=1.0).build(pair_of(*sides))(*views, 1.0)["non_target_rest"]
        logits = (view.classifier.logits(view.embedding, LABELS if margin else None) for view in views)
        assert got.item() == pytest.approx(by_loop(*logits, LABELS, 1.0)[1], rel=1e-3)
        found.append(got.item())
    assert abs(found[1] - found[0]) > 1e-2


def test_both_parts_rise_over_the_warm_up():
    student, teacher = make(seed=1), make(seed=2)
    views = View(draws(3, 16), student[1], LABELS), View(draws(4, 16), teacher[1], LABELS)
    method = NonTargetSettings(warmup=0.2).build(pair_of(student, teacher))
    totals = [sum(method(*views, progress).values()).item() for progress in (0.0, 0.1, 0.2, 0.9)]
    assert totals == [0.0, pytest.approx(totals[2] / 2), pytest.approx(totals[2]), totals[2]]


@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_number_of_other_speakers_equals_a_loop_over_those(count):
    others = NonTargets(7, count, seed=5)
    ours, theirs = draws(1), draws(2)
    looked_at = []
    for label in LABELS.tolist():  # the first of the order that are not one's own
        order = torch.randperm(7, generator=torch.Generator().manual_seed(5)).tolist()
        looked_at.append([speaker for speaker in order if speaker != label][:count])
    parts = decoupled(ours, theirs, LABELS, 2.0, others)
    target, rest, _ = by_loop(ours, theirs, LABELS, 2.0, looked_at)
    assert parts[0].mean().item() == pytest.approx(target, rel=1e-4)
    assert parts[1].mean().item() == pytest.approx(rest, rel=1e-4, abs=1e-7)


def test_all_other_speakers_counted_out_are_all_of_them():
    all_of_them, counted = (
        decoupled(draws(1), draws(2), LABELS, 1.0, others) for others in (None, NonTargets(7, 6, seed=9))
    )
    for one, other in zip(all_of_them, counted, strict=True):
        torch.testing.assert_close(one, other)


def test_more_other_speakers_than_there_are_is_refused():
    with pytest.raises(RecipeError, match=r"non_targets: 7 given; expected at most 6"):
        NonTargetSettings(non_targets=7).build(pair_of(make(), make()))


@pytest.mark.parametrize("method", [NonTargetSettings(), DkdSettings()])
def test_the_parts_need_labels_and_the_same_speakers(method):
    with pytest.raises(RecipeError, match="without speaker labels"):
        method.build(pair_of(make(), make(), labelled=False))
    with pytest.raises(RecipeError, match="7 speaker classes and a teacher of 8"):
        method.build(pair_of(make(), make(classes=8)))


@pytest.mark.parametrize(
    ("settings_class", "values", "says"),
    [
        (NonTargetSettings, {"gamma": -1}, "non_target.gamma: -1 given; expected 0 or more"),
        (NonTargetSettings, {"temperature": 0}, "non_target.temperature: 0 given"),
        (NonTargetSettings, {"warmup": 1.5}, "non_target.warmup: 1.5 given; expected a fraction"),
        (NonTargetSettings, {"non_targets": -3}, "non_target.non_targets: -3 given"),
        (DkdSettings, {"alpha": math.nan}, "dkd.alpha: nan given"),
        (DkdSettings, {"beta": -8}, "dkd.beta: -8 given"),
    ],
)
def test_senseless_settings_are_named(settings_class, values, says):
    with pytest.raises(RecipeError, match=says):
        settings_class(**values)
