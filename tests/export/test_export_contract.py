from __future__ import annotations

import hashlib

import numpy as np
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from toy_encoder import toy_run

from parvox.corpora.trials import Trial
from parvox.errors import ModelFileError
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.trials import TrialIndex
from parvox.export.contract import build_contract, file_bytes, fingerprint, operating_points, without_paths
from parvox.runtime.embedder import SpeakerEmbedder
from parvox.runtime.golden import golden_signal
from parvox.runtime.model_file import read_model_file


def trials(targets, nontargets):
    found = [Trial(f"a{index}", "b", True) for index in range(targets)]
    found += [Trial(f"c{index}", "b", False) for index in range(nontargets)]
    return TrialIndex.from_trials(found, "dev trials of a test")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    targets=st.integers(2, 40),
    nontargets=st.integers(1, 2500),
    digits=st.sampled_from([1, 2, 7]),
)
def test_operating_points_are_what_their_names_say(seed, targets, nontargets, digits):
    rng = np.random.default_rng(seed)
    target = np.round(rng.normal(0.3, 0.2, targets), digits).astype(np.float32)
    nontarget = np.round(rng.normal(0, 0.2, nontargets), digits).astype(np.float32)
    points = operating_points(ScoreSet(target, nontarget), trials(targets, nontargets), 10**6)
    target, nontarget = target.astype(np.float64), nontarget.astype(np.float64)  # NumPy would round the threshold
    assert ("far_1pct" in points) == (nontargets >= 100)
    assert ("far_0.1pct" in points) == (nontargets >= 1000)
    for name, point in points.items():
        assert point.threshold == round(point.threshold, 6)
        assert point.false_accept_rate == (nontarget >= point.threshold).mean()
        assert point.false_reject_rate == (target < point.threshold).mean()
        assert (point.target_trials, point.nontarget_trials) == (targets, nontargets)
        assert "dev trials of a test" in point.source
        if name.startswith("far"):
            wanted = {"far_1pct": 0.01, "far_0.1pct": 0.001}[name]
            assert point.false_accept_rate <= wanted
            below = nontarget[nontarget < point.threshold]
            assert (nontarget >= below.max()).mean() > wanted  # the next lower threshold accepts too many


@pytest.mark.parametrize(
    ("pairs", "names"), [(100, {"eer"}), (300, {"eer", "far_1pct"}), (3000, {"eer", "far_1pct", "far_0.1pct"})]
)
def test_a_rate_that_so_few_speakers_cannot_show_is_left_out(pairs, names):
    scores = ScoreSet(np.linspace(0, 1, 50), np.linspace(-1, 0.5, 5000))
    assert set(operating_points(scores, trials(50, 5000), pairs)) == names  # 3 / pairs: the rule of three


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), targets=st.integers(2, 50), nontargets=st.integers(2, 50))
def test_the_eer_threshold_balances_the_errors_best(seed, targets, nontargets):
    rng = np.random.default_rng(seed)
    target = np.round(rng.normal(0.2, 0.2, targets), 3)
    nontarget = np.round(rng.normal(0, 0.2, nontargets), 3)
    points = operating_points(ScoreSet(target, nontarget), trials(targets, nontargets), 10**6)
    assume("eer" in points)
    every = np.unique(np.concatenate([target, nontarget]))
    gaps = [abs((target < t).mean() - (nontarget >= t).mean()) for t in every]
    found = points["eer"]
    assert abs(found.false_reject_rate - found.false_accept_rate) <= min(gaps) + 1e-12


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


def test_the_fingerprint_is_that_of_the_weights_file(tmp_path, toy):
    run = toy_run(tmp_path / "run", toy, tmp_path)
    wanted = hashlib.sha256((run.folder / "model.safetensors").read_bytes()).hexdigest()
    assert fingerprint(run.folder) == wanted
    with pytest.raises(ModelFileError, match="restore the run folder"):
        fingerprint(tmp_path / "nowhere")


def test_what_is_sealed_is_what_the_runtime_reads(tmp_path, toy, toy_graph):
    run = toy_run(tmp_path / "run", toy, tmp_path / "prepared")
    points = operating_points(ScoreSet([0.5, 0.9, 0.2], np.linspace(-0.5, 0.6, 200)), trials(3, 200), 10**6)
    mean = np.linspace(-1, 1, 24).astype(np.float32)
    contract = build_contract(
        run,
        toy_graph,
        precision="fp32",
        name="toy",
        mean=mean,
        thresholds=points,
        synthetic=True,
        licence="CC-BY-4.0",
    )
    data = file_bytes(toy_graph, contract)
    path = tmp_path / "toy.onnx"
    path.write_bytes(data)
    read, again = read_model_file(path)
    assert read == data
    assert again == contract
    assert again.thresholds == points
    assert again.default_threshold == "eer"
    np.testing.assert_array_equal(np.float32(again.mean), mean)
    assert (again.min_samples, again.embedding_dim, again.sample_rate_hz) == (400, 24, 16000)
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
