"""Speaker losses against direct loops over angles."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parvox.errors import RecipeError
from parvox.losses import LOSSES
from parvox.losses.margin import AamSoftmaxSettings, AmSoftmaxSettings, SoftmaxSettings, margin_ramp

DIM, CLASSES, BATCH = 12, 9, 7


def drawn(seed: int, loss) -> tuple[torch.Tensor, torch.Tensor]:
    """Random embeddings and labels, and random centres put into `loss`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        loss.weight.copy_(torch.randn(loss.weight.shape, generator=generator))
    return (
        torch.randn(BATCH, DIM, generator=generator) * 3,
        torch.randint(CLASSES, (BATCH,), generator=generator),
    )


def direct_logits(kind: str, embeddings, weight, labels, *, scale, margin, sub_centres=1, k=0, penalty=0.0):
    """Logits by the definitions, one number at a time, by angles from `math.acos`."""
    centres = np.asarray(weight, dtype=np.float64).reshape(CLASSES, sub_centres, DIM)
    rows = []
    for embedding, label in zip(np.asarray(embeddings, dtype=np.float64), labels.tolist(), strict=True):
        cosines = []
        for speaker in centres:
            cosines.append(max(float(e @ embedding / np.linalg.norm(e) / np.linalg.norm(embedding)) for e in speaker))
        others = sorted((j for j in range(CLASSES) if j != label), key=lambda j: -cosines[j])
        row = []
        for j, cosine in enumerate(cosines):
            angle = math.acos(max(-1.0, min(1.0, cosine)))
            if j == label:
                if kind == "am":
                    value = cosine - margin
                elif angle + margin < math.pi:
                    value = math.cos(angle + margin)
                else:
                    value = cosine - 1 - math.cos(math.pi - margin)
            elif j in others[:k]:
                value = cosine + penalty if kind == "am" else math.cos(angle - penalty)
            else:
                value = cosine
            row.append(scale * value)
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def direct_loss(logits, labels) -> float:
    rows = logits.double().numpy()
    return float(
        np.mean([math.log(sum(math.exp(v - row[y]) for v in row)) for row, y in zip(rows, labels, strict=True)])
    )


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["am", "aam"]),
    seed=st.integers(0, 10_000),
    margin=st.floats(0, 0.6),
    scale=st.floats(1, 40),
    sub_centres=st.integers(1, 3),
    k=st.integers(0, CLASSES - 2),
    penalty=st.floats(0, 0.2),
)
def test_logits_and_loss_equal_the_definition(kind, seed, margin, scale, sub_centres, k, penalty):
    shared = {"scale": scale, "sub_centres": sub_centres, "top_k": k, "top_k_penalty": penalty, "margin_end": 0.3}
    made = (
        AmSoftmaxSettings(margin=margin, **shared) if kind == "am" else AamSoftmaxSettings(margin_rad=margin, **shared)
    )
    loss = made.build(DIM, CLASSES)
    loss.set_progress(1.0)
    embeddings, labels = drawn(seed, loss)
    expected = direct_logits(
        kind,
        embeddings,
        loss.weight.detach(),
        labels,
        scale=scale,
        margin=margin,
        sub_centres=sub_centres,
        k=k,
        penalty=penalty,
    )
    torch.testing.assert_close(loss.logits(embeddings, labels).double(), expected, atol=2e-4, rtol=0)
    assert loss(embeddings, labels).item() == pytest.approx(direct_loss(expected, labels), abs=2e-4)


