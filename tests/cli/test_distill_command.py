"""`parvox distill`: what a method needs and a pair has not is one line before training, and nothing is written."""

import dataclasses
import json

import pytest

from parvox.cli.main import main
from parvox.training import run as names
from parvox.training.checkpoint import save_tensors
from parvox.training.recipe import load_recipe
from parvox.training.run import file_checksum
from parvox.training.teacher_settings import TEACHER_SECTIONS
from parvox.training.trainer import Trainer

BC_CMT = """
  name: bc_cmt
  sub_bands: 1
  widths: [4, 4, 8, 8]
  heads: [1, 2, 2, 4]
  blocks: [1, 1, 1, 1]
  embedding_dim: 8
  features: {bins: 32}
"""
XVECTOR = """
  name: xvector
  channels: [8, 8, 8, 8, 8]
  embedding_dim: 8
"""


def write_recipe(folder, name, model, corpus):
    path = folder / f"{name}.yaml"
    path.write_text(
        f"corpus: {corpus}\nmodel:{model}data: {{crop_s: 0.5, batch_size: 8}}\n"
        "training: {epochs: 1, accelerator: cpu, precision: fp32}\n"
    )
    return path


def untrained_run(folder, recipe):
    """A run folder with the weights that training would begin with."""
    trainer = Trainer(recipe)
    folder.mkdir()
    parts = {names.MODEL: trainer.model, names.CLASSIFIER: trainer.module.classifier}
    for name, module in parts.items():
        save_tensors(folder / name, module.state_dict())
    (folder / names.SPEAKERS).write_text(json.dumps({"speakers": trainer.speakers, "classes": trainer.classes}))
    (folder / names.RECIPE).write_text(recipe.to_yaml())
    summary = {names.CHECKSUMS: {name: file_checksum(folder / name) for name in parts}}
    (folder / names.SUMMARY).write_text(json.dumps(summary))


@pytest.fixture(scope="module")
def here(tmp_path_factory, prepared_tiny):
    """Student recipes and teachers: `same` of the student's kind, others with what the cases say."""
    folder = tmp_path_factory.mktemp("pairs")
    student = load_recipe(write_recipe(folder, "bc_cmt", BC_CMT, prepared_tiny))
    write_recipe(folder, "xvector", XVECTOR, prepared_tiny)
    encoder = student.model.encoder
    others = {
        "same": {},
        "heads": {"heads": (1, 2, 4, 4)},
        "strides": {"reductions": (8, 4, 1, 1)},
    }
    for name, change in others.items():
        model = dataclasses.replace(student.model, encoder=dataclasses.replace(encoder, **change))
        untrained_run(folder / name, dataclasses.replace(student, model=model))
    more = dataclasses.replace(student, data=dataclasses.replace(student.data, speed_perturbation=(0.9,)))
    untrained_run(folder / "classes", more)
    wider = dataclasses.replace(student, model=dataclasses.replace(student.model, embedding_dim=12))
    untrained_run(folder / "wider", wider)
    untrained_run(folder / "xvector", load_recipe(folder / "xvector.yaml"))
    return folder


def give(here, student, teacher, *options):
    team = f"[{', '.join(str(here / name) for name in teacher)}]" if isinstance(teacher, list) else str(here / teacher)
    given = "self" if teacher == "self" else team
    out = ["--out", str(here / "out")]
    return main(["distill", str(here / f"{student}.yaml"), "--distillation.teacher", given, *out, *options])


