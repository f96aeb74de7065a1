"""Integrated multi-level distillation: its readings, its terms, and what is left untouched."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from distillation_pairs import FRAMES, features, frozen, look, make, pair_of

from parvox.distillation import Side
from parvox.distillation.alignment import batch_alignment, class_alignment, instance_alignment
from parvox.distillation.attribution import integrated_gradients, true_speaker_score
from parvox.distillation.contract import Pair
from parvox.distillation.integrated import IntegratedSettings, statistics_kept
from parvox.distillation.maps import normalised
from parvox.errors import RecipeError

LABELS = torch.tensor([0, 1, 2, 3, 6])
QUICK = {"steps": 3, "durations_s": (0.1, 0.0)}
READINGS = ["mask", "path", "amplify", "attributions"]


def sides():
    return make(seed=1), frozen(make(seed=2))


def built(student, teacher, **options):
    return IntegratedSettings(**QUICK | options).build(pair_of(student, teacher))


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("target", ["posterior", "cosine"])
def test_every_reading_is_zero_for_equals_and_teaches_the_student_alone(reading, target):
    student = make(seed=1)
    teacher = frozen(copy.deepcopy(student))
    method = built(student, teacher, reading=reading, target=target)
    terms = method(look(student, features(5), LABELS), look(teacher, features(5), LABELS), 0.5)
    assert all(abs(value.item()) < 1e-5 for value in terms.values())
    assert len(terms) == (4 if reading == "attributions" else 6)

    student, teacher = sides()
    before = {name: value.clone() for name, value in teacher[0].state_dict().items()}
    terms = built(student, teacher, reading=reading, target=target, plain_weight=0)(
        look(student, features(5), LABELS), look(teacher, features(5), LABELS), 0.5
    )
    assert len(terms) == (1 if reading == "attributions" else 3)
    sum(terms.values()).backward()
    assert sum(p.grad.abs().sum() for p in student[0].parameters() if p.grad is not None) > 0
    assert all(p.grad is None for part in teacher for p in part.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher[0].state_dict().items())


def test_attributions_of_a_hopeless_student_have_a_direction():
    """Its posteriors are so small that the squares of their attributions underflow in float32."""
    student, teacher = sides()
    x, labels = features(2), LABELS[:2]
    with torch.no_grad():
        embeddings = student[0].embed_features(x).embedding
        student[1].weight[labels] = -embeddings
        student[1].weight[[5, 6]] = embeddings
        assert 0 < student[1].logits(embeddings).softmax(1)[[0, 1], labels].max() < 1e-25
    (term,) = built(student, teacher, reading="attributions", plain_weight=0)(
        look(student, x, labels), look(teacher, x, labels), 0.5
    ).values()
    assert 0 <= term.item() <= 4
    assert term.dtype == torch.float32
    term.backward()
    largest = max(p.grad.abs().max().item() for p in student[0].parameters() if p.grad is not None)
    assert 0 < largest < 1e3


def test_integrated_inputs_by_hand():
    student, teacher = sides()
    x = features(5)
    view = look(teacher, x, LABELS)
    score = true_speaker_score(*teacher, LABELS)
    parts = [integrated_gradients(score, x[:, s : s + 10], steps=3) for s in (0, 10, 20)]
    maps = (torch.cat(parts, 1).abs() + integrated_gradients(score, x, steps=3).abs()) / 2
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    maps = (maps - low) / (high - low)
    masked = built(student, teacher, normalisation="minmax").integrated_input(view)
    np.testing.assert_allclose(masked, maps * x, rtol=1e-3, atol=1e-5)
    amplified = built(student, teacher, reading="amplify", normalisation="minmax").integrated_input(view)
    np.testing.assert_allclose(amplified, x * (1 + maps), rtol=1e-3, atol=1e-5)


def test_a_mask_leads_from_the_baseline_to_the_input():
    student, teacher = sides()
    view = look(teacher, features(5) + 3, LABELS)
    x, mean = view.features, view.features.mean(1, keepdim=True)
    got = built(student, teacher, baseline="utterance_mean").integrated_input(view)
    part = (got - mean) / (x - mean)
    assert part.min() > -1e-3
    assert part.max() < 1 + 1e-3
    assert part.mean().item() == pytest.approx(0.5, abs=0.01)


def test_a_path_point_is_drawn_for_each_item_from_torchs_generator():
    student, teacher = sides()
    method, view = built(student, teacher, reading="path"), look(teacher, features(5), LABELS)
    torch.manual_seed(3)
    first = method.integrated_input(view)
    share = first / view.features
    assert len({round(value, 4) for value in share[:, 0, 0].tolist()}) == 5
    np.testing.assert_allclose(share, share[:, :1, :1].expand_as(share), rtol=1e-3)
    assert 0 <= share.min() <= share.max() <= 1
    torch.manual_seed(3)
    assert torch.equal(method.integrated_input(view), first)


def test_the_random_control_has_the_masks_values_in_other_places():
    student, teacher = sides()
    ones = look(teacher, features(5), LABELS)
    maps = normalised(built(student, teacher).maps.of(ones), "rank")
    got = built(student, teacher, map="random").integrated_input(ones) / ones.features
    for ours, theirs in zip(got, maps, strict=True):
        np.testing.assert_allclose(ours.flatten().sort().values, theirs.flatten().sort().values, atol=1e-4)
        assert (ours - theirs).abs().max() > 0.5


def test_levels_are_summed_over_temperatures_on_both_inputs_with_their_weights():
    student, teacher = sides()
    method = built(
        student, teacher, temperatures=(2.0, 5.0), instance_weight=0.5, class_weight=3, plain_weight=0.25, weight=9
    )
    ours, theirs = look(student, features(5), LABELS), look(teacher, features(5), LABELS)
    got = method(ours, theirs, 0.0)
    changed = method.integrated_input(theirs)
    for prefix, own, inputs in (("integrated_plain", 0.25, features(5)), ("integrated", 1.0, changed)):
        views = look(student, inputs, LABELS), look(teacher, inputs, LABELS)
        for level, weight, align in (
            ("instance", 0.5, instance_alignment),
            ("class", 3.0, class_alignment),
            ("batch", 1.0, batch_alignment),
        ):
            expected = sum(align(views[0].free_logits, views[1].free_logits, t).item() for t in (2.0, 5.0))
            assert got[f"{prefix}_{level}"].item() == pytest.approx(own * weight * expected, rel=1e-3)


def test_only_the_plain_input_moves_the_students_statistics():
    student, teacher = sides()
    alone = copy.deepcopy(student)
    method = built(student, teacher)
    method(look((student[0].train(), student[1]), features(5), LABELS), look(teacher, features(5), LABELS), 0.0)
    look((alone[0].train(), alone[1]), features(5), LABELS)
    assert any("running_var" in name for name, _ in alone[0].named_buffers())
    for (name, ours), theirs in zip(student[0].named_buffers(), alone[0].buffers(), strict=True):
        assert torch.equal(ours, theirs) or "num_batches" in name


def test_statistics_are_kept_even_after_an_error():
    norm = torch.nn.BatchNorm1d(3, momentum=0.3)
    with pytest.raises(ZeroDivisionError), statistics_kept(norm):
        norm(torch.randn(8, 3))
        assert torch.equal(norm.running_mean, torch.zeros(3))
        raise ZeroDivisionError
    assert norm.momentum == 0.3


def test_a_step_costs_what_is_said():
    student, teacher = sides()
    counted = {"student": 0.0, "teacher": 0.0}
    for name, side in (("student", student), ("teacher", teacher)):
        original = side[0].embed_features

        def watched(x, lengths=None, name=name, original=original):
            counted[name] += x.shape[0] * x.shape[1] / (5 * FRAMES)
            return original(x, lengths)

        side[0].embed_features = watched
    for options in ({"reading": reading} for reading in READINGS):
        counted.update(student=0.0, teacher=0.0)
        settings = IntegratedSettings(**QUICK | options | {"durations_s": (0.08, 0.1, 0.0)})
        method = settings.build(pair_of(student, teacher))
        method(look(student, features(5), LABELS), look(teacher, features(5), LABELS), 0.0)
        passes = settings.passes(teacher[0], features(1))
        assert counted["teacher"] == pytest.approx(passes.teacher_forward)
        assert counted["student"] == pytest.approx(passes.student + passes.student_attributions)
    # 0.08 s is 4 segments of 8 frames for 30: the last reaches back
    gradients = 3 * (32 + 30 + 30) / 30
    assert IntegratedSettings(**QUICK | {"durations_s": (0.08, 0.1, 0.0)}).passes(teacher[0], features(1)) == (
        pytest.approx(2 + gradients),
        pytest.approx(gradients),
        2,
        0,
    )
    assert IntegratedSettings(cache="maps").passes(teacher[0], features(1)) == (2, 0, 2, 0)
    assert IntegratedSettings(integrated_weight=0).passes(teacher[0], features(1)) == (1, 0, 1, 0)


def test_what_it_needs():
    student, teacher = sides()
    embedding_only = Pair(Side.of("the student", *student), Side("big.onnx", 192, 7))
    with pytest.raises(RecipeError, match="integrated: big.onnx shows its embedding only"):
        IntegratedSettings().build(embedding_only)
    with pytest.raises(RecipeError, match="the teacher has no speaker classifier"):
        IntegratedSettings().build(pair_of(student, (teacher[0], None)))
    with pytest.raises(RecipeError, match="7 speaker classes and a teacher of 8"):
        IntegratedSettings().build(pair_of(student, make(classes=8)))
    unlabelled = pair_of(student, teacher, labelled=False)
    IntegratedSettings(reading="path").build(unlabelled)
    with pytest.raises(RecipeError, match="integrated: speech without speaker labels"):
        IntegratedSettings().build(unlabelled)
    other = make(shift_ms=5.0)
    with pytest.raises(RecipeError, match=r"frame_shift_ms 10.0 and the teacher's 5.0.*set model.features"):
        IntegratedSettings().build(pair_of(student, frozen(other)))
    with pytest.raises(RecipeError, match="maps given, but the teacher changes with every step"):
        changing = dataclasses.replace(Side.of("the teacher", *teacher), changes=True)
        IntegratedSettings(cache="maps").build(Pair(Side.of("the student", *student), changing))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"temperatures": ()}, "temperatures: none given"),
        ({"temperatures": (4.0, 0.0)}, "temperatures: 0.0 given; expected 0.001 to 1000"),
        ({"integrated_weight": -1}, "integrated_weight: -1 given"),
        ({"reading": "path", "cache": "maps"}, "cache: maps given with reading path"),
        ({"reading": "attributions", "map": "random"}, "map: random given with reading attributions"),
    ],
)
def test_senseless_settings_are_named(values, says):
    with pytest.raises(RecipeError, match=says):
        IntegratedSettings(**values)
