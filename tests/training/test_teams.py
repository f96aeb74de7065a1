"""Teams of teachers, by hand; and the teacher that is the student's own average."""

import csv
import math

import pytest
import torch

from parvox.distillation import Pair, Side, View
from parvox.distillation.attention_transfer import AttentionTransferSettings
from parvox.distillation.embedding import EmbeddingSettings
from parvox.distillation.label import LabelSettings
from parvox.distillation.relational import RelationalSettings
from parvox.errors import RecipeError, TrainingError
from parvox.losses import LOSSES
from parvox.models import ENCODERS, POOLINGS, ModelSettings, SpeakerModel
from parvox.models.frontend import FbankSettings
from parvox.training.checkpoint import load_tensors
from parvox.training.recipe import load_recipe
from parvox.training.teacher_settings import AverageSettings, TeacherOptions, TeamSettings
from parvox.training.teachers import load_teachers
from parvox.training.teachers.average import AverageTeacher
from parvox.training.teachers.contract import Inputs, Teacher
from parvox.training.teachers.team import Team, TeamView, confidence
from parvox.training.trainer import train

LABELS = torch.tensor([1, 0])
FIRST = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]])
SECOND = torch.tensor([[0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])


class Member(Teacher):
    """A teacher of given posteriors and embeddings."""

    def __init__(self, name, posteriors=None, dim=2, rate=16000, speakers=("a", "b", "c")):
        self.posteriors = posteriors
        classes = 0 if posteriors is None else posteriors.shape[1]
        self.side = Side(name, dim, classes)
        self.sample_rate_hz = rate
        self.speakers = list(speakers) if classes else None

    def view(self, inputs):
        view = View(torch.full((2, self.side.embedding_dim), 3.0), labels=inputs.labels)
        if self.posteriors is not None:
            view.free_logits = view.margin_logits = self.posteriors.log() + 5  # softmax takes no notice of the 5
        return view


def inputs(labels=LABELS):
    return Inputs(torch.zeros(2, 10), torch.zeros(2, 1, 1), labels)


def test_the_mean_of_posteriors_and_of_directions():
    team = Team([Member("one", FIRST), Member("two", SECOND)], TeamSettings())
    view = team.view(inputs())
    torch.testing.assert_close(view.free_logits.exp(), (FIRST + SECOND) / 2)
    torch.testing.assert_close(view.margin_logits.exp(), (FIRST + SECOND) / 2)
    torch.testing.assert_close(view.embedding, torch.full((2, 2), 0.5**0.5))
    assert (team.side.embedding_dim, team.side.classes, team.speakers) == (2, 3, ["a", "b", "c"])


def test_the_one_who_is_right_counts_more():
    team = Team([Member("one", FIRST), Member("two", SECOND)], TeamSettings(combine="confidence"))
    view = team.view(inputs())
    for row, label in enumerate(LABELS.tolist()):
        losses = [-math.log(posteriors[row, label]) for posteriors in (FIRST, SECOND)]
        shares = [math.exp(loss) / sum(map(math.exp, losses)) for loss in losses]
        weights = [1 - share for share in shares]  # by K - 1, which is 1
        expected = weights[0] * FIRST[row] + weights[1] * SECOND[row]
        torch.testing.assert_close(view.free_logits[row].exp(), expected)
    assert view.weights[1, 0] > 0.75  # the second teacher knows who spoke the first utterance
    assert view.weights[0, 1] > 0.7


def test_without_labels_the_one_who_is_sure_counts_more():
    sure, unsure = torch.tensor([[0.98, 0.01, 0.01]]), torch.full((1, 3), 1 / 3)
    entropies = [-(p * p.log()).sum().item() for p in (sure, unsure)]
    total = sum(map(math.exp, entropies))
    weights = confidence([sure.log(), unsure.log()], None)
    assert weights[:, 0].tolist() == pytest.approx([1 - math.exp(each) / total for each in entropies])
    assert weights[0, 0] > 0.7


def test_weights_of_three_sum_to_one_and_certainty_stays_finite():
    logits = [torch.tensor([[200.0, 0.0, 0.0]]), torch.tensor([[0.0, 200.0, 0.0]]), torch.zeros(1, 3)]
    weights = confidence(logits, torch.tensor([0]))
    assert weights.sum().item() == pytest.approx(1)
    views = [View(torch.zeros(1, 0), labels=torch.tensor([0])) for _ in logits]
    for view, each in zip(views, logits, strict=True):
        view.free_logits = each
    combined = TeamView(views, confident=True, embeds=False).free_logits
    assert torch.isfinite(combined).all()
    assert combined.logsumexp(-1).item() == pytest.approx(0, abs=1e-5)


def test_methods_take_of_a_team_what_it_has():
    student = Side("the student", 2, 3)
    team = Team([Member("one", FIRST, dim=2), Member("two", SECOND, dim=4)], TeamSettings())
    LabelSettings().build(Pair(student, team.side))
    assert team.view(inputs()).embedding.shape == (2, 0)
    for method in (EmbeddingSettings(), RelationalSettings()):
        with pytest.raises(RecipeError, match="the team of one, two shows no embedding of one size"):
            method.build(Pair(student, team.side))
    with pytest.raises(RecipeError, match="looks inside"):
        AttentionTransferSettings().build(Pair(student, team.side))


def test_teams_that_do_not_fit_are_refused():
    with pytest.raises(TrainingError, match="one at 16000 Hz and two at 8000 Hz given"):
        Team([Member("one", FIRST), Member("two", SECOND, rate=8000)], TeamSettings())
    with pytest.raises(TrainingError, match="one and two know different speakers"):
        Team([Member("one", FIRST), Member("two", SECOND, speakers="abd")], TeamSettings())
    mixed = [Member("one", FIRST), Member("two")]
    assert Team(mixed, TeamSettings()).side.classes == 0
    with pytest.raises(RecipeError, match="not all of the team of one, two have a speaker classifier"):
        Team(mixed, TeamSettings(combine="confidence"))


def small_model(seed):
    torch.manual_seed(seed)
    settings = ModelSettings(
        encoder=ENCODERS["xvector"].settings(channels=(8, 8, 8, 8, 8)),
        pooling=POOLINGS["statistics"].settings(),
        embedding_dim=4,
        head="bn_linear",
        features=FbankSettings(bins=20),
    )
    return SpeakerModel(settings), LOSSES["aam_softmax"].settings().build(4, 5)


def test_the_average_follows_the_student_with_a_rising_decay():
    model, classifier = small_model(1)
    teacher = AverageTeacher(
        model, classifier, AverageSettings(decay=0.25, warmup=10), list("abcde"), torch.device("cpu")
    )
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for step in range(4):
        other, other_classifier = small_model(10 + step)
        other.head[0].num_batches_tracked += step
        keep = min(0.25, (1 + step) / (10 + step))
        assert teacher.decay(step) == keep
        teacher.follow(other, other_classifier, step, progress=0.5)
        for name, tensor in other.state_dict().items():
            kept = keep * expected[name] + (1 - keep) * tensor
            expected[name] = kept if tensor.is_floating_point() else tensor.clone()
    for name, tensor in teacher.model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
    assert teacher.classifier.margin == pytest.approx(0.2)
    assert not teacher.model.training
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())


