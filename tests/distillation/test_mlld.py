"""Multi-level logit distillation: its sum over temperatures, its weights and its mask."""

import pytest
import torch
import torch.nn.functional as F
from distillation_pairs import make, pair_of

from parvox.distillation import View
from parvox.distillation.mlld import MlldSettings, uncertain
from parvox.errors import RecipeError


def views(student, teacher, margin_labels=None):
    draw = torch.Generator().manual_seed(1)
    ours, theirs = (torch.randn(6, 16, generator=draw) for _ in range(2))
    return View(ours, student[1], margin_labels), View(theirs, teacher[1], margin_labels)


def test_levels_are_summed_over_temperatures_and_weighted():
    student, teacher = make(seed=1), make(seed=2)
    ours, theirs = views(student, teacher)
    settings = MlldSettings(temperatures=(2.0, 5.0), instance_weight=0.5, class_weight=3.0, batch_weight=7.0)
    got = settings.build(pair_of(student, teacher))(ours, theirs, 0.0)
    expected = dict.fromkeys(("instance", "class", "batch"), 0.0)
    for temperature in (2.0, 5.0):  # with the matrices that the method never forms
        p = [F.softmax(view.free_logits / temperature, dim=1) for view in (theirs, ours)]
        expected["instance"] += 0.5 * temperature**2 * (p[0] * (p[0] / p[1]).log()).sum(1).mean().item()
        expected["class"] += 3.0 * (p[0].T @ p[0] - p[1].T @ p[1]).square().sum().item() / 7
        expected["batch"] += 7.0 * (p[0] @ p[0].T - p[1] @ p[1].T).square().sum().item() / 6
    assert {name: value.item() for name, value in got.items()} == {
        f"mlld_{level}": pytest.approx(value, rel=1e-4) for level, value in expected.items()
    }


def test_a_level_without_weight_is_left_out():
    student, teacher = make(seed=1), make(seed=2)
    got = MlldSettings(class_weight=0.0).build(pair_of(student, teacher))(*views(student, teacher), 0.0)
    assert set(got) == {"mlld_instance", "mlld_batch"}


def test_the_surer_half_of_instances_and_classes_is_left_out():
    logits = torch.log(torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.4, 0.3, 0.2, 0.1], [0.9, 0.05, 0.03, 0.02]]))
    instances, classes = uncertain(logits)
    assert instances.tolist() == [1, 1, 0]  # sureness 0.7, 0.4, 0.9
    assert classes.tolist() == [0, 0, 1, 1]  # sums 2.0, 0.45, 0.33, 0.22
    student, teacher = make(seed=1), make(seed=2)
    ours, theirs = views(student, teacher)
    settings = MlldSettings(temperatures=(2.0,), uncertain=True)
    got = settings.build(pair_of(student, teacher))(ours, theirs, 0.0)
    p, q = (F.softmax(view.free_logits / 2, dim=1) for view in (theirs, ours))
    sure, sums = theirs.free_logits.softmax(1).amax(1), theirs.free_logits.softmax(1).sum(0)
    rows = [i for i in range(6) if sure[i] <= sorted(sure.tolist())[2]]
    columns = [j for j in range(7) if sums[j] <= sorted(sums.tolist())[3]]
    assert (len(rows), len(columns)) == (3, 4)
    a, b = p[rows], q[rows]
    assert got["mlld_instance"].item() == pytest.approx(4 * (a * (a / b).log()).sum().item() / 6, rel=1e-4)
    assert got["mlld_batch"].item() == pytest.approx((a @ a.T - b @ b.T).square().sum().item() / 6, rel=1e-4)
    a, b = p[:, columns], q[:, columns]
    assert got["mlld_class"].item() == pytest.approx((a.T @ a - b.T @ b).square().sum().item() / 7, rel=1e-3)


def test_what_it_needs():
    with pytest.raises(RecipeError, match="7 speaker classes and a teacher of 8"):
        MlldSettings().build(pair_of(make(), make(classes=8)))
    unlabelled = pair_of(make(), make(), labelled=False)
    MlldSettings().build(unlabelled)
    with pytest.raises(RecipeError, match="without speaker labels"):
        MlldSettings(margin=True).build(unlabelled)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"temperatures": ()}, "mlld.temperatures: none given"),
        ({"temperatures": (2.0, 0.0)}, "mlld.temperatures: 0.0 given; expected 0.001 to 1000"),
        ({"class_weight": -1}, "mlld.class_weight: -1 given"),
    ],
)
def test_senseless_settings_are_named(values, says):
    with pytest.raises(RecipeError, match=says):
        MlldSettings(**values)
