"""Rewrites that make the file smaller: constants that are computed at load instead of being stored.

onnxruntime computes every node whose inputs are all constant once, when a session is made, so none of this costs
anything at run time.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from onnxscript import ir

from parvox.models.frontend import FbankSettings

_EXACT = 1e-6  # what float32 rounds away in a cosine
_WEIGHT_BITS = 8
_NAMED = ("BatchNormalization", "Conv", "Gemm", "LayerNormalization", "MatMul")
_WORTH_COMPRESSING = 512  # numbers; below it, the nodes that decompress weigh more than they save


def compact_frontend(model: onnx.ModelProto, features: FbankSettings) -> onnx.ModelProto:
    """Replace the front end's matrices by small tables and the nodes that lay them out.

    At 16 kHz the cosines, sines and mel filters take half a megabyte, more than all weights of the smallest models.
    Cosines and sines repeat: each is one of 2 N values for an N-point transform, looked up at (2 t - L + 1) f mod
    2 N for sample t of an L-sample window and frequency f. Whole-number arithmetic picks the very float32 values
    that the matrices hold. Each row of the mel matrix holds two neighbouring numbers at most.

    Args:
        model: A graph made by `to_onnx`.
        features: The front end's settings.

    Returns:
        The smaller model; a matrix that is not what these formulas give is left as it is.
    """
    graph_model = ir.from_proto(model)
    graph = graph_model.graph
    size = 2 ** math.ceil(math.log2(features.frame_length))
    table = np.cos(np.pi / size * np.arange(2 * size)).astype(np.float32)
    table_value: ir.Value | None = None
    index_value: ir.Value | None = None
    for name, offset in (("frontend.cosine", 0), ("frontend.sine", 3 * size // 2)):  # sin x = cos(x + 3 pi / 2)
        value = graph.initializers.get(name)
        if value is None or value.const_value is None:
            continue
        matrix = value.const_value.numpy()
        first = _first_frequency(matrix, table, features.frame_length, offset)
        if first is None:
            continue
        build = _Builder(graph, name)
        if table_value is None or index_value is None:
            table_value = build.constant("table", table)
            index_value = _lookup(build, features.frame_length, first, matrix.shape, size)
        index = index_value
        if offset:
            index = build("Mod", build("Add", index, build.whole(offset)), build.whole(2 * size))
        _take_over(graph, value, build("Gather", table_value, index))
    value = graph.initializers.get("frontend.mel")
    if value is not None and value.const_value is not None:
        _compact_mel(graph, value, value.const_value.numpy())
    graph.sort()
    return ir.to_proto(graph_model)


def compact_weights(model: onnx.ModelProto, keep: Collection[str]) -> onnx.ModelProto:
    """Store the weights of layers that are computed in float32 as 8-bit numbers and a scale for each output.

    Args:
        model: A graph made by `to_onnx`, quantised or not.
        keep: Names of nodes whose weights are left alone.

    Returns:
        The smaller model. Its results differ by the rounding of the weights, about 0.2 % of each output's largest.
    """
    graph_model = ir.from_proto(model)
    graph = graph_model.graph
    for node in list(graph):
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.name in keep or (node.name or "").startswith("front"):
            continue
        first = node.op_type != "Conv" and node.inputs[0] is not None and node.inputs[0].is_initializer()
        weight = node.inputs[0 if first else 1]
        if weight is None or weight.const_value is None or weight.name not in graph.initializers:
            continue
        array = weight.const_value.numpy()
        if array.dtype != np.float32 or array.ndim < 2 or array.size < _WORTH_COMPRESSING:
            continue
        flag = "transA" if first else "transB"
        transposed = flag in node.attributes and node.attributes[flag].as_int() == 1
        inputs: Any = -1 if first != transposed else -2
        if node.op_type == "Conv":
            inputs = tuple(range(1, array.ndim))
        most = 2 ** (_WEIGHT_BITS - 1) - 1
        scale = np.maximum(np.abs(array).max(axis=inputs, keepdims=True), 1e-12) / most
        build = _Builder(graph, weight.name or "")
        stored = build.constant("int8", np.rint(array / scale).astype(np.int8))
        cast = build("Cast", stored, to=int(ir.DataType.FLOAT))
        _take_over(graph, weight, build("Mul", cast, build.constant("scale", scale.astype(np.float32))))
    graph.sort()
    return ir.to_proto(graph_model)


def compact_bands(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store matrices that are zero but for a band along the diagonal as that band.

    What a convolution along the bins multiplies with is such a matrix for each channel, and BC-CMT for inference has
    two dozen stacks of them, in some of which more columns follow. Written side by side, rows of the band padded to
    one number more than the matrix is wide, and read again at its width, each row begins one column later than the
    one before.

    Args:
        model: A graph, its weights stored in 8 bits or not.

    Returns:
        The smaller model, of the very same matrices.
    """
    graph_model = ir.from_proto(model)
    graph = graph_model.graph
    for value in list(graph.initializers.values()):
        array = value.const_value.numpy() if value.const_value is not None else np.empty(0)
        if array.ndim != 3 or array.shape[1] < 2 or array.shape[2] < array.shape[1]:
            continue
        channels, bins, columns = array.shape
        _, rows, places = np.nonzero(array[:, :, :bins])
        reach = int(np.abs(places - rows).max(initial=0))
        if (2 * reach + 1 + columns - bins) * 2 > columns:
            continue
        padded = np.pad(array[:, :, :bins], ((0, 0), (0, 0), (reach, reach)))
        bands = np.stack([padded[:, range(bins), np.arange(bins) + step] for step in range(2 * reach + 1)], 2)
        build = _Builder(graph, value.name or "")
        pads = build.constant("pads", np.array([0, 0, 0, 0, 0, bins - 2 * reach], np.int64))
        flat = build.constant("flat", np.array([channels, bins * (bins + 1)], np.int64))
        square = build.constant("square", np.array([channels, bins, bins], np.int64))
        wide = build("Reshape", build("Pad", build.constant("bands", bands), pads), flat)
        cut = build("Slice", wide, build.axis(reach), build.axis(reach + bins * bins), build.axis(1))
        matrix = build("Reshape", cut, square)
        if columns > bins:
            matrix = build("Concat", matrix, build.constant("beside", array[:, :, bins:]), axis=2)
        _take_over(graph, value, matrix)
    graph.sort()
    return ir.to_proto(graph_model)


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what a file does not need: long names, inferred shapes, zero points that are zero.

    Layers with weights keep their names, so that a profile of the file can be read.
    """
    stripped = onnx.ModelProto()
    stripped.CopyFrom(model)
    graph = stripped.graph
    del graph.value_info[:]
    zeros = {
        tensor.name
        for tensor in graph.initializer
        if tensor.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.INT32)
        and not onnx.numpy_helper.to_array(tensor).any()
    }
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and len(node.input) == 3 and node.input[2] in zeros:
            del node.input[2]  # zero is what it is without one
        if node.op_type not in _NAMED:
            node.name = ""
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)

    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    for number, tensor in enumerate(graph.initializer):
        large = math.prod(tensor.dims) >= _WORTH_COMPRESSING
        names[tensor.name] = tensor.name if large else f"k{number}"
        tensor.name = names[tensor.name]
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = names[name] if name else ""
        for index, name in enumerate(node.output):
            if name and name not in names:
                names[name] = f"v{len(names)}"
            node.output[index] = names[name] if name else ""
    onnx.checker.check_model(stripped)
    return stripped


class _Builder:
    """Makes constant nodes in front of a graph."""

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self._graph = graph
        self._prefix = prefix
        self._count = 0

    def __call__(self, op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        """The value that an operation gives."""
        self._count += 1
        node = ir.node(op_type, list(inputs), attributes, name=f"{self._prefix}/{op_type}_{self._count}")
        node.outputs[0].name = f"{self._prefix}.{self._count}"
        self._graph.insert_before(self._graph[0], node)
        return node.outputs[0]

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """A stored tensor."""
        name = f"{self._prefix}.{name}"
        value = ir.val(name, const_value=ir.tensor(np.array(array, order="C"), name=name))
        self._graph.register_initializer(value)
        return value

    def whole(self, number: int) -> ir.Value:
        """A stored whole number."""
        self._count += 1
        return self.constant(str(self._count), np.array(number, np.int64))

    def axis(self, number: int) -> ir.Value:
        """A stored list of one axis."""
        self._count += 1
        return self.constant(str(self._count), np.array([number], np.int64))


def _lookup(build: _Builder, length: int, first: int, shape: tuple[int, ...], size: int) -> ir.Value:
    """Where in the table of cosines each element of the transform's matrix stands."""
    times = build("Range", build.whole(1 - length), build.whole(2 * shape[0] - length + 1), build.whole(2))
    frequencies = build("Range", build.whole(first), build.whole(first + shape[1]), build.whole(1))
    product = build("Mul", build("Unsqueeze", times, build.axis(1)), build("Unsqueeze", frequencies, build.axis(0)))
    return build("Mod", product, build.whole(2 * size))