@pytest.mark.parametrize(
    ("student", "teacher", "options", "says"),
    [
        ("bc_cmt", "same", ["label.temperature", "0"], "distillation.label.temperature: 0.0 given; expected 0.001 to"),
        ("bc_cmt", "same", ["dkd.temperature", "0"], "distillation.dkd.temperature: 0.0 given; expected 0.001 to 1000"),
        (
            "bc_cmt",
            "same",
            ["mlld.temperatures", "[2, 0]"],
            "distillation.mlld.temperatures: 0.0 given; expected 0.001",
        ),
        ("bc_cmt", "same", ["non_target.gamma", "-2"], "distillation.non_target.gamma: -2.0 given; expected 0 or more"),
        ("bc_cmt", "same", ["relational.weight", "-1"], "distillation.relational.weight: -1.0 given; expected 0 or"),
        ("bc_cmt", "same", ["non_target.non_targets", "600"], "non_targets: 600 given; expected at most"),
        ("bc_cmt", "same", ["non_targt.gamma", "2"], "unknown distillation method 'non_targt': did you mean 'non_tar"),
        ("bc_cmt", "same", ["mlld.temperature", "4"], "did you mean 'distillation.mlld.temperatures'"),
        ("bc_cmt", "same", ["attention_maps.distance", "cosine"], "distillation.attention_maps.distance"),
        ("bc_cmt", "same", ["attention_maps.stage_weights", "[1, 1]"], "stage_weights: 2 given; expected one for each"),
        ("bc_cmt", "classes", ["mlld.weight", "1"], "a student of 6 speaker classes and a teacher of 12 given"),
        ("bc_cmt", "classes", ["non_target.weight", "1"], "label-level methods expect the same speakers"),
        ("bc_cmt", "heads", ["attention_maps.weight", "1"], "2 heads in stage 3 of the student and 4 in"),
        ("bc_cmt", "strides", ["attention_maps.weight", "1"], "expected the same time strides"),
        ("bc_cmt", "xvector", ["attention_maps.weight", "1"], "gives no attention maps"),
        ("xvector", "same", ["attention_maps.weight", "1"], "the encoder of the student gives no attention maps"),
        ("bc_cmt", "wider", ["contrastive.projector", "never"], "a student of 8 and a teacher of 12 dimensions given"),
        ("bc_cmt", ["same", "heads"], ["attention_maps.weight", "1"], "shows its embedding only"),
        ("bc_cmt", ["same", "wider"], ["embedding.weight", "1"], "shows no embedding of one size"),
        ("bc_cmt", ["same", "nowhere"], ["label.weight", "1"], "nowhere is not a folder"),
        ("bc_cmt", ["same", "same"], ["label.weight", "1"], "expected a team of different teachers"),
        ("bc_cmt", ["same", "heads"], ["team.combine", "vote"], "distillation.team.combine"),
        ("bc_cmt", "self", ["average.decay", "1.5"], "average.decay: 1.5 given; expected 0 or more and less than 1"),
        ("bc_cmt", "same", ["average.decay", "0.9"], "distillation.average: given, but the teacher is"),
        (
            "bc_cmt",
            "same",
            ["team.combine", "confidence"],
            "a teacher that is one of several, or this section",
        ),
        ("bc_cmt", "same", ["onnx.bins", "80"], "expected a teacher that is an .onnx file, or this section left out"),
        ("bc_cmt", ["same", "heads"], ["transformers.layers", "[1]"], "expected a teacher that is named hf:FOLDER"),
    ],
)
def test_one_line_code_2_and_nothing_written(here, capfd, student, teacher, options, says):
    field, value = options
    method = [] if field.split(".")[0] not in TEACHER_SECTIONS else ["--distillation.label.weight", "1"]
    code = give(here, student, teacher, f"--distillation.{field}", value, *method)
    out, err = capfd.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("parvox: error: ")
    assert err.count("\n") == 1
    assert says in err
    assert not (here / "out").exists()


def test_every_method_trains_together(here, capfd):
    """All methods of one pair in one run, each with a term in the metrics."""
    methods = ["label", "embedding", "non_target", "dkd", "mlld", "attention_maps", "attention_transfer"]
    methods += ["relational", "contrastive"]
    weights = [word for name in methods for word in (f"--distillation.{name}.weight", "1")]
    assert give(here, "bc_cmt", "same", *weights, "--data.utterances_per_epoch", "24", "--overwrite") == 0
    header = (here / "out" / "metrics.csv").read_text().splitlines()[0].split(",")
    for name in methods:
        assert any(column.startswith(f"loss/{name}") for column in header), name
    assert json.loads((here / "out" / "summary.json").read_text())["parameters_added_for_training"] == 0
