"""Run to model file on a tiny corpus: what is written, and everything that is refused."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from toy_encoder import toy_model, toy_run

from parvox.corpora.prepared import PreparedCorpus
from parvox.errors import CorpusError, ExportError, ModelFileError, OutputError, ParvoxError, TrialError
from parvox.export import export_model, pipeline
from parvox.export.calibrate import Histograms
from parvox.export.int8 import Quantiser
from parvox.export.speed import milliseconds
from parvox.runtime.embedder import SpeakerEmbedder
from parvox.runtime.model_file import read_contract, read_model_file

QUICK = {"calibration_clips": 8, "tolerance_eer": 100.0}


@pytest.fixture(scope="module")
def run(tmp_path_factory, toy, prepared_tiny):
    return toy_run(tmp_path_factory.mktemp("runs") / "toy-run", toy, prepared_tiny)


@pytest.fixture(autouse=True)
def traced_once(monkeypatch, toy, toy_bytes):
    """Tracing is tested elsewhere and takes seconds."""

    def to_onnx(model):
        assert model is toy
        return onnx.load_model_from_string(toy_bytes)

    monkeypatch.setattr(pipeline, "to_onnx", to_onnx)
    monkeypatch.setattr(pipeline, "session_milliseconds", lambda data, samples: 1.0)


@pytest.fixture(scope="module")
def exported(run, prepared_tiny, tmp_path_factory, toy, toy_bytes):
    """Both precisions, exported for real (but for the trace)."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "to_onnx", lambda model: onnx.load_model_from_string(toy_bytes))
        patch.setattr(pipeline, "session_milliseconds", lambda data, samples: 1.0)
        return {
            precision: export_model(
                run, folder / f"{precision}.onnx", corpus=prepared_tiny, precision=precision, licence="MIT", **QUICK
            )
            for precision in ("fp32", "int8")
        }


def test_the_file_gives_pytorchs_embeddings(exported, toy):
    result = exported["fp32"]
    assert result.pytorch_distance < 1e-6
    embedder = SpeakerEmbedder.load(result.path)
    rng = np.random.default_rng(0)
    for samples in (toy.min_samples, 7000, 16_001, 50_000):
        clip = (0.1 * rng.standard_normal(samples)).astype(np.float32)
        with torch.no_grad():
            wanted = toy(torch.from_numpy(clip)[None]).embedding[0].numpy()
        np.testing.assert_allclose(embedder.embed(clip), wanted, rtol=1e-3, atol=1e-4)


def test_the_contract_tells_what_was_exported(exported, run, toy, prepared_tiny):
    contracts = {precision: read_contract(result.path) for precision, result in exported.items()}
    for precision, contract in contracts.items():
        assert contract.precision == precision
        assert contract.name == "toy-run"
        assert contract.licence == "MIT"
        assert contract.synthetic is True
        assert contract.mean is None
        assert contract.features == dataclasses.asdict(toy.settings.features)
        assert contract.parameters == sum(parameter.numel() for parameter in toy.parameters())
        assert set(contract.thresholds) >= {"eer"}
        assert contract.thresholds == exported[precision].thresholds
        point = contract.thresholds["eer"]
        info = PreparedCorpus.load(prepared_tiny).info.splits["dev"]
        assert (point.target_trials, point.nontarget_trials) == (info.target_trials, info.nontarget_trials)
    assert contracts["fp32"].fingerprint == contracts["int8"].fingerprint
    assert contracts["fp32"].golden.embedding != contracts["int8"].golden.embedding


def test_thresholds_come_from_the_file_s_own_scores(exported, prepared_tiny):
    """EER and rates anew, with the runtime, trial by trial."""
    corpus = PreparedCorpus.load(prepared_tiny)
    for result in exported.values():
        embedder = SpeakerEmbedder.load(result.path)
        unit = {}
        for cut in corpus.cuts("dev"):
            embedding = embedder.embed(cut.load_audio()[0])
            unit[cut.id] = embedding / np.linalg.norm(embedding)
        scores = {True: [], False: []}
        for trial in corpus.trials("dev"):
            scores[trial.target].append(float(unit[trial.enrol] @ unit[trial.test]))
        point = result.thresholds["eer"]
        assert point.false_accept_rate == pytest.approx(np.mean(np.array(scores[False]) >= point.threshold), abs=0.02)
        assert point.false_reject_rate == pytest.approx(np.mean(np.array(scores[True]) < point.threshold), abs=0.02)
        assert result.eer == pytest.approx((point.false_accept_rate + point.false_reject_rate) / 2, abs=0.03)


def test_int8_holds_int8_weights_and_says_what_it_cost(exported):
    result, fp32 = exported["int8"], exported["fp32"]
    model = onnx.load(result.path)
    types = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4}
    assert types == {onnx.TensorProto.INT8}
    assert result.bytes == result.path.stat().st_size < fp32.bytes
    assert 0 < result.int8_distance < 0.02
    assert result.eer_fp32 == fp32.eer
    assert result.calibration in ("minmax", "percentile", "mse")
    assert any("not faster" in note for note in result.notes)  # the two speeds are equal here
    assert (fp32.int8_distance, fp32.calibration, fp32.milliseconds_fp32) == (None, None, fp32.milliseconds)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_exporting_twice_gives_the_same_bytes(exported, run, prepared_tiny, tmp_path, precision):
    again = export_model(
        run, tmp_path / "other-name.onnx", corpus=prepared_tiny, precision=precision, licence="MIT", **QUICK
    )
    assert again.path.read_bytes() == exported[precision].path.read_bytes()