@pytest.mark.parametrize(
    "made", [AmSoftmaxSettings(top_k=3, sub_centres=2), AamSoftmaxSettings(top_k=3, sub_centres=2)]
)
def test_logits_without_labels_are_scaled_cosines(made):
    loss = made.build(DIM, CLASSES)
    loss.set_progress(1.0)
    embeddings, labels = drawn(3, loss)
    expected = direct_logits(
        "am", embeddings, loss.weight.detach(), labels, scale=made.scale, margin=0.0, sub_centres=2
    )
    torch.testing.assert_close(loss.logits(embeddings).double(), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(loss.scores(embeddings) * made.scale, loss.logits(embeddings))


def test_softmax_is_cross_entropy_over_a_linear_layer():
    loss = SoftmaxSettings().build(DIM, CLASSES)
    embeddings, labels = drawn(1, loss)
    with torch.no_grad():
        loss.bias.normal_(generator=torch.Generator().manual_seed(9))
    by_hand = embeddings @ loss.weight.T + loss.bias
    torch.testing.assert_close(loss.logits(embeddings, labels), by_hand)
    torch.testing.assert_close(loss.scores(embeddings), by_hand)
    assert loss(embeddings, labels).item() == pytest.approx(direct_loss(by_hand.detach(), labels), abs=1e-5)
    loss.set_progress(1.0)
    assert loss.margin == 0.0


def test_margin_schedule_is_zero_then_rises_then_exact():
    loss = AamSoftmaxSettings(margin_rad=0.3, margin_start=0.2, margin_end=0.6, top_k=2, top_k_penalty=0.05).build(
        DIM, CLASSES
    )
    assert (loss.margin, loss.penalty) == (0.0, 0.0)
    values = []
    for step in range(101):
        loss.set_progress(step / 100)
        values.append(loss.margin)
        # The penalty keeps its ratio to the margin.
        assert loss.penalty == pytest.approx(0.05 * loss.margin / 0.3)
    assert values[:21] == [0.0] * 21
    assert all(a < b for a, b in itertools.pairwise(values[20:61]))
    assert values[60:] == [0.3] * 41
    # Half way, by WeSpeaker's formula written out: 1 - exp(0.5 ln(1e-3 / (1 + 1e-6))) = 1 - sqrt(0.000999999).
    assert values[40] == pytest.approx(0.3 * (1 - math.sqrt(0.001 / 1.000001)), rel=1e-9)


def test_schedule_of_no_length_is_a_step():
    assert [margin_ramp(p, 0.5, 0.5) for p in (0.0, 0.49, 0.5, 1.0)] == [0.0, 0.0, 1.0, 1.0]
    assert margin_ramp(0.0, 0.0, 0.0) == 1.0


@pytest.mark.parametrize("kind", [AmSoftmaxSettings, AamSoftmaxSettings])
@pytest.mark.parametrize("off", [{"top_k": 0}, {"top_k": 4, "top_k_penalty": 0.0}])
def test_no_penalty_gives_the_plain_loss(kind, off):
    plain, other = kind().build(DIM, CLASSES), kind(**off).build(DIM, CLASSES)
    embeddings, labels = drawn(5, plain)
    drawn(5, other)
    plain.set_progress(1.0)
    other.set_progress(1.0)
    assert torch.equal(plain.logits(embeddings, labels), other.logits(embeddings, labels))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, CLASSES - 2))
def test_penalty_raises_exactly_k_others_and_never_the_target(seed, k):
    plain = AmSoftmaxSettings(scale=1.0).build(DIM, CLASSES)
    pushed = AmSoftmaxSettings(scale=1.0, top_k=k).build(DIM, CLASSES)
    embeddings, _ = drawn(seed, plain)
    drawn(seed, pushed)
    labels = plain.scores(embeddings).argmax(1)  # the target is the nearest of all: the tempting choice
    plain.set_progress(1.0)
    pushed.set_progress(1.0)
    raised = pushed.logits(embeddings, labels) - plain.logits(embeddings, labels)
    assert raised.gather(1, labels[:, None]).abs().max() == 0
    changed = raised.abs() > 1e-6
    assert changed.sum(1).tolist() == [k] * BATCH
    torch.testing.assert_close(raised[changed], torch.full((k * BATCH,), 0.06), atol=1e-6, rtol=0)
    cosines = plain.scores(embeddings)
    spared = ~changed
    spared.scatter_(1, labels[:, None], False)
    for row in range(BATCH):  # none that was spared is nearer than one that was pushed
        assert cosines[row][spared[row]].max() <= cosines[row][changed[row]].min()


def test_aam_curve_is_continuous_and_falls_with_the_angle():
    loss = AamSoftmaxSettings(margin_rad=0.4).build(DIM, CLASSES)
    loss.set_progress(1.0)
    angles = torch.linspace(0.001, math.pi - 0.001, 20_000, dtype=torch.float64)
    curve = loss.hold_back(angles.cos())
    steps = curve.diff()
    assert (steps < 0).all()
    assert steps.abs().max() < 2 * (angles[1] - angles[0])  # no jump, at pi - m least of all


