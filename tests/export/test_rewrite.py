"""The rewrites on graphs of a few nodes, against onnxruntime's own reading of the graph before."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxscript import ir

from parvox.export.rewrite import convolve_in_planes, fold_batch_norms
from parvox.export.session import open_session

node = helper.make_node


def graph_of(nodes, constants, shape=("batch", 6, "time"), rank=3):
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)
    given_input = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))
    graph = helper.make_graph(nodes, "g", [given_input], [output], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def run(model, values):
    return open_session(model.SerializeToString(), optimise=False).run(None, {"x": values})[0]


def rewritten(model, rewrite):
    graph = ir.from_proto(model)
    rewrite(graph)
    for number, made in enumerate(graph.graph):
        for output, value in enumerate(made.outputs):
            value.name = value.name or f"v{number}_{output}"
    proto = ir.to_proto(graph)
    onnx.checker.check_model(proto)
    return proto


def kinds(model):
    return [made.op_type for made in model.graph.node]


def norm_constants(channels, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.5, 2, (4, channels)).astype(np.float32)
    return {"gamma": values[0], "beta": values[1] - 1, "mean": values[2] - 1, "variance": values[3]}


BN = node("BatchNormalization", ["x", "gamma", "beta", "mean", "variance"], ["n"], epsilon=1e-3)


def floats(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_a_normalisation_folds_into_an_unpadded_convolution():
    model = graph_of(
        [BN, node("Conv", ["n", "w", "b"], ["y"], dilations=[2])],
        {**norm_constants(6), "w": floats(5, 6, 3), "b": floats(5)},
    )
    values = floats(2, 6, 20)
    folded = rewritten(model, fold_batch_norms)
    assert kinds(folded) == ["Conv"]
    np.testing.assert_allclose(run(folded, values), run(model, values), atol=1e-5)
    assert list(folded.graph.node[0].attribute[0].ints) == [2]


def test_a_normalisation_folds_into_a_linear_layer():
    model = graph_of(
        [BN, node("Gemm", ["n", "w"], ["y"], transB=1)],
        {**norm_constants(6), "w": floats(4, 6)},
        shape=("batch", 6),
        rank=2,
    )
    values = floats(3, 6)
    folded = rewritten(model, fold_batch_norms)
    assert kinds(folded) == ["Gemm"]
    np.testing.assert_allclose(run(folded, values), run(model, values), atol=1e-5)


@pytest.mark.parametrize(
    "conv", [{"pads": [1, 1]}, {"group": 2}, {"auto_pad": "SAME_UPPER"}], ids=["padded", "grouped", "automatic"]
)
def test_what_would_not_be_exact_is_not_folded(conv):
    width = 3 if conv.get("group") else 6
    model = graph_of([BN, node("Conv", ["n", "w"], ["y"], **conv)], {**norm_constants(6), "w": floats(4, width, 3)})
    assert kinds(rewritten(model, fold_batch_norms)) == ["BatchNormalization", "Conv"]


def test_a_normalisation_with_two_users_is_not_folded():
    nodes = [BN, node("Conv", ["n", "w"], ["c"]), node("Add", ["c", "n"], ["y"])]
    model = graph_of(nodes, {**norm_constants(6), "w": floats(6, 6, 1)})
    assert "BatchNormalization" in kinds(rewritten(model, fold_batch_norms))


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    left=st.integers(0, 4),
    right=st.integers(0, 4),
    group=st.sampled_from([1, 2, 6]),
    bias=st.booleans(),
    time=st.integers(15, 40),
)
def test_any_convolution_becomes_a_plane(kernel, stride, dilation, left, right, group, bias, time):
    constants = {"w": floats(6, 6 // group, kernel, seed=kernel)}
    names = ["x", "w"]
    if bias:
        constants["b"] = floats(6)
        names.append("b")
    attributes = {"pads": [left, right], "strides": [stride], "dilations": [dilation], "group": group}
    model = graph_of([node("Conv", names, ["y"], **attributes)], constants)
    plane = rewritten(model, convolve_in_planes)
    assert kinds(plane) == ["Unsqueeze", "Conv", "Squeeze"]
    values = floats(2, 6, time, seed=time)
    np.testing.assert_allclose(run(plane, values), run(model, values), rtol=1e-4, atol=1e-5)


def test_operations_between_convolutions_move_along():
    """A masked residual block with branches by channel: one way in, one way out, whatever is in between."""
    nodes = [
        node("Conv", ["x", "w0"], ["a"], pads=[1, 1]),
        node("Relu", ["a"], ["r"]),
        node("Split", ["r", "parts"], ["left", "right"], axis=1),
        node("Add", ["left", "right"], ["sum"]),
        node("Concat", ["sum", "right"], ["joined"], axis=1),
        node("Mul", ["joined", "half"], ["scaled"]),
        node("ReduceMax", ["x", "channel"], ["loudest"]),  # (batch, 1, time), a flat value like a mask
        node("Mul", ["scaled", "loudest"], ["masked"]),
        node("Conv", ["masked", "w1", "b1"], ["c"]),
        node("Add", ["c", "r"], ["residual"]),
        node("ReduceMean", ["residual", "last"], ["y"], keepdims=1),
    ]
    constants = {
        "w0": floats(6, 6, 3),
        "w1": floats(6, 6, 1, seed=1),
        "b1": floats(6),
        "parts": np.array([3, 3]),
        "half": np.float32(0.5),
        "channel": np.array([1]),
        "last": np.array([-1]),
    }
    model = graph_of(nodes, constants)
    plane = rewritten(model, convolve_in_planes)
    values = floats(2, 6, 17)
    np.testing.assert_allclose(run(plane, values), run(model, values), rtol=1e-5, atol=1e-6)
    inferred = onnx.shape_inference.infer_shapes(plane, strict_mode=True)
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in inferred.graph.value_info}
    on_planes = [made for made in plane.graph.node if made.op_type in ("Conv", "Relu", "Split", "Add", "Concat", "Mul")]
    assert all(ranks[name] == 4 for made in on_planes for name in made.output)
    used = {name for made in plane.graph.node for name in made.input}
    views = [made for made in plane.graph.node if made.op_type in ("Squeeze", "Unsqueeze")]
    needed = [made for made in views if made.output[0] in used or made.output[0] == "y"]
    assert sorted(made.op_type for made in needed) == ["Squeeze", "Unsqueeze", "Unsqueeze"]


def test_planes_of_two_dimensions_are_left_alone():
    model = graph_of([node("Conv", ["x", "w"], ["y"])], {"w": floats(4, 6, 3, 3)}, shape=("b", 6, 8, "t"), rank=4)
    assert kinds(rewritten(model, convolve_in_planes)) == ["Conv"]
