from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from parvox.export.compact import compact_bands, compact_frontend, compact_weights, strip
from parvox.export.session import cosine_distances, embed, open_session
from parvox.models.frontend import Fbank, FbankSettings


def frontend_graph(settings):
    """A graph that hands out the front end's matrices, named as in an exported model."""
    fbank = Fbank(settings)
    names = ["cosine", "sine", "mel"]
    tensors = [numpy_helper.from_array(getattr(fbank, name).numpy(), f"frontend.{name}") for name in names]
    given = helper.make_tensor_value_info("one", TensorProto.FLOAT, [1])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in names]
    nodes = [helper.make_node("Mul", ["one", f"frontend.{name}"], [name], name=name) for name in names]
    graph = helper.make_graph(nodes, "g", [given], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model, [getattr(fbank, name).numpy() for name in names]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bins": 40, "window": "povey"},
        {"sample_rate_hz": 8000},
        {"bins": 64, "low_hz": 300.0, "high_hz": -400.0},
        {"bins": 23, "frame_length_ms": 32.0},
    ],
)
def test_the_front_end_is_rebuilt_bit_for_bit_from_a_few_kilobytes(options):
    settings = FbankSettings(**options)
    model, matrices = frontend_graph(settings)
    small = compact_frontend(model, settings)
    assert model.ByteSize() > 80_000
    assert small.ByteSize() < 18_000
    found = open_session(small.SerializeToString()).run(None, {"one": np.ones(1, np.float32)})
    for matrix, rebuilt in zip(matrices, found, strict=True):
        np.testing.assert_allclose(rebuilt, matrix, atol=1e-7, rtol=0)
    if options == {}:
        assert all(np.array_equal(matrix, rebuilt) for matrix, rebuilt in zip(matrices, found, strict=True))


def test_an_odd_window_is_left_as_it_is():
    """Its middle row is halved, which the formula does not give."""
    settings = FbankSettings(sample_rate_hz=11_025)
    assert settings.frame_length % 2
    model, matrices = frontend_graph(settings)
    small = compact_frontend(model, settings)
    found = open_session(small.SerializeToString()).run(None, {"one": np.ones(1, np.float32)})
    for matrix, rebuilt in zip(matrices, found, strict=True):
        np.testing.assert_allclose(rebuilt, matrix, atol=1e-7, rtol=0)


def test_a_matrix_that_the_formula_does_not_give_is_left_alone():
    settings = FbankSettings()
    model, _ = frontend_graph(settings)
    cosine = model.graph.initializer[0]
    array = numpy_helper.to_array(cosine).copy()
    array[7, 9] += 0.01
    cosine.CopyFrom(numpy_helper.from_array(array, cosine.name))
    kept = {tensor.name for tensor in compact_frontend(model, settings).graph.initializer}
    assert "frontend.cosine" in kept
    assert "frontend.sine" not in kept


def test_nothing_of_it_is_left_to_compute_at_run_time(toy, toy_graph, tmp_path):
    """onnxruntime folds it when a session is made; the graph it then runs is that of the large file."""
    runs = {}
    for name, graph in (("large", toy_graph), ("small", compact_frontend(toy_graph, toy.settings.features))):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(tmp_path / f"{name}.onnx")
        onnxruntime.InferenceSession(graph.SerializeToString(), options)
        runs[name] = sorted(node.op_type for node in onnx.load(tmp_path / f"{name}.onnx").graph.node)
    assert runs["small"] == runs["large"]


def test_the_small_file_gives_the_same_embedding(toy, toy_graph):
    small = strip(compact_frontend(toy_graph, toy.settings.features))
    assert small.ByteSize() < toy_graph.ByteSize() - 450_000
    clip = (0.1 * np.random.default_rng(0).standard_normal(20_000)).astype(np.float32)
    wanted, found = (embed(open_session(graph.SerializeToString()), [clip]) for graph in (toy_graph, small))
    assert np.array_equal(wanted, found)


