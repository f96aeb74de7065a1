from __future__ import annotations

import hashlib

import numpy as np
import pytest
import yaml
from toy_encoder import toy_run

from parvox.errors import ModelFileError
from parvox.evaluation.settle import Judged, SettleSettings, settle
from parvox.export.contract import build_contract, file_bytes, fingerprint, without_paths
from parvox.runtime.embedder import SpeakerEmbedder
from parvox.runtime.golden import golden_signal
from parvox.runtime.model_file import read_model_file


def test_paths_do_not_leave_the_house():
    text = without_paths(
        "corpus: /home/someone/prepared\nseed: 3\ndistillation:\n  teacher: runs/big\n  label:\n    weight: 1.0\n"
    )
    assert yaml.safe_load(text) == {
        "corpus": "prepared",
        "seed": 3,
        "distillation": {"teacher": "big", "label": {"weight": 1.0}},
    }
    assert yaml.safe_load(without_paths("corpus: prepared\n")) == {"corpus": "prepared"}
    assert yaml.safe_load(without_paths("init: /home/someone/runs/first\n")) == {"init": "first"}
    team = without_paths("distillation: {teacher: [/home/someone/a, runs/b], alongside: /home/someone/t.yaml}\n")
    assert yaml.safe_load(team)["distillation"] == {"teacher": ["a", "b"], "alongside": "t.yaml"}
    text = without_paths("model: {frame_classifier: /a/b/f.st}\ndistillation: {integrated: {cache: /c/maps}}\n")
    assert yaml.safe_load(text)["model"] == {"frame_classifier": "f.st"}
    assert yaml.safe_load(text)["distillation"] == {"integrated": {"cache": "maps"}}


def test_the_fingerprint_is_that_of_the_weights_file(tmp_path, toy):
    run = toy_run(tmp_path / "run", toy, tmp_path)
    wanted = hashlib.sha256((run.folder / "model.safetensors").read_bytes()).hexdigest()
    assert fingerprint(run.folder) == wanted
    assert len({wanted, fingerprint(run.folder, "distillation"), fingerprint(run.folder, "both")}) == 3
    with pytest.raises(ModelFileError, match="restore the run folder"):
        fingerprint(tmp_path / "nowhere")


def test_what_is_sealed_is_what_the_runtime_reads(tmp_path, toy, toy_graph):
    run = toy_run(tmp_path / "run", toy, tmp_path / "prepared")
    rng = np.random.default_rng(0)
    speaker = np.arange(400) % 8
    target = np.arange(400) < 80
    settled = settle(
        Judged(
            (0.3 * target + 0.15 * rng.standard_normal(400)).astype(np.float32),
            target,
            speaker,
            np.where(target, speaker, (speaker + 1 + np.arange(400) // 8 % 7) % 8),
            rng.uniform(0.4, 3, 400),
            rng.uniform(0.4, 3, 400),
            "dev trials of a test",
        ),
        SettleSettings(replicates=100),
    )
    assert settled.calibration is not None
    mean = np.linspace(-1, 1, 24).astype(np.float32)
    contract = build_contract(
        run,
        toy_graph,
        precision="fp32",
        name="toy",
        mean=mean,
        settled=settled,
        synthetic=True,
        licence="CC-BY-4.0",
    )
    data = file_bytes(toy_graph, contract)
    path = tmp_path / "toy.onnx"
    path.write_bytes(data)
    read, again = read_model_file(path)
    assert read == data
    assert again == contract
    assert (again.thresholds, again.unsupported, again.bands) == (
        settled.thresholds,
        settled.unsupported,
        settled.bands,
    )
    assert again.calibration == settled.calibration
    assert again.default_threshold == "eer"
    np.testing.assert_array_equal(np.float32(again.mean), mean)
    assert (again.min_samples, again.embedding_dim, again.sample_rate_hz) == (560, 24, 16000)
    assert again.parameters == sum(parameter.numel() for parameter in toy.parameters())
    assert again.macs_1s > 98 / 2 * 48 * 80 * 5  # the first layer alone
    assert yaml.safe_load(again.recipe)["distillation"]["teacher"] == "big"
    assert data.rfind(b"parvox_sha256") > len(data) - 200  # the metadata stands last
    SpeakerEmbedder.load(path).embed(golden_signal("glide-1", 16000))

    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ModelFileError, match="damaged"):
        read_model_file(path)
