from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from toy_encoder import settle

from parvox.errors import ExportError
from parvox.export.calibrate import Histograms
from parvox.export.compact import compact_frontend, compact_weights, strip
from parvox.export.int8 import Quantiser
from parvox.export.onnx_graph import to_onnx
from parvox.export.quantise import plan_quantisation, quantise
from parvox.export.session import cosine_distances, embed, embed_all, open_session
from parvox.models import ENCODERS, POOLINGS, ModelSettings, SpeakerModel


def clips(count, samples=12_000, seed=0):
    """Noise shaped in time and frequency, each clip otherwise."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        noise = rng.standard_normal(samples + 400 * index)
        smooth = np.convolve(noise, rng.uniform(-1, 1, 12), "same") * (1 + np.sin(np.arange(len(noise)) / 900))
        found.append((0.1 * smooth).astype(np.float32))
    return found


@pytest.fixture(scope="module")
def toy_plan(toy_bytes):
    plan = plan_quantisation(onnx.load_model_from_string(toy_bytes))
    return plan, Histograms(plan.model, plan.tensors, clips(6)).ranges("minmax")


def stored(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_the_plan_takes_layers_over_frames_and_nothing_else(toy_plan):
    plan, _ = toy_plan
    assert [layer.split("/")[0] for layer in plan.layers] == [
        "encoder.stem_norm",
        "encoder.depthwise",
        "encoder.pointwise",
        "encoder.leave",
    ]
    followers = {
        layer.split("/")[0]: [f.split("/")[-1].split("_")[0] for f in found] for layer, found in plan.followers.items()
    }
    assert followers["encoder.stem_norm"] == ["Relu", "Mul"]  # rectified, masked for the depthwise convolution
    assert followers["encoder.pointwise"] == ["Relu"]
    assert followers["encoder.leave"] == []
    assert all(name.startswith("v") for name in plan.tensors)


def test_weights_are_seven_bits_with_a_scale_for_each_output(toy_plan, toy):
    plan, ranges = toy_plan
    tensors = stored(quantise(plan, ranges))
    weights = {name: array for name, array in tensors.items() if array.dtype == np.int8 and array.ndim == 4}
    assert len(weights) == 4
    for name, array in weights.items():
        assert np.abs(array).max() <= 64
        assert np.abs(array).max() >= 60
        scale = tensors[name.replace("_quantized", "_scale")]
        assert scale.shape == (array.shape[0],)
    original = toy.encoder.leave.weight.detach().numpy()
    (name,) = [name for name in weights if "leave" in name]
    rebuilt = weights[name][:, :, 0] * tensors[name.replace("_quantized", "_scale")][:, None, None]
    folded = stored(plan.model)[name.removesuffix("_quantized")][:, :, 0]
    assert folded.shape == original.shape
    assert np.abs(rebuilt - folded).max() <= 0.51 * np.abs(folded).max() / 63
    assert (
        max(
            np.abs(array).max()
            for array in stored(quantise(plan, ranges, weight_bits=8)).values()
            if array.dtype == np.int8 and array.ndim == 4
        )
        > 100
    )
    with pytest.raises(ExportError, match="7 or 8"):
        quantise(plan, ranges, weight_bits=4)


def test_front_end_statistics_and_head_stay_in_float(toy_plan):
    plan, ranges = toy_plan
    model = quantise(plan, ranges)
    scaled = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    for node in model.graph.node:
        if node.name.split("/")[0].split(".")[0] in ("frontend", "pooling", "head"):
            assert not scaled & set(node.input) or node.name.startswith("pooling"), node.name
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert types["frontend.cosine"] == types["frontend.mel"] == TensorProto.FLOAT
    (gemm,) = [node for node in model.graph.node if node.op_type == "Gemm"]
    assert types[gemm.input[1]] == TensorProto.FLOAT


def test_rectification_becomes_the_end_of_a_range_and_masks_stay_in_eight_bits(toy_plan):
    plan, ranges = toy_plan
    model = quantise(plan, ranges)
    assert [node.op_type for node in model.graph.node].count("Relu") == 0
    producers = {name: node for node in model.graph.node for name in node.output}
    (depthwise,) = [node for node in model.graph.node if node.name.startswith("encoder.depthwise/Conv")]
    before = producers[producers[depthwise.input[0]].input[0]]  # DequantizeLinear, QuantizeLinear
    (mul,) = [producers[name] for name in before.input if name in producers]
    assert mul.op_type == "Mul"
    assert {producers[name].op_type for name in mul.input} == {"DequantizeLinear"}


def test_the_embedding_stays_close_and_padding_stays_unseen(toy_plan, toy_graph):
    plan, ranges = toy_plan
    model = quantise(plan, ranges)
    probes = clips(6, seed=1)
    wanted = embed_all(open_session(toy_graph.SerializeToString()), probes, "")
    session = open_session(model.SerializeToString())
    found = embed_all(session, probes, "")
    assert 0 < cosine_distances(wanted, found).mean() < 0.01
    assert cosine_distances(found, embed(session, probes)).max() < 1e-3


def test_excluded_layers_stay_in_float(toy_plan):
    plan, ranges = toy_plan
    model = quantise(plan, ranges, exclude=[plan.layers[2]])
    weights = {node.name.split("/")[0]: node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    floats = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    assert weights["encoder.pointwise"] in floats
    assert weights["encoder.leave"] not in floats


def test_the_same_ranges_give_the_same_bytes(toy_plan):
    plan, ranges = toy_plan
    assert quantise(plan, ranges).SerializeToString() == quantise(plan, ranges).SerializeToString()


def test_a_model_without_layers_over_frames_is_refused(toy_graph):
    for node in toy_graph.graph.node:
        node.name = node.name.replace("encoder", "frontend")
    with pytest.raises(ExportError, match="export fp32"):
        plan_quantisation(toy_graph)


def test_the_nearest_calibration_is_kept_and_the_costliest_modules_found(toy, toy_graph):
    quantiser = Quantiser(toy_graph, toy.settings.features, clips(6), clips(6, seed=1))
    best = quantiser.best()
    each = [quantiser.best(method).mean_distance for method in ("minmax", "percentile", "mse")]
    assert best.mean_distance == min(each)
    assert best.method == ("minmax", "percentile", "mse")[int(np.argmin(each))]
    groups = quantiser.groups_by_sensitivity(best.method)
    assert sorted(groups) == ["encoder.depthwise", "encoder.leave", "encoder.pointwise", "encoder.stem_norm"]
    spared = quantiser.without(groups[:2], best.method)
    assert spared.excluded == tuple(groups[:2])
    assert spared.mean_distance < best.mean_distance
    assert spared.graph.ByteSize() > best.graph.ByteSize()
    with pytest.raises(ExportError, match="no layer left"):
        quantiser.without(groups, best.method)


def test_a_million_weights_in_int8_take_little_more_than_a_quarter():
    settings = ENCODERS["depthwise_tdnn"].settings()
    torch.manual_seed(0)
    pooling = POOLINGS[settings.default_pooling].settings()
    model = settle(
        SpeakerModel(
            ModelSettings(
                encoder=settings,
                pooling=pooling,
                embedding_dim=settings.default_embedding_dim,
                head=settings.default_head,
            )
        )
    )
    features = model.settings.features
    graph = to_onnx(model)
    fp32 = strip(compact_frontend(graph, features))
    plan = plan_quantisation(graph)
    ranges = Histograms(plan.model, plan.tensors, clips(3)).ranges("minmax")
    int8 = strip(compact_weights(compact_frontend(quantise(plan, ranges), features), keep=()))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert 0.8e6 < parameters < 1e6
    assert fp32.ByteSize() < 4.05 * parameters  # the front end hardly counts
    assert int8.ByteSize() < 0.30 * fp32.ByteSize()
    elements: dict[int, int] = {}
    for tensor in int8.graph.initializer:
        elements[tensor.data_type] = elements.get(tensor.data_type, 0) + math.prod(tensor.dims)
    assert elements[TensorProto.INT8] > 0.98 * parameters