def linear_graph(op_type, weight, **attributes):
    first = attributes.pop("first", False)
    names = ["w", "x"] if first else ["x", "w"]
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(op_type, names, ["y"], name="encoder/layer", **attributes)],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(weight, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    return model


@pytest.mark.parametrize(
    ("op_type", "options", "weight", "values", "scale_shape"),
    [
        ("Gemm", {"transB": 1}, (40, 64), (3, 64), (40, 1)),
        ("Gemm", {}, (64, 40), (3, 64), (1, 40)),
        ("MatMul", {}, (4, 64, 40), (4, 5, 64), (4, 1, 40)),
        ("MatMul", {"first": True}, (40, 64), (64, 7), (40, 1)),
        ("Gemm", {"first": True}, (40, 64), (64, 7), (40, 1)),
        ("Gemm", {"first": True, "transA": 1}, (64, 40), (64, 7), (1, 40)),
        ("Conv", {}, (40, 16, 1, 3), (2, 16, 1, 9), (40, 1, 1, 1)),
    ],
)
def test_weights_are_stored_in_eight_bits_with_a_scale_for_each_output(op_type, options, weight, values, scale_shape):
    rng = np.random.default_rng(0)
    array = (rng.standard_normal(weight) * rng.uniform(0.01, 10, scale_shape)).astype(np.float32)
    model = linear_graph(op_type, array, **dict(options))
    small = compact_weights(model, keep=())
    stored = {tensor.name: tensor for tensor in small.graph.initializer}
    assert stored["w.int8"].data_type == TensorProto.INT8
    assert tuple(stored["w.scale"].dims) == scale_shape
    assert small.ByteSize() < 0.5 * model.ByteSize()
    rebuilt = numpy_helper.to_array(stored["w.int8"]) * numpy_helper.to_array(stored["w.scale"])
    assert (np.abs(rebuilt - array) <= numpy_helper.to_array(stored["w.scale"]) * 0.5001).all()
    x = rng.standard_normal(values).astype(np.float32)
    wanted, found = (open_session(m.SerializeToString()).run(None, {"x": x})[0] for m in (model, small))
    assert cosine_distances(wanted.reshape(1, -1), found.reshape(1, -1))[0] < 1e-4
    assert not np.array_equal(wanted, found)
    kept = compact_weights(model, keep=("encoder/layer",)).graph.initializer
    assert [tensor.name for tensor in kept] == ["w"]
    assert np.array_equal(numpy_helper.to_array(kept[0]), array)


def test_small_weights_are_left_alone():
    model = linear_graph("Gemm", np.ones((8, 8), np.float32))
    assert [tensor.name for tensor in compact_weights(model, keep=()).graph.initializer] == ["w"]


def banded(channels, bins, reach, columns, kind=np.float32):
    """A stack of matrices with a band, and what stands beside it."""
    rng = np.random.default_rng(bins + reach)
    rows, places = np.indices((bins, columns))
    inside = (np.abs(places - rows) <= reach) | (places >= bins)
    return np.where(inside, rng.integers(-100, 100, (channels, bins, columns)), 0).astype(kind)


@pytest.mark.parametrize("eight_bits", [False, True])
@pytest.mark.parametrize(("bins", "reach", "columns"), [(40, 1, 40), (40, 2, 43), (20, 0, 22), (10, 2, 10), (9, 1, 10)])
def test_bands_are_stored_alone_and_rebuilt_bit_for_bit(bins, reach, columns, eight_bits):
    array = banded(16, bins, reach, columns)
    model = linear_graph("MatMul", array, first=True)
    before = compact_weights(model, keep=()) if eight_bits else model
    small = compact_bands(before)
    stored = {tensor.name: tensor for tensor in small.graph.initializer}
    name = "w.int8" if eight_bits else "w"
    assert name not in stored
    assert tuple(stored[f"{name}.bands"].dims) == (16, bins, 2 * reach + 1)
    assert stored[f"{name}.bands"].data_type == (TensorProto.INT8 if eight_bits else TensorProto.FLOAT)
    x = np.random.default_rng(0).standard_normal((16, columns, 7)).astype(np.float32)
    wanted, found = (open_session(m.SerializeToString()).run(None, {"x": x})[0] for m in (before, small))
    assert np.array_equal(wanted, found)


def test_other_matrices_are_left_alone():
    full, wide, flat = banded(4, 12, 11, 12), banded(4, 12, 1, 40), banded(1, 40, 1, 40)[0]
    for array in (full, wide, flat, banded(4, 12, 4, 12)):
        model = linear_graph("MatMul", array, first=True)
        assert [tensor.name for tensor in compact_bands(model).graph.initializer] == ["w"]


def test_stripping_drops_names_and_shapes_but_not_those_of_layers(toy, toy_graph):
    model = onnx.shape_inference.infer_shapes(toy_graph)
    assert model.graph.value_info
    stripped = strip(model)
    assert not stripped.graph.value_info
    assert {node.name.split("/")[-1].split("_")[0] for node in stripped.graph.node} == {"", "Conv", "Gemm", "MatMul"}
    assert [v.name for v in (*stripped.graph.input, *stripped.graph.output)] == ["waveform", "lengths", "embedding"]
    assert strip(stripped).SerializeToString() == stripped.SerializeToString()
