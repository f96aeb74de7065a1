"""Tiny ONNX speaker models, made node by node."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BINS, DIM = 80, 6
WEIGHTS = np.random.default_rng(0).standard_normal((BINS, DIM)).astype(np.float32)


def saved(path, nodes, given, shape, metadata=None, kind=TensorProto.FLOAT, weights=None, outputs=None, more=()):
    """Write a model of one input and say where."""
    graph = helper.make_graph(
        nodes,
        "speaker",
        [helper.make_tensor_value_info(given, kind, shape), *more],
        outputs or [helper.make_tensor_value_info("embs", TensorProto.FLOAT, ["B", DIM])],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def features_model(path, metadata=None, shape=("B", "T", BINS), axis=1):
    """Mean square of each bin over time, times a matrix."""
    nodes = [
        helper.make_node("Mul", ["feats", "feats"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "axis"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["embs"]),
    ]
    return saved(path, nodes, "feats", shape, metadata, weights={"axis": np.array([axis]), "weights": WEIGHTS})