def test_what_it_keeps_restores_it():
    parts = small_model(1)
    one = AverageTeacher(*parts, AverageSettings(), list("abcde"), torch.device("cpu"))
    one.follow(*small_model(2), step=0, progress=0.0)
    other = AverageTeacher(*small_model(3), AverageSettings(), list("abcde"), torch.device("cpu"))
    other.restore(one.tensors())
    for module, restored in ((one.model, other.model), (one.classifier, other.classifier)):
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, restored.state_dict()[name])
    assert all(a is not b for a, b in zip(parts[0].parameters(), one.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("settings", "values", "says"),
    [
        (AverageSettings, {"decay": 1.0}, r"average.decay: 1.0 given; expected 0 or more and less than 1"),
        (AverageSettings, {"warmup": 0}, r"average.warmup: 0 given; expected 1 or more"),
        (TeamSettings, {"combine": "vote"}, r"team.combine: 'vote' given; expected mean or confidence"),
    ],
)
def test_senseless_settings_are_named(settings, values, says):
    with pytest.raises(RecipeError, match=says):
        settings(**values)


TINY_STUDENT = ["--distillation.label.weight", "1", "--training.epochs", "2", "--data.utterances_per_epoch", "80"]


def test_a_student_of_two_runs(tiny_recipe, tmp_path):
    for seed in ("1", "2"):
        train(load_recipe(tiny_recipe, ["--seed", seed, "--training.epochs", "1"]), tmp_path / f"teacher {seed}")
    names = [str(tmp_path / f"teacher {seed}") for seed in (1, 2)]
    overrides = ["--distillation.teacher", f"[{', '.join(names)}]", "--distillation.team.combine", "confidence"]
    recipe = load_recipe(tiny_recipe, [*overrides, *TINY_STUDENT, "--distillation.embedding.weight", "5"])
    assert recipe.distillation.teacher == tuple(names)
    run = train(recipe, tmp_path / "student")
    rows = list(csv.DictReader((run.folder / "metrics.csv").open()))
    assert float(rows[-1]["loss/label_kl"]) < float(rows[0]["loss/label_kl"])
    assert load_recipe(run.folder / "recipe.yaml") == run.recipe == recipe
    with pytest.raises(RecipeError, match=r"the team of .*teacher 1, .*teacher 2 shows its embedding only"):
        train(
            load_recipe(tiny_recipe, [*overrides, *TINY_STUDENT, "--distillation.attention_transfer.weight", "1"]),
            tmp_path / "other",
        )
    assert not (tmp_path / "other").exists()


def test_a_student_of_its_own_average_resumes_bit_for_bit(tiny_recipe, tmp_path, interrupted):
    options = ["--distillation.teacher", "self", "--distillation.average.decay", "0.9", *TINY_STUDENT]
    recipe = load_recipe(tiny_recipe, options)
    whole = train(recipe, tmp_path / "whole")
    rows = list(csv.DictReader((whole.folder / "metrics.csv").open()))
    assert all(float(row["loss/label_kl"]) > 0 for row in rows)
    interrupted(lambda: train(recipe, tmp_path / "stopped"), within_epoch=True)
    tensors, state = load_tensors(tmp_path / "stopped" / "checkpoint.safetensors")
    assert 0 < state["progress"]["step"] < 20
    assert not torch.equal(tensors["average/model.head.0.weight"], tensors["module/model.head.0.weight"])
    train(recipe, tmp_path / "stopped", resume=True)
    for name in ("model.safetensors", "classifier.safetensors"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("teachers", ["[a, self]", "[a, a]", "[a, ./a]", "[a, '']"])
def test_odd_teams_are_refused(tiny_recipe, teachers):
    with pytest.raises(RecipeError, match="expected a team of different teachers, and self only alone"):
        load_recipe(tiny_recipe, ["--distillation.teacher", teachers, *TINY_STUDENT])


def test_a_number_in_a_team_is_no_path(tiny_recipe):
    with pytest.raises(RecipeError, match=r"teacher: \[a, 5\] given; expected .* a number in quotes"):
        load_recipe(tiny_recipe, ["--distillation.teacher", "[a, 5]", *TINY_STUDENT])
    team = load_recipe(tiny_recipe, ["--distillation.teacher", '[a, "5"]', *TINY_STUDENT]).distillation.teacher
    assert team == ("a", "5")


def test_a_team_of_one_is_that_one(tiny_recipe):
    assert load_recipe(tiny_recipe, ["--distillation.teacher", "[a]", *TINY_STUDENT]).distillation.teacher == "a"


def test_speech_without_labels_gives_an_average_nothing_to_teach():
    with pytest.raises(RecipeError, match="self given for speech without speaker labels"):
        load_teachers("self", None, torch.device("cpu"), TeacherOptions())