def test_the_mean_of_training_speakers_is_subtracted_and_stored(run, prepared_tiny, tmp_path, exported):
    result = export_model(run, tmp_path / "m.onnx", corpus=prepared_tiny, subtract_mean=True)
    contract = read_contract(result.path)
    embedder = SpeakerEmbedder.load(result.path)
    cuts = PreparedCorpus.load(prepared_tiny).cuts("train")
    wanted = np.mean([embedder.embed(cut.load_audio()[0]) for cut in cuts], axis=0)
    np.testing.assert_allclose(contract.mean, wanted, rtol=1e-3, atol=1e-3)
    assert contract.thresholds["eer"].threshold != exported["fp32"].thresholds["eer"].threshold


def test_no_torch_is_needed_to_run_the_file(exported, tmp_path):
    code = (
        "import sys, numpy as np\n"
        "from parvox.runtime.embedder import SpeakerEmbedder\n"
        f"e = SpeakerEmbedder.load({str(exported['int8'].path)!r})\n"
        "print(e.embed(np.sin(np.arange(16000) / 9).astype('f')).shape)\n"
        "print([m for m in ('torch', 'onnx', 'lhotse', 'scipy') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(24,)\n[]\n"


def test_speed_is_a_positive_time_that_grows_with_the_recording(exported):
    short, long = (milliseconds(exported["fp32"].path, seconds=seconds) for seconds in (0.5, 30.0))
    assert 0 < short < long


def refused(tmp_path, error, match, *args, **options):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=match) as caught:
        export_model(*args, **options)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before  # nothing half-written


def test_a_graph_that_differs_from_pytorch_is_refused(run, prepared_tiny, tmp_path, monkeypatch, toy_graph):
    for tensor in toy_graph.graph.initializer:
        if tensor.name.startswith("encoder.leave.weight"):
            array = onnx.numpy_helper.to_array(tensor).copy()
            array[0] *= 3
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    monkeypatch.setattr(pipeline, "to_onnx", lambda model: toy_graph)
    pipeline._last_traced.clear()
    try:
        refused(
            tmp_path,
            ExportError,
            r"cosine distance \d.*more than the 0.0001 allowed.*nothing was written",
            run,
            tmp_path / "m.onnx",
            corpus=prepared_tiny,
        )
    finally:
        pipeline._last_traced.clear()


def test_a_graph_that_differs_only_in_a_batch_is_refused(run, prepared_tiny, tmp_path, monkeypatch, toy_graph):
    """Without the mask, padding leaks into neighbouring frames; alone nothing changes."""
    producers = {name: node for node in toy_graph.graph.node for name in node.output}
    (depthwise,) = [node for node in toy_graph.graph.node if node.name == "encoder.depthwise/Conv"]
    mask = producers[depthwise.input[0]]
    assert mask.op_type == "Mul"
    depthwise.input[0] = mask.input[0]
    monkeypatch.setattr(pipeline, "to_onnx", lambda model: toy_graph)
    pipeline._last_traced.clear()
    try:
        refused(tmp_path, ExportError, "in a padded batch", run, tmp_path / "m.onnx", corpus=prepared_tiny)
    finally:
        pipeline._last_traced.clear()


@pytest.fixture
def badly_calibrated(monkeypatch):
    """Every range is a thousand times too wide, so that hardly a value differs from zero."""
    right = Histograms.ranges
    monkeypatch.setattr(Histograms, "ranges", lambda self, method: dict.fromkeys(right(self, method), (0.0, 1e4)))


def test_int8_that_costs_too_much_is_refused_and_says_how_much(
    run, prepared_tiny, tmp_path, monkeypatch, badly_calibrated
):
    """Even with half of the modules left in fp32, here those that do not matter."""
    order = ["encoder.leave", "encoder.depthwise", "encoder.pointwise", "encoder.stem_norm"]
    monkeypatch.setattr(Quantiser, "groups_by_sensitivity", lambda self, method: order)
    refused(
        tmp_path,
        ExportError,
        r"135 dev trials from 37.04 % to [\d.]+ %.*: by [\d.]+ percentage points, more than the 5 allowed; nothing was",
        run,
        tmp_path / "m.onnx",
        corpus=prepared_tiny,
        precision="int8",
        tolerance_eer=5.0,
        calibration_clips=4,
    )


def test_int8_embeddings_without_direction_are_refused(run, prepared_tiny, tmp_path, monkeypatch, badly_calibrated):
    monkeypatch.setattr(pipeline, "_measure", dead_after_the_first(pipeline._measure))
    refused(
        tmp_path,
        ExportError,
        "from 37.04 % to 100.00 %",
        run,
        tmp_path / "m.onnx",
        corpus=prepared_tiny,
        precision="int8",
        calibration_clips=4,
    )


