"""Whole runs on the tiny corpus: resuming, determinism, the teacher, and what must be refused before training."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from parvox.errors import ModelFileError, OutputError, ParvoxError, RecipeError, TrainingError
from parvox.training.checkpoint import load_tensors, save_tensors
from parvox.training.recipe import load_recipe
from parvox.training.run import load_run
from parvox.training.run_writer import RunWriter
from parvox.training.trainer import Trainer, train


def fit(recipe_path, out, *overrides, **options):
    return train(load_recipe(recipe_path, list(overrides)), out, **options)


def weights(folder):
    return {name: (folder / name).read_bytes() for name in ("model.safetensors", "classifier.safetensors")}


def test_a_run_folder_holds_what_a_user_needs(tiny_recipe, tmp_path):
    run = fit(tiny_recipe, tmp_path / "run")
    rows = list(csv.DictReader((run.folder / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1]["loss/speaker"]) < float(rows[0]["loss/speaker"])
    assert all(0 <= float(row["dev/eer"]) <= 1 for row in rows)
    assert run.summary["best_dev_eer"] == pytest.approx(min(float(row["dev/eer"]) for row in rows))
    assert run.summary["parameters"] == sum(p.numel() for p in run.model.parameters())
    assert any((run.folder / "tensorboard").iterdir())
    assert not (run.folder / "checkpoint.safetensors").exists()
    assert not run.model.training
    assert load_recipe(run.folder / "recipe.yaml") == run.recipe


def test_the_same_seed_gives_the_same_model_and_another_another(tiny_recipe, tmp_path):
    fit(tiny_recipe, tmp_path / "a")
    fit(tiny_recipe, tmp_path / "b")
    fit(tiny_recipe, tmp_path / "c", "--seed", "6")
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(tiny_recipe, tmp_path):
    options = [
        "--training.epochs",
        "6",
        "--training.checkpoint_minutes",
        "0.0001",
        "--data.utterances_per_epoch",
        "1200",
    ]
    command = [sys.executable, "-m", "parvox", "train", str(tiny_recipe), *options]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, "--out", str(whole)], check=True, capture_output=True)
    kills, draw = 0, random.Random(7)
    for attempt in range(40):
        process = subprocess.Popen(
            [*command, "--out", str(killed), "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while process.poll() is None and not (killed / "recipe.yaml").exists():
            time.sleep(0.01)
        try:
            process.wait(timeout=None if attempt > 3 else draw.uniform(0.1, 1.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0, process.stderr.read()
        break
    assert kills >= 1
    assert weights(killed) == weights(whole)
    ours, theirs = (list(csv.DictReader((folder / "metrics.csv").open())) for folder in (killed, whole))
    timed = {"seconds", "load_s"}
    assert [{k: v for k, v in r.items() if k not in timed} for r in ours] == [
        {k: v for k, v in r.items() if k not in timed} for r in theirs
    ]


def test_a_run_that_is_terminated_leaves_nothing_half_written(tiny_recipe, tmp_path):
    options = ["--training.epochs", "100000", "--training.evaluate_every", "100000", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "parvox", "train", str(tiny_recipe), *options], stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not (tmp_path / "run" / "checkpoint.safetensors").exists():
        time.sleep(0.01)
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143, said
    assert said.endswith("parvox: terminated\n")
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left <= {"recipe.yaml", "speakers.json", "metrics.csv", "tensorboard", "checkpoint.safetensors"}


def test_stopping_within_an_epoch_and_resuming_changes_nothing(tiny_recipe, tmp_path, monkeypatch):
    fit(tiny_recipe, tmp_path / "whole", "--training.accumulate", "2", "--data.utterances_per_epoch", "400")
    monkeypatch.setattr(RunWriter, "checkpoint_due", lambda self: True)

    class Stop(Exception):
        pass

    original = RunWriter.checkpoint
    seen = []

    def stop_at_second(self, progress):
        original(self, progress)
        seen.append(progress.step)
        if len(seen) == 2:
            raise Stop

    monkeypatch.setattr(RunWriter, "checkpoint", stop_at_second)
    options = ["--training.accumulate", "2", "--data.utterances_per_epoch", "400"]
    with pytest.raises(Stop):
        fit(tiny_recipe, tmp_path / "stopped", *options)
    monkeypatch.setattr(RunWriter, "checkpoint", original)
    assert seen[-1] % (400 // 16) != 0, "the stop must fall within an epoch"
    with pytest.raises(ModelFileError, match="unfinished"):
        load_run(tmp_path / "stopped")
    fit(tiny_recipe, tmp_path / "stopped", *options, resume=True)
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


def test_distillation_pulls_the_student_towards_the_teacher(tiny_recipe, tmp_path):
    teacher = fit(tiny_recipe, tmp_path / "teacher", "--training.epochs", "6")
    before = teacher.model.state_dict()
    pair = ["--distillation.teacher", str(teacher.folder), "--seed", "9", "--training.epochs", "6"]
    student = fit(
        tiny_recipe, tmp_path / "student", *pair, "--distillation.embedding.weight", "10", "--model.embedding_dim", "12"
    )
    rows = list(csv.DictReader((student.folder / "metrics.csv").open()))
    first, last = (float(row["loss/embedding_cosine"]) for row in (rows[0], rows[-1]))
    assert last < 0.7 * first
    assert student.summary["parameters_added_for_training"] == 12 * 16
    after = load_run(teacher.folder).model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


METHODS = {
    "non_target": {"warmup": 0.5},
    "attention_maps": {"blocks": "all"},
    "integrated": {"steps": 2, "durations_s": [0.25, 0.0]},
    "distillation_token": {},
}


@pytest.fixture
def taught(tiny_recipe, tmp_path):
    """A recipe whose student learns by methods that look inside the teacher; its teacher is trained."""
    recipe = yaml.safe_load(tiny_recipe.read_text())
    recipe["training"]["epochs"], recipe["data"]["batch_size"] = 1, 2
    recipe["model"] = {
        **{"name": "memory_attention", "width": 16, "conv_blocks": 1, "stride": 4, "blocks": 1, "heads": 2},
        **{"memory_slots": 8, "memory_heads": 1, "memory_key_dim": 8, "embedding_dim": 12},
        "pooling": {"name": "class_token"},
    }
    (tmp_path / "teacher.yaml").write_text(yaml.safe_dump(recipe))
    fit(tmp_path / "teacher.yaml", tmp_path / "teacher")
    recipe["model"]["pooling"] = {"name": "class_distillation_token"}
    recipe["distillation"] = {"teacher": str(tmp_path / "teacher"), **METHODS}
    (tmp_path / "student.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path / "student.yaml"


def test_the_teacher_never_moves_while_it_teaches(taught, tmp_path):
    trainer = Trainer(load_recipe(taught, []))
    before = {name: tensor.clone() for name, tensor in trainer.teacher.model.state_dict().items()}
    trainer.fit(tmp_path / "student")
    after = trainer.teacher.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any("running_mean" in name for name in before)
    assert all(parameter.grad is None for parameter in trainer.teacher.model.parameters())
    assert not any(name.startswith("teacher") for name in trainer.module.state_dict())


def test_a_student_stopped_within_an_epoch_resumes_bit_for_bit(taught, tmp_path, interrupted):
    whole = fit(taught, tmp_path / "whole")
    row = next(csv.DictReader((whole.folder / "metrics.csv").open()))
    terms = ("non_target_rest", "attention_maps", "integrated_instance", "distillation_token")
    assert all(float(row[f"loss/{name}"]) > 0 for name in terms)
    interrupted(lambda: fit(taught, tmp_path / "stopped"), within_epoch=True)
    _, state = load_tensors(tmp_path / "stopped" / "checkpoint.safetensors")
    assert 0 < state["progress"]["step"] < whole.summary["steps"]
    fit(taught, tmp_path / "stopped", resume=True)
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


def test_two_processes_train_one_model_with_the_same_command(tiny_recipe, tmp_path):
    out = tmp_path / "run"
    command = ["train", str(tiny_recipe), "--out", str(out), "--data.batch_size", "4"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "parvox"]
    done = subprocess.run(
        [*torchrun, *command], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("dev EER") == 1
    run = load_run(out)
    alone = fit(tiny_recipe, tmp_path / "alone")
    assert run.summary["processes"] == 2
    assert run.summary["steps"] == alone.summary["steps"]
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert float(rows[-1]["loss/speaker"]) < float(rows[0]["loss/speaker"])


def test_early_stop(tiny_recipe, tmp_path, monkeypatch):
    from parvox.training.dev import DevScores

    monkeypatch.setattr("parvox.training.trainer.score_dev", lambda *_: DevScores(eer=0.25, min_dcf=1.0))
    run = fit(tiny_recipe, tmp_path / "run", "--training.epochs", "9", "--training.patience", "2")
    assert run.summary["stopped_early"]
    assert run.summary["epochs"] == 3


def test_nothing_is_overwritten_unasked(tiny_recipe, tmp_path):
    out = tmp_path / "run"
    fit(tiny_recipe, out, "--training.epochs", "1")
    before = weights(out)
    with pytest.raises(OutputError, match="exists already"):
        fit(tiny_recipe, out, "--training.epochs", "1", "--seed", "8")
    with pytest.raises(OutputError, match=r"another recipe than the one given \(seed: 5 there, 8 given\)"):
        fit(tiny_recipe, out, "--training.epochs", "1", "--seed", "8", resume=True)
    assert weights(out) == before
    fit(tiny_recipe, out, "--training.epochs", "1", resume=True)
    assert weights(out) == before
    fit(tiny_recipe, out, "--training.epochs", "1", "--seed", "8", overwrite=True)
    assert weights(out) != before


def test_a_run_is_replaced_only_by_one_that_has_begun(tiny_recipe, tmp_path, monkeypatch):
    out = fit(tiny_recipe, tmp_path / "run", "--training.epochs", "1").folder
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}

    def diverge(*_):
        assert not (out / "summary.json").exists()
        raise TrainingError("the speaker loss is no longer finite")

    with monkeypatch.context() as patch:
        patch.setattr("parvox.training.trainer.Trainer._epoch", diverge)
        for _ in range(2):
            with pytest.raises(TrainingError, match="finite"):
                fit(tiny_recipe, out, "--seed", "8", overwrite=True)
        assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
        assert not (out / ".before").exists()
        # Killed before its first checkpoint, a new run leaves the old one waiting; the next attempt spares it too.
        patch.setattr("parvox.training.run_writer.bring_back", lambda _: None)
        for _ in range(2):
            with pytest.raises(TrainingError, match="finite"):
                fit(tiny_recipe, out, "--seed", "8", overwrite=True)
        assert {path.name: path.read_bytes() for path in (out / ".before").iterdir() if path.is_file()} == before
    fit(tiny_recipe, out, "--training.epochs", "1", "--seed", "8", overwrite=True)
    assert not (out / ".before").exists()
    assert weights(out)["model.safetensors"] != before["model.safetensors"]


def test_a_folder_that_is_no_run_is_never_deleted(tiny_recipe, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="no run folder"):
        fit(tiny_recipe, tmp_path / "precious", overwrite=True)
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["--corpus", "nowhere"], "nowhere"),
        (["--model.features.sample_rate_hz", "8000"], "prepared at 16000 Hz"),
        (["--data.batch_size", "100000"], "lower data.batch_size"),
        (["--training.accumulate", "1000"], "accumulate"),
        (["--distillation.teacher", "nowhere", "--distillation.label.weight", "1"], "nowhere"),
        (["--training.accelerator", "cuda"], "cannot train on"),
        (["--training.nodes", "2"], "nothing says where the other machines are"),
        (
            ["--data.batch_size", "1", "--model.head", "bn_linear_bn"],
            "model.head bn_linear_bn normalises over the batch",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(tiny_recipe, tmp_path, overrides, says):
    if "cuda" in overrides and torch.cuda.is_available():
        pytest.skip("this machine has what the recipe asks for")
    with pytest.raises(ParvoxError, match=says) as caught:
        fit(tiny_recipe, tmp_path / "run", *overrides)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_only_one_process_writes_a_run_folder(tiny_recipe, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from parvox.training.run_writer import lock_run;"
        "held = lock_run(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    run = fit(tiny_recipe, tmp_path / "run", "--training.epochs", "1").folder
    before = weights(run)
    with subprocess.Popen([sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match="being written by another process"):
            fit(tiny_recipe, run, overwrite=True)
        other.kill()
    assert weights(run) == before
    fit(tiny_recipe, run, "--training.epochs", "1", overwrite=True)  # a lock ends with its process
    assert not (run / ".lock").exists()


def test_a_teacher_of_another_sample_rate_is_refused(tiny_recipe, tmp_path):
    teacher = fit(tiny_recipe, tmp_path / "teacher", "--training.epochs", "1").folder
    recipe = teacher / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("sample_rate_hz: 16000", "sample_rate_hz: 8000"))
    with pytest.raises(TrainingError, match="teacher .* listens at 8000 Hz"):
        fit(
            tiny_recipe,
            tmp_path / "run",
            *("--distillation.teacher", str(teacher), "--distillation.embedding.weight", "1"),
        )
    assert not (tmp_path / "run").exists()


def test_a_failed_run_stays_only_if_it_can_be_resumed(tiny_recipe, tmp_path, monkeypatch):
    real = Trainer._end_epoch

    def interrupted(self, epoch, *args):
        if epoch == stop_at[-1]:
            raise KeyboardInterrupt
        real(self, epoch, *args)

    monkeypatch.setattr(Trainer, "_end_epoch", interrupted)
    stop_at = []
    for epoch, stays in ((0, False), (1, True)):
        stop_at.append(epoch)
        with pytest.raises(KeyboardInterrupt):
            fit(tiny_recipe, tmp_path / "run")
        assert (tmp_path / "run").exists() == stays
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_recipe, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "checkpoint.safetensors").is_file()
    monkeypatch.undo()
    fit(tiny_recipe, tmp_path / "run", resume=True)


def test_a_run_resumes_only_with_the_teacher_it_was_begun_with(tiny_recipe, tmp_path, interrupted):
    once = ["--training.epochs", "1"]
    teacher = fit(tiny_recipe, tmp_path / "teacher", *once).folder
    taught = ["--distillation.teacher", str(teacher), "--distillation.embedding.weight", "1", "--training.epochs", "2"]
    interrupted(lambda: fit(tiny_recipe, tmp_path / "run", *taught))
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    fit(tiny_recipe, teacher, *once, "--seed", "6", overwrite=True)
    with pytest.raises(OutputError, match="cannot be resumed: the teacher has changed"):
        fit(tiny_recipe, tmp_path / "run", *taught, resume=True)
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before
    fit(tiny_recipe, teacher, *once, overwrite=True)
    assert fit(tiny_recipe, tmp_path / "run", *taught, resume=True).summary["epochs"] == 2


@pytest.mark.parametrize("weight", ["0", ".inf"])
def test_weights_that_teach_nothing_are_refused(tiny_recipe, weight):
    taught = ["--distillation.teacher", "runs/teacher", "--distillation.embedding.weight", "0"]
    with pytest.raises(RecipeError, match="nothing to learn|speaker_weight: inf given"):
        load_recipe(tiny_recipe, [*taught, "--distillation.speaker_weight", weight])


def test_weights_that_are_not_numbers_are_refused(tiny_recipe, tmp_path):
    folder = fit(tiny_recipe, tmp_path / "run", "--training.epochs", "1").folder
    model = folder / "model.safetensors"
    tensors, _ = load_tensors(model)
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_tensors(model, tensors)
    with pytest.raises(ModelFileError, match="its checksum is not the one in summary.json"):
        load_run(folder)
    summary = json.loads((folder / "summary.json").read_text())
    del summary["sha256"]  # as in runs of before there were checksums
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(ModelFileError, match="NaN or infinite"):
        load_run(folder)


def test_noise_without_noises_is_refused(tiny_recipe, prepared_tiny, tmp_path):
    shutil.copytree(prepared_tiny, tmp_path / "quiet")
    info = json.loads((tmp_path / "quiet" / "corpus.json").read_text())
    (tmp_path / "quiet" / "corpus.json").write_text(json.dumps({**info, "clips": {}}))
    with pytest.raises(RecipeError, match="no noise"):
        fit(tiny_recipe, tmp_path / "run", "--corpus", str(tmp_path / "quiet"), "--augmentation.noise_probability", "1")
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_other_speakers_is_refused_where_speakers_matter(tiny_recipe, tmp_path):
    teacher = fit(tiny_recipe, tmp_path / "teacher", "--training.epochs", "1")
    known = json.loads((teacher.folder / "speakers.json").read_text())
    known["speakers"] = [f"other-{name}" for name in known["speakers"]]
    (teacher.folder / "speakers.json").write_text(json.dumps(known))
    with pytest.raises(RecipeError, match=r"distillation.label: .* 0 of them in common"):
        fit(
            tiny_recipe,
            tmp_path / "student",
            "--distillation.teacher",
            str(teacher.folder),
            "--distillation.label.weight",
            "1",
        )
    assert not (tmp_path / "student").exists()
    pair = ["--distillation.teacher", str(teacher.folder), "--distillation.embedding.weight", "1"]
    assert fit(tiny_recipe, tmp_path / "student", *pair, "--training.epochs", "1").summary["steps"] > 0


def test_a_damaged_run_is_named(tiny_recipe, tmp_path):
    run = fit(tiny_recipe, tmp_path / "run", "--training.epochs", "1")
    (run.folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelFileError, match="model.safetensors"):
        load_run(run.folder)
    recipe = (run.folder / "recipe.yaml").read_text()
    (run.folder / "recipe.yaml").write_text(recipe.replace("embedding_dim: 16", "embedding_dim: 17"))
    with pytest.raises(ModelFileError):
        load_run(run.folder)
    with pytest.raises(ModelFileError, match="not a folder"):
        load_run(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFileError, match="holds no"):
        load_run(tmp_path / "empty")


def test_a_diverging_run_says_so(tiny_recipe, tmp_path):
    options = ["--training.learning_rate", "10", "--training.weight_decay", "1e30", "--training.warmup", "0"]
    with pytest.raises(TrainingError, match="no longer finite"):
        fit(tiny_recipe, tmp_path / "run", *options, "--training.optimizer", "sgd")


@pytest.mark.parametrize(
    ("options", "alike"),
    [
        (["--distillation.embedding.weight", "1"], True),
        (["--distillation.embedding.weight", "1", "--distillation.embedding.projector", "always"], False),
        (["--distillation.embedding.weight", "0", "--distillation.label.weight", "1"], False),
    ],
)
def test_the_summary_names_the_teacher_whose_embeddings_may_be_compared(tiny_recipe, tmp_path, options, alike):
    teacher = fit(tiny_recipe, tmp_path / "teacher", "--training.epochs", "1")
    student = fit(
        tiny_recipe, tmp_path / "run", "--training.epochs", "1", "--distillation.teacher", str(teacher.folder), *options
    )
    assert student.summary["embeds_like"] == ([teacher.summary["sha256"]["model.safetensors"]] if alike else [])
    assert teacher.summary["embeds_like"] == []