def _first_frequency(matrix: np.ndarray, table: np.ndarray, length: int, offset: int) -> int | None:
    """The lowest frequency in a transform's matrix; None if it is not what the table gives."""
    times = 2 * np.arange(len(matrix))[:, None] + 1 - length
    for first in range(len(table) // 4 - matrix.shape[1] + 2):
        index = (times * (first + np.arange(matrix.shape[1])) + offset) % len(table)
        if np.abs(table[index[0]] - matrix[0]).max() < _EXACT:
            return first if np.abs(table[index] - matrix).max() < _EXACT else None
    return None


def _compact_mel(graph: ir.Graph, value: ir.Value, mel: np.ndarray) -> None:
    rows, bins = mel.shape
    left = np.argmax(mel != 0, axis=1)
    pair = np.stack([mel[np.arange(rows), left], mel[np.arange(rows), np.minimum(left + 1, bins - 1)]])
    pair[1, left == bins - 1] = 0
    rebuilt = np.zeros_like(mel)
    rebuilt[np.arange(rows), left] = pair[0]
    rebuilt[np.arange(rows), np.minimum(left + 1, bins - 1)] += pair[1]
    if bins > 256 or not np.array_equal(rebuilt, mel):
        return
    build = _Builder(graph, "frontend.mel")
    zero, one = build.whole(0), build.whole(1)
    columns = build("Range", zero, build.whole(bins), one)
    place = build("Cast", build.constant("left", left.astype(np.uint8)[:, None]), to=int(ir.DataType.INT64))
    nothing = build.constant("zero", np.zeros((), np.float32))
    halves = []
    for name, numbers, column in (("first", pair[0], place), ("second", pair[1], build("Add", place, one))):
        halves.append(build("Where", build("Equal", columns, column), build.constant(name, numbers[:, None]), nothing))
    _take_over(graph, value, build("Add", *halves))


def _take_over(graph: ir.Graph, stored: ir.Value, computed: ir.Value) -> None:
    """Let every user of a stored tensor use a computed one."""
    ir.convenience.replace_all_uses_with(stored, computed)
    del graph.initializers[stored.name or ""]