def dead_after_the_first(measure):
    calls = []

    def measured(*args):
        calls.append(args)
        if len(calls) > 1:
            raise TrialError("18 embeddings are zero or not finite")
        return measure(*args)

    return measured


def test_costly_modules_are_left_in_fp32_before_giving_up(run, prepared_tiny, tmp_path, badly_calibrated):
    """The first layer is what matters: with it in fp32, the residual path carries on."""
    result = export_model(
        run,
        tmp_path / "m.onnx",
        corpus=prepared_tiny,
        precision="int8",
        tolerance_eer=5.0,
        calibration="minmax",
        calibration_clips=8,
    )
    assert "encoder.stem_norm" in result.left_in_fp32
    assert result.eer <= result.eer_fp32 + 0.05
    assert any("left in fp32" in note and "encoder.stem_norm" in note for note in result.notes)
    weights = {
        tensor.name: tensor.data_type for tensor in onnx.load(result.path).graph.initializer if len(tensor.dims) == 4
    }
    kept = [name for name, kind in weights.items() if kind == onnx.TensorProto.FLOAT]
    assert any("stem" in name for name in kept)


def test_an_existing_file_is_kept_unless_told_otherwise(run, prepared_tiny, tmp_path):
    out = tmp_path / "m.onnx"
    out.write_bytes(b"precious")
    refused(tmp_path, OutputError, "--overwrite", run, out, corpus=prepared_tiny)
    assert out.read_bytes() == b"precious"
    export_model(run, out, corpus=prepared_tiny, overwrite=True)
    read_model_file(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx"]


def test_bad_settings_and_places_are_refused_before_any_work(run, prepared_tiny, tmp_path, monkeypatch, make_wav):
    monkeypatch.setattr(pipeline, "to_onnx", lambda model: pytest.fail("work was begun"))
    pipeline._last_traced.clear()
    file = tmp_path / "file"
    file.write_text("no folder")
    out = tmp_path / "m.onnx"
    for error, match, given, changes in (
        (ExportError, "fp32 or int8", run, {"precision": "int4"}),
        (ExportError, "tolerance_eer", run, {"tolerance_eer": float("nan")}),
        (ExportError, "calibration_clips", run, {"calibration_clips": 0}),
        (ModelFileError, "run folder", tmp_path / "nowhere", {}),
        (ModelFileError, "recipe.yaml", tmp_path, {}),
        (CorpusError, "no such folder", run, {"corpus": tmp_path / "nowhere"}),
        (OutputError, "is a file, not a folder", run, {"out": file / "m.onnx"}),
        (OutputError, "it is a folder", run, {"out": prepared_tiny, "overwrite": True}),
    ):
        options = {"corpus": prepared_tiny, "out": out, **changes}
        refused(tmp_path, error, match, given, options.pop("out"), **options)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_refused(run, prepared_tiny, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    refused(tmp_path, OutputError, "not a writable folder", run, folder / "m.onnx", corpus=prepared_tiny)


def test_a_full_disk_leaves_nothing(run, prepared_tiny, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    refused(tmp_path, OutputError, "No space left on device", run, tmp_path / "m.onnx", corpus=prepared_tiny)


def test_a_corpus_at_another_rate_or_without_trials_is_told_apart(run, prepared_tiny, tmp_path):
    corpus = PreparedCorpus.load(prepared_tiny)
    other = PreparedCorpus(corpus.folder, dataclasses.replace(corpus.info, sample_rate_hz=8000))
    refused(tmp_path, CorpusError, "8000 Hz, the model listens at 16000 Hz", run, tmp_path / "m.onnx", corpus=other)
    dev = dataclasses.replace(corpus.info.splits["dev"], trials_from="", target_trials=0, nontarget_trials=0)
    without = PreparedCorpus(corpus.folder, dataclasses.replace(corpus.info, splits={**corpus.info.splits, "dev": dev}))
    refused(
        tmp_path,
        ExportError,
        "no dev trials of both kinds",
        run,
        tmp_path / "m.onnx",
        corpus=without,
        precision="int8",
    )
    result = export_model(run, tmp_path / "m.onnx", corpus=without)
    assert (result.eer, result.thresholds) == (None, {})
    assert read_contract(result.path).default_threshold is None
    assert any("no threshold" in note for note in result.notes)


def test_a_model_with_broken_weights_is_refused(tmp_path, prepared_tiny, monkeypatch, toy_graph):
    model = toy_model()
    with torch.no_grad():
        model.head[1].weight[0, 0] = float("nan")
    for tensor in toy_graph.graph.initializer:
        if tensor.name.startswith("head") and len(tensor.dims) == 2:
            array = np.full(tuple(tensor.dims), np.nan, np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    monkeypatch.setattr(pipeline, "to_onnx", lambda model: toy_graph)
    broken = toy_run(tmp_path / "run", model, prepared_tiny)
    refused(tmp_path, ParvoxError, "not finite", broken, tmp_path / "m.onnx", corpus=prepared_tiny)
