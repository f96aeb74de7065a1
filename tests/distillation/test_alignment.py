"""The three levels of alignment: direct loops, and no matrix between classes."""

import math

import pytest
import torch

from parvox.distillation.alignment import alignment, batch_alignment, class_alignment, instance_alignment

LEVELS = (instance_alignment, class_alignment, batch_alignment)


def posteriors(logits, temperature):
    rows = []
    for row in logits.tolist():
        shifted = [math.exp((value - max(row)) / temperature) for value in row]
        rows.append([value / sum(shifted) for value in shifted])
    return rows


def gram(rows):
    """Inner products of all pairs, by loops."""
    return [[sum(a * b for a, b in zip(one, other, strict=True)) for other in rows] for one in rows]


def squared_distance(one, other):
    return sum((a - b) ** 2 for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def transposed(rows):
    return [list(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("batch", "classes"), [(3, 7), (6, 4)])
def test_each_level_equals_a_direct_loop(temperature, batch, classes):
    draw = torch.Generator().manual_seed(3)
    ours, theirs = (3 * torch.randn(batch, classes, generator=draw) for _ in range(2))
    student, teacher = posteriors(ours, temperature), posteriors(theirs, temperature)
    divergence = sum(
        p * math.log(p / q) for t, s in zip(teacher, student, strict=True) for p, q in zip(t, s, strict=True)
    )
    assert instance_alignment(ours, theirs, temperature).item() == pytest.approx(
        temperature**2 * divergence / batch, rel=1e-4
    )
    between_classes = squared_distance(gram(transposed(teacher)), gram(transposed(student))) / classes
    assert class_alignment(ours, theirs, temperature).item() == pytest.approx(between_classes, rel=1e-4)
    between_instances = squared_distance(gram(teacher), gram(student)) / batch
    assert batch_alignment(ours, theirs, temperature).item() == pytest.approx(between_instances, rel=1e-4)


@pytest.mark.parametrize("level", LEVELS)
def test_zero_for_equals_and_small_differences_are_not_lost(level):
    logits = 5 * torch.randn(8, 30, generator=torch.Generator().manual_seed(1))
    assert level(logits, logits, 2.0).item() == 0
    nudge = torch.randn(8, 30, generator=torch.Generator().manual_seed(2))
    steps = [level(logits + size * nudge, logits, 2.0).item() for size in (1e-2, 2e-2)]
    assert steps[1] / steps[0] == pytest.approx(4, rel=0.05)  # quadratic around equality


@pytest.mark.parametrize("level", LEVELS)
def test_finite_with_certain_posteriors_of_many_classes(level):
    # A matrix between classes would take 40 GB. Were all classes alike, no gradient would move the batch's level.
    ours = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(1)).requires_grad_()
    theirs = torch.zeros(2, 100_000)
    theirs[:, 5] = 100.0
    with torch.autocast("cpu", torch.bfloat16):
        value = level(ours, theirs, 1.0)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(ours.grad).all()
    assert ours.grad.abs().sum() > 0


def plainly(ours, theirs, temperature, instances, classes):
    """The three levels as they are written, matrices between classes and all, for autograd to differentiate."""
    student, teacher = ((each.double() / temperature).softmax(-1) for each in (ours, theirs))
    divergence = (teacher * (teacher.log() - student.log())).sum(-1)
    between = (teacher * classes).T @ (teacher * classes) - (student * classes).T @ (student * classes)
    kept_student, kept_teacher = student * instances[:, None], teacher * instances[:, None]
    among = kept_teacher @ kept_teacher.T - kept_student @ kept_student.T
    return torch.stack(
        [
            temperature**2 * (instances * divergence).mean(),
            between.square().sum() / student.shape[1],
            among.square().sum() / len(student),
        ]
    )


@pytest.mark.parametrize("in_cache", [1, 20, 1000])  # blocks of one column, of four, and all at once
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shares", [(1.0, 1.0, 1.0), (0.0, 3.0, 0.0), (2.0, 0.0, 5.0)])
def test_values_and_gradients_are_those_of_autograd(monkeypatch, in_cache, masked, shares):
    monkeypatch.setattr("parvox.distillation.blocks._IN_CACHE", in_cache)
    draw = torch.Generator().manual_seed(4)
    ours, theirs = (2 * torch.randn(5, 9, generator=draw) for _ in range(2))
    instances, classes = (
        (torch.tensor([1.0, 0, 1, 1, 0]), torch.tensor([1.0, 1, 0, 0, 1, 1, 0, 1, 1]))
        if masked
        else (torch.ones(5), torch.ones(9))
    )
    temperatures, weights = (1.0, 3.0), torch.tensor(shares)
    wanted = tuple(share > 0 for share in shares)
    got, expected = ours.clone().requires_grad_(), ours.clone().requires_grad_()
    keep = (instances, classes) if masked else (None, None)
    levels = alignment(got, theirs, temperatures, wanted, *keep)
    plain = sum(plainly(expected, theirs, temperature, instances, classes) for temperature in temperatures)
    torch.testing.assert_close(weights * levels, (weights * plain).float(), rtol=1e-4, atol=1e-6)
    (weights * levels).sum().backward()
    (weights * plain).sum().backward()
    torch.testing.assert_close(got.grad, expected.grad, rtol=1e-3, atol=1e-5)
