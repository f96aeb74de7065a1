"""parvox export, from a run folder that `load_run` reads, through the real exporter."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from toy_encoder import settle

from parvox.cli.main import main
from parvox.models import SpeakerModel
from parvox.runtime.embedder import SpeakerEmbedder
from parvox.runtime.model_file import read_contract
from parvox.training.recipe import load_recipe
from parvox.training.run import CLASSIFIER, MODEL, RECIPE, SPEAKERS, SUMMARY

RECIPE_TEXT = """
corpus: {corpus}
model:
  name: depthwise_tdnn
  channels: 16
  frames_dim: 24
  se_dim: 0
  dilations: [1, 2]
  embedding_dim: 16
  pooling:
    name: statistics
"""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, prepared_tiny):
    folder = tmp_path_factory.mktemp("runs") / "small"
    folder.mkdir()
    source = folder / RECIPE
    source.write_text(RECIPE_TEXT.format(corpus=prepared_tiny))
    recipe = load_recipe(source)
    source.write_text(recipe.to_yaml())
    torch.manual_seed(0)
    model = settle(SpeakerModel(recipe.model))
    safetensors.torch.save_file(model.state_dict(), folder / MODEL)
    speakers = ["a", "b", "c"]
    head = recipe.loss.build(recipe.model.embedding_dim, len(speakers))
    safetensors.torch.save_file(head.state_dict(), folder / CLASSIFIER)
    (folder / SPEAKERS).write_text(json.dumps({"speakers": speakers, "classes": len(speakers)}))
    (folder / SUMMARY).write_text(json.dumps({"synthetic": True}))
    return folder


def test_both_precisions_from_a_run_folder(run_folder, tmp_path, capsys):
    fp32, int8 = tmp_path / "m.onnx", tmp_path / "m8.onnx"
    assert main(["export", str(run_folder), str(fp32)]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].split(maxsplit=1) == ["file", f"{fp32}, fp32, {fp32.stat().st_size / 1e3:,.0f} kB"]
    for label in ("from PyTorch", "speed", "dev EER", "thresholds", "eer (default)"):
        assert label in text
    assert "synthetic: error rates and thresholds say nothing" in text

    options = ["--precision", "int8", "--tolerance_eer", "100", "--calibration_clips", "6", "--json", "--name", "tiny"]
    assert main(["export", str(run_folder), str(int8), *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["path"] == str(int8)
    assert result["bytes"] == int8.stat().st_size < fp32.stat().st_size
    assert result["precision"] == "int8"
    assert result["milliseconds"] > 0
    contract = read_contract(int8)
    assert (contract.name, contract.precision) == ("tiny", "int8")
    assert result["settled"]["thresholds"]["eer"]["threshold"] == contract.thresholds["eer"].threshold
    assert "/" not in contract.recipe.split("model:")[0]  # no path of this machine

    samples = (0.1 * np.random.default_rng(0).standard_normal(20_000)).astype(np.float32)
    one, other = (SpeakerEmbedder.load(path).embed(samples) for path in (fp32, int8))
    assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.98


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "{file}"], "exists already"),
        (["{tmp}/nowhere", "{tmp}/m.onnx"], "expected a run folder"),
        (["{run}", "{tmp}/m.onnx", "--corpus", "{tmp}/nowhere"], "no such folder"),
        (["{run}", "{tmp}/m.onnx", "--precision", "int4"], "precision"),
        (["{run}", "{tmp}/m.onnx", "--tolerence_eer", "1"], "did you mean 'tolerance_eer'"),
        (["{run}", "{tmp}/m.onnx", "--tolerance_eer", "-1"], "0 or more percentage points"),
        (["{run}"], "out"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(run_folder, tmp_path, capsys, arguments, message):
    file = tmp_path / "there.onnx"
    file.write_bytes(b"precious")
    filled = [each.format(run=run_folder, file=file, tmp=tmp_path) for each in arguments]
    assert main(["export", *filled]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("parvox: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]
    assert file.read_bytes() == b"precious"


def test_damaged_weights_are_one_line(run_folder, tmp_path, capsys):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(run_folder, broken)
    (broken / MODEL).write_bytes((broken / MODEL).read_bytes()[:-100])
    assert main(["export", str(broken), str(tmp_path / "m.onnx")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "m.onnx").exists()