@pytest.mark.parametrize("penalty", [0.06, 0.3, 1.0, 1.5])
def test_nearer_speakers_are_pushed_no_less_and_none_away(penalty):
    loss = AamSoftmaxSettings(top_k=1, top_k_penalty=penalty).build(DIM, CLASSES)
    loss.set_progress(1.0)
    angles = torch.linspace(0.001, math.pi - 0.001, 20_000, dtype=torch.float64)
    curve = loss.push_on(angles.cos())
    far = angles > penalty
    torch.testing.assert_close(curve[far], (angles[far] - penalty).cos())
    assert (curve.diff() < 0).all()
    assert (curve >= angles.cos()).all()
    assert curve.diff().abs().max() < 2 * (angles[1] - angles[0])


@pytest.mark.parametrize("kind", [AmSoftmaxSettings, AamSoftmaxSettings])
def test_embeddings_on_and_opposite_their_centre_give_finite_gradients(kind):
    loss = kind(top_k=3).build(DIM, CLASSES)
    loss.set_progress(1.0)
    embeddings = torch.cat([loss.weight[:3].detach(), -loss.weight[:3].detach()]).requires_grad_()
    loss(embeddings, torch.tensor([0, 1, 2, 0, 1, 2])).backward()
    assert torch.isfinite(embeddings.grad).all()
    assert torch.isfinite(loss.weight.grad).all()


def test_gradient_agrees_with_finite_differences():
    loss = AamSoftmaxSettings(top_k=2, sub_centres=2, scale=4.0).build(DIM, CLASSES).double()
    loss.set_progress(1.0)
    embeddings, labels = drawn(11, loss)
    assert torch.autograd.gradcheck(lambda e: loss(e, labels), (embeddings.double().requires_grad_(),))


@pytest.mark.parametrize("name", ["softmax", "am_softmax", "aam_softmax"])
def test_bf16_autocast_changes_nothing_but_the_embeddings_precision(name):
    loss = LOSSES[name].settings().build(DIM, CLASSES)
    loss.set_progress(1.0)
    embeddings, labels = drawn(2, loss)
    coarse = embeddings.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, value = loss.logits(coarse, labels), loss(coarse, labels)
    assert logits.dtype == value.dtype == torch.float32
    torch.testing.assert_close(logits, loss.logits(coarse.float(), labels))
    torch.testing.assert_close(value, loss(coarse.float(), labels))


@pytest.mark.parametrize("name", ["softmax", "am_softmax", "aam_softmax"])
def test_weights_survive_a_state_dict(name):
    loss, other = (LOSSES[name].settings().build(DIM, CLASSES) for _ in range(2))
    embeddings, labels = drawn(4, loss)
    assert not torch.allclose(loss(embeddings, labels), other(embeddings, labels))
    other.load_state_dict(loss.state_dict())
    assert torch.equal(loss(embeddings, labels), other(embeddings, labels))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: AamSoftmaxSettings(margin_rad=2.0), "margin_rad 2.0"),
        (lambda: AamSoftmaxSettings(margin_rad=-0.1), "margin_rad -0.1"),
        (lambda: AmSoftmaxSettings(scale=0), "scale 0"),
        (lambda: AmSoftmaxSettings(margin_start=0.5, margin_end=0.4), "margin_start 0.5 and margin_end 0.4"),
        (lambda: AmSoftmaxSettings(sub_centres=0), "sub_centres 0"),
        (lambda: AmSoftmaxSettings(top_k=-1), "top_k -1"),
        (lambda: AamSoftmaxSettings(top_k=8).build(DIM, 9), "top_k 8 with 9 training speakers"),
        (lambda: SoftmaxSettings().build(DIM, 1), "1 speakers"),
    ],
)
def test_bad_settings_are_refused(make, says):
    with pytest.raises(RecipeError, match=says):
        make()
    AamSoftmaxSettings(top_k=7).build(DIM, 9)  # one below the limit is fine


def test_unknown_loss_names_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'aam_softmax'"):
        LOSSES["aamsoftmax"]
