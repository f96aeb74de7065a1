"""ONNX teachers, each against a direct computation with Kaldi's own features."""

import os
import sys
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx_models import BINS, DIM, WEIGHTS, features_model, saved

from parvox.errors import ModelFileError, RecipeError, TrainingError
from parvox.runtime.embedder import SpeakerEmbedder
from parvox.training.recipe import load_recipe
from parvox.training.run import load_run
from parvox.training.teacher_settings import OnnxSettings, TeacherOptions
from parvox.training.teachers import Inputs, load_teacher
from parvox.training.trainer import train

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
from tiny_model import model_file

CPU = torch.device("cpu")
SHERPA_WESPEAKER = {"framework": "wespeaker", "sample_rate": "16000", "normalize_samples": "0", "output_dim": "6"}
SHERPA_3D = {
    "framework": "3d-speaker",
    "sample_rate": "16000",
    "normalize_samples": "1",
    "feature_normalize_type": "global-mean",
}


def waveform_model(path, metadata=None, shape=("B", "S")):
    """Mean magnitude, times a vector."""
    axes = np.arange(1, len(shape))
    nodes = [
        helper.make_node("Abs", ["wav"], ["size"]),
        helper.make_node("ReduceMean", ["size", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
        helper.make_node("MatMul", ["column", "weights"], ["embs"]),
    ]
    weights = {"axes": axes, "last": np.array([1]), "weights": WEIGHTS[:1]}
    return saved(path, nodes, "wav", shape, metadata, weights=weights)


def waveforms(batch=3, samples=9000):
    """Quiet enough that at scale 1 many bins lie on Kaldi's floor, which tells scales apart."""
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((batch, samples)) * np.geomspace(1e-5, 1e-2, samples)
    return torch.from_numpy(noise.astype(np.float32))


def kaldi(samples, scale, window, normalise):
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.samp_freq = 16000
    options.frame_opts.window_type = window
    options.mel_opts.num_bins = BINS
    fbank = kaldi_native_fbank.OnlineFbank(options)
    fbank.accept_waveform(16000, (samples * scale).tolist())
    fbank.input_finished()
    features = np.stack([fbank.get_frame(frame) for frame in range(fbank.num_frames_ready)])
    if normalise != "none":
        features = features - features.mean(0)
    if normalise == "mean_std":
        features = features / features.std(0, ddof=1)
    return features


def expected(scale, window, normalise):
    rows = [(kaldi(row, scale, window, normalise) ** 2).mean(0) @ WEIGHTS for row in waveforms().numpy()]
    return np.stack(rows)


WESPEAKER = expected(32768, "hamming", "mean")
THREE_D = expected(1, "povey", "mean")


def embedded(path, **settings):
    teacher = load_teacher(str(path), None, CPU, TeacherOptions(onnx=OnnxSettings(**settings)))
    return teacher, teacher.embed(waveforms()).numpy()


def test_the_conventions_differ():
    """Or the tests below would prove little."""
    assert np.abs(WESPEAKER - THREE_D).max() > 0.1 * np.abs(WESPEAKER).max()


@pytest.mark.parametrize(
    ("metadata", "settings", "wanted"),
    [
        (SHERPA_WESPEAKER, {}, WESPEAKER),
        (SHERPA_3D, {}, THREE_D),
        (None, {"convention": "wespeaker"}, WESPEAKER),
        (None, {"convention": "3d-speaker"}, THREE_D),
        (SHERPA_3D, {"convention": "wespeaker", "scale": 32768.0}, WESPEAKER),
        (
            {"sample_rate": "16000", "normalize_samples": "0", "feature_normalize_type": "per_feature"},
            {"window": "povey"},
            expected(32768, "povey", "mean_std"),
        ),
        (
            None,
            {"sample_rate_hz": 16000, "scale": 32768.0, "window": "povey", "normalise": "none"},
            expected(32768, "povey", "none"),
        ),
    ],
)
def test_features_are_as_the_model_wants_them(tmp_path, metadata, settings, wanted):
    teacher, got = embedded(features_model(tmp_path / "m.onnx", metadata), **settings)
    assert teacher.side.embedding_dim == DIM
    np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=2e-3 * np.abs(wanted).max())


def test_the_bins_may_come_first_and_utterances_one_by_one(tmp_path):
    path = features_model(tmp_path / "m.onnx", SHERPA_WESPEAKER, shape=(1, BINS, "T"), axis=2)
    np.testing.assert_allclose(embedded(path)[1], WESPEAKER, rtol=2e-3, atol=2e-3 * np.abs(WESPEAKER).max())


def test_what_was_assumed_is_said(tmp_path):
    teacher, _ = embedded(features_model(tmp_path / "m.onnx", SHERPA_WESPEAKER))
    for words in ("80 log-mel bins", "16000 Hz", "32768", "hamming", "mean off", "its metadata", "wespeaker's habits"):
        assert words in teacher.note


def test_a_file_beside_says_it_and_the_recipe_wins_over_it(tmp_path):
    path = features_model(tmp_path / "m.onnx")
    (tmp_path / "m.onnx.yaml").write_text("convention: 3d-speaker\n")
    np.testing.assert_allclose(embedded(path)[1], THREE_D, rtol=2e-3, atol=2e-3 * np.abs(THREE_D).max())
    changed = embedded(path, scale=32768.0, window="hamming")[1]
    np.testing.assert_allclose(changed, WESPEAKER, rtol=2e-3, atol=2e-3 * np.abs(WESPEAKER).max())
    (tmp_path / "m.onnx.yaml").write_text("conventoin: 3d-speaker\n")
    with pytest.raises(RecipeError, match="convention"):
        embedded(path)


@pytest.mark.parametrize("shape", [("B", "S"), ("B", 1, "S")])
def test_waveforms_go_in_at_their_scale(tmp_path, shape):
    path = waveform_model(tmp_path / "m.onnx", {"sample_rate": "16000", "normalize_samples": "0"}, shape)
    settings = {} if len(shape) == 2 else {"input": "waveform"}
    wanted = 32768 * waveforms().abs().mean(1, keepdim=True).numpy() @ WEIGHTS[:1]
    np.testing.assert_allclose(embedded(path, **settings)[1], wanted, rtol=1e-4)
    np.testing.assert_allclose(embedded(path, scale=1.0, **settings)[1], wanted / 32768, rtol=1e-4)


def test_a_model_file_of_our_own_needs_no_telling(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(model_file())
    _, got = embedded(path)
    np.testing.assert_allclose(got, SpeakerEmbedder.load(path).embed_batch(list(waveforms().numpy())), rtol=1e-5)


def test_a_view_has_no_gradients_and_no_inside(tmp_path):
    teacher, got = embedded(features_model(tmp_path / "m.onnx", SHERPA_3D))
    view = teacher.view(Inputs(waveforms(), torch.zeros(3, 10, BINS), torch.tensor([0, 1, 2])))
    np.testing.assert_array_equal(view.embedding.numpy(), got)
    assert not view.embedding.requires_grad
    assert view.encoded is None


def integers(path):
    nodes = [helper.make_node("Cast", ["ids"], ["embs"], to=TensorProto.FLOAT)]
    return saved(path, nodes, "ids", ["B", "S"], kind=TensorProto.INT64)


def two_inputs(path):
    nodes = [helper.make_node("Add", ["a", "b"], ["embs"])]
    more = [helper.make_tensor_value_info("b", TensorProto.FLOAT, ["B", DIM])]
    return saved(path, nodes, "a", ["B", DIM], more=more)


def two_outputs(path):
    nodes = [helper.make_node("Identity", ["wav"], ["embs"]), helper.make_node("Identity", ["wav"], ["logits"])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", "S"]) for name in ("embs", "logits")]
    return saved(path, nodes, "wav", ["B", "S"], {"sample_rate": "16000"}, outputs=outputs)


def frame_by_frame(path):
    nodes = [helper.make_node("Identity", ["wav"], ["embs"])]
    outputs = [helper.make_tensor_value_info("embs", TensorProto.FLOAT, ["B", "S"])]
    return saved(path, nodes, "wav", ["B", "S"], {"sample_rate": "16000"}, outputs=outputs)


def always_the_same(path):
    nodes = [
        helper.make_node("ReduceMean", ["wav", "axes"], ["mean"]),
        helper.make_node("Mul", ["mean", "zeros"], ["embs"]),
    ]
    weights = {"zeros": np.zeros((1, DIM), np.float32), "axes": np.array([1])}
    return saved(path, nodes, "wav", ["B", "S"], {"sample_rate": "16000"}, weights=weights)


def secretly_fixed(path):
    nodes = [helper.make_node("MatMul", ["wav", "weights"], ["embs"])]
    weights = {"weights": np.ones((16000, DIM), np.float32)}
    return saved(path, nodes, "wav", ["B", "S"], {"sample_rate": "16000"}, weights=weights)


@pytest.mark.parametrize(
    ("make", "settings", "says"),
    [
        (lambda path: features_model(path, SHERPA_3D, ("B", 200, BINS)), {}, "takes a fixed length, 200, .* axis free"),
        (lambda path: waveform_model(path, {"sample_rate": "16000"}, ("B", 48000)), {}, "takes a fixed length, 48000"),
        (features_model, {}, "metadata do not say sample_rate_hz, scale, window, normalise; set onnx.convention"),
        (lambda path: features_model(path, {"framework": "nemo"}), {}, "a NeMo model, whose mel bins are not Kaldi's"),
        (lambda path: features_model(path, SHERPA_3D, (4, "T", BINS)), {}, r"\(4, T, 80\) given; .* the batch free"),
        (lambda path: features_model(path, SHERPA_3D), {"bins": 40}, "onnx.bins 40 given, but its input has 80"),
        (lambda path: features_model(path, SHERPA_3D), {"input": "waveform"}, "onnx.input waveform given"),
        (
            lambda path: features_model(path, SHERPA_3D, ("B", "T", "F")),
            {},
            "does not say how many mel bins; set onnx.bins",
        ),
        (
            lambda path: features_model(path, {**SHERPA_3D, "feature_normalize_type": "all"}),
            {},
            "feature_normalize_type 'all'",
        ),
        (lambda path: features_model(path, {**SHERPA_3D, "sample_rate": "16k"}), {}, "sample_rate '16k' .* a number"),
        (integers, {}, r"input ids of type tensor\(int64\) given; expected tensor\(float\)"),
        (two_inputs, {}, r"2 inputs given \(a, b\); expected one"),
        (two_outputs, {}, r"2 outputs given \(embs, logits\); say which: onnx.output"),
        (two_outputs, {"output": "emb"}, "onnx.output 'emb' given; it has embs, logits"),
        (frame_by_frame, {}, "grows with the length"),
        (always_the_same, {}, "gave the same embedding for two different utterances"),
        (secretly_fixed, {}, "onnxruntime failed on 2 utterances of 1.30 s"),
        (lambda path: path.write_bytes(b"\x08no model"), {}, "cannot load it"),
        (lambda path: None, {}, "cannot be read"),
    ],
)
def test_what_cannot_teach_is_refused_in_one_line(tmp_path, make, settings, says):
    path = tmp_path / "m.onnx"
    make(path)
    with pytest.raises(ModelFileError, match=says) as caught:
        embedded(path, **settings)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_student_learns_from_one(tiny_recipe, tmp_path, capfd):
    path = features_model(tmp_path / "m.onnx")
    options = [
        *("--distillation.teacher", str(path), "--distillation.embedding.weight", "10"),
        *("--distillation.onnx.convention", "wespeaker", "--training.epochs", "1"),
    ]
    run = train(load_recipe(tiny_recipe, options), tmp_path / "run")
    assert run.summary["parameters_added_for_training"] == 16 * DIM
    assert "80 log-mel bins at 16000 Hz" in capfd.readouterr().err
    assert load_run(run.folder).recipe.distillation.options.onnx.convention == "wespeaker"


def test_weights_beside_the_graph_count_in_the_checksum(tmp_path):
    path = features_model(tmp_path / "m.onnx", SHERPA_WESPEAKER)
    one = embedded(path)[0].checksum
    assert one == embedded(path)[0].checksum
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="m.bin", size_threshold=100)
    beside = embedded(path)[0].checksum
    data = bytearray((tmp_path / "m.bin").read_bytes())
    data[-1] ^= 1
    (tmp_path / "m.bin").write_bytes(bytes(data))
    assert len({one, beside, embedded(path)[0].checksum}) == 3


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match="not a regular file"):
        load_teacher(str(tmp_path / "m.onnx"), None, torch.device("cpu"))


def test_another_rate_is_refused_before_training(tiny_recipe, tmp_path):
    path = features_model(tmp_path / "m.onnx", {**SHERPA_3D, "sample_rate": "8000"})
    options = ["--distillation.teacher", str(path), "--distillation.embedding.weight", "1"]
    with pytest.raises(TrainingError, match=r"m\.onnx listens at 8000 Hz, but the corpus was prepared at 16000"):
        train(load_recipe(tiny_recipe, options), tmp_path / "run")
    assert not (tmp_path / "run").exists()
