"""Static int8 quantisation: QDQ nodes around convolutions and linear layers, scales from real clips.

What is quantised. Convolutions with constant weights, and matrix products of frames with constant weights, in the
encoder and the pooling; the rectification after them (it becomes the range's lower end); and a padding mask between
two of them, so that data stays in 8 bits from one to the next. All else is computed in float32: the front end, whose
log energies 8 bits cannot hold; statistics; sums of residual branches, where errors would add up; the embedding head.
Quantising those as well was measured slower, not faster: each is cheap, and each needs its own rescaling.

Number formats. Activations are unsigned 8-bit with a zero point, weights signed with a scale for each output channel.
Weights use 7 of the 8 bits: x86 processors without VNNI add two products of 8 by 8 bits in 16 bits and saturate,
silently, when both are large; with 7-bit weights they cannot (2 × 255 × 64 < 2^15). So the file gives the same scores
on every processor, at the same speed; what the eighth bit would gain is below what the choice of clips changes.
Signed activations would be no faster, keep rectifications alive as nodes, and double the time of residual blocks.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorsData

from parvox.errors import ExportError
from parvox.export.calibrate import Ranges

_LEAST_PRODUCTS = 48
"""Multiplications for each output below which a layer is not worth the rescaling of its input and output."""
_QUANTISED_MODULES = ("encoder", "pooling")
_FOLLOWERS = ("Relu", "Clip")
_PASSES_THROUGH = ("Squeeze", "Unsqueeze")


@dataclass
class Plan:
    """Which nodes to quantise, and the values whose ranges that needs.

    Attributes:
        model: The float32 graph with the types of all its values.
        layers: Names of convolutions and matrix products, in order.
        followers: Names of the nodes between them that stay in 8 bits, by the layer they follow.
        tensors: Names of the values whose ranges are needed.
    """

    model: onnx.ModelProto
    layers: list[str]
    followers: dict[str, list[str]]
    tensors: list[str]
    op_types: list[str] = field(default_factory=list)


def plan_quantisation(model: onnx.ModelProto) -> Plan:
    """Choose what to quantise in a graph made by `to_onnx`.

    Raises:
        ExportError: nothing in it can be.
    """
    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)

    candidates = [node for node in graph.node if _is_layer(node, constants)]
    large = {node.name for node in candidates if _products(node, constants) >= _LEAST_PRODUCTS}
    layers = [node for node in candidates if node.name in large or _next_to(node, large, producers, consumers)]
    if not layers:
        raise ExportError("int8: the model has no convolution or linear layer over frames to quantise; export fp32")
    names = {node.name for node in layers}
    followers: dict[str, list[str]] = {}
    for node in layers:
        followers[node.name] = []
        value = node.output[0]
        after = consumers.get(value, [])
        if len(after) == 1 and after[0].op_type in _FOLLOWERS:
            followers[node.name].append(after[0].name)
            value = after[0].output[0]
        for mask in consumers.get(value, []):
            users = consumers.get(mask.output[0], [])
            if mask.op_type == "Mul" and _masks(mask, value, producers) and users and _all_in(users, names):
                followers[node.name].append(mask.name)
    kept = names | {name for group in followers.values() for name in group}
    types = _types(graph)
    tensors = {
        name
        for node in graph.node
        if node.name in kept
        for name in (*node.input, *node.output)
        if name and name not in constants and types.get(name) == onnx.TensorProto.FLOAT
    }
    op_types = sorted({node.op_type for node in graph.node if node.name in kept})
    return Plan(model, [node.name for node in layers], followers, sorted(tensors), op_types)


def quantise(plan: Plan, ranges: Ranges, *, exclude: Collection[str] = (), weight_bits: int = 7) -> onnx.ModelProto:
    """Quantise what a plan says.

    Args:
        plan: From `plan_quantisation`.
        ranges: Of the plan's tensors, from `Histograms.ranges`.
        exclude: Names of layers to leave in float32.
        weight_bits: 7, exact on every processor, or 8.

    Returns:
        A graph with QuantizeLinear and DequantizeLinear nodes, which onnxruntime fuses into 8-bit kernels at load.
    """
    if weight_bits not in (7, 8):
        raise ExportError(f"weight_bits: {weight_bits} given; expected 7 or 8")
    chosen = [layer for layer in plan.layers if layer not in exclude]
    nodes = [name for layer in chosen for name in (layer, *plan.followers[layer])]
    model = onnx.ModelProto()
    model.CopyFrom(plan.model)
    data = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    logger = logging.getLogger()  # the quantiser reports on the root logger
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=weight_bits == 7,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, data),
            nodes_to_quantize=nodes,
            nodes_to_exclude=[],
            op_types_to_quantize=plan.op_types,
            extra_options={"QDQOpTypePerChannelSupportToAxis": {"MatMul": 1}},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    finally:
        logger.setLevel(level)
    result: onnx.ModelProto = quantizer.model.model
    del result.graph.value_info[:]
    result.producer_name, result.producer_version = plan.model.producer_name, plan.model.producer_version
    onnx.checker.check_model(result)
    return result


def _is_layer(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    if not node.name.startswith(_QUANTISED_MODULES) or len(node.input) < 2 or node.input[1] not in constants:
        return False
    weight = constants[node.input[1]]
    if weight.data_type != onnx.TensorProto.FLOAT or node.input[0] in constants:
        return False
    return node.op_type == "Conv" or (node.op_type == "MatMul" and len(weight.dims) == 2)


def _products(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> int:
    """Multiplications for each output."""
    dims = constants[node.input[1]].dims
    return math.prod(dims[1:]) if node.op_type == "Conv" else dims[0]


def _next_to(
    node: onnx.NodeProto,
    layers: set[str],
    producers: dict[str, onnx.NodeProto],
    consumers: dict[str, list[onnx.NodeProto]],
) -> bool:
    """Whether a layer hands its output straight to one of `layers`, or gets its input straight from one."""
    before = producers.get(node.input[0])
    if before is not None and before.op_type in _FOLLOWERS:
        before = producers.get(before.input[0])
    after = consumers.get(node.output[0], [])
    if len(after) == 1 and after[0].op_type in _FOLLOWERS:
        after = consumers.get(after[0].output[0], [])
    return (before is not None and before.name in layers) or any(user.name in layers for user in after)


def _masks(node: onnx.NodeProto, value: str, producers: dict[str, onnx.NodeProto]) -> bool:
    """Whether a product is that of `value` and a mask, something made of truth values."""
    others = [name for name in node.input if name != value]
    if len(others) != 1:
        return False
    made = producers.get(others[0])
    while made is not None and made.op_type in _PASSES_THROUGH:
        made = producers.get(made.input[0])
    if made is None or made.op_type != "Cast":
        return False
    made = producers.get(made.input[0])
    while made is not None and made.op_type in (*_PASSES_THROUGH, "Reshape"):
        made = producers.get(made.input[0])
    return made is not None and made.op_type in ("Less", "And", "GreaterOrEqual", "LessOrEqual", "Greater", "Not")


def _all_in(nodes: list[onnx.NodeProto], names: set[str]) -> bool:
    return all(node.name in names for node in nodes)


def _types(graph: onnx.GraphProto) -> dict[str, int]:
    values = (*graph.value_info, *graph.input, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}
