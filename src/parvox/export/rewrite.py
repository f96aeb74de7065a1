"""Rewrites of an exported graph that change its speed, never its result beyond rounding."""

from __future__ import annotations

import numpy as np
from onnxscript import ir

_UNARY = {
    "Abs", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Neg", "Relu", "Sigmoid",
    "Softplus", "Sqrt", "Tanh",
}  # fmt: skip
_BINARY = {"Add", "Div", "Max", "Min", "Mul", "Pow", "Sub"}


def fold_batch_norms(model: ir.Model) -> None:
    """Fold each batch normalisation into the layer after it, where that is exact.

    The exporter itself folds one that follows a convolution. One that comes before an unpadded convolution (as in
    the x-vector network, where rectification stands between) or a linear layer folds forwards: W (s x + t) + b =
    (W s) x + (W t + b). Before a padded convolution it does not, for the padding must stay zero after it.

    Args:
        model: Changed in place.
    """
    graph = model.graph
    for node in list(graph):
        if (
            node.op_type != "BatchNormalization"
            or len(node.outputs[0].uses()) != 1
            or node.outputs[0].is_graph_output()
        ):
            continue
        (after,) = node.outputs[0].consumers()
        constants = [_array(value) for value in node.inputs[1:]]
        weight = _array(after.inputs[1]) if len(after.inputs) > 1 else None
        if weight is None or after.inputs[0] is not node.outputs[0] or any(value is None for value in constants):
            continue
        gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in constants)
        epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
        scale = gamma / np.sqrt(variance + epsilon)
        shift = beta - mean * scale
        weight = weight.astype(np.float64)
        if after.op_type == "Conv":
            if _int(after, "group", 1) != 1 or any(_ints(after, "pads", [])) or not _explicit(after):
                continue
            shape = (1, -1) + (1,) * (weight.ndim - 2)
            folded, moved = (
                weight * scale.reshape(shape),
                (weight * shift.reshape(shape)).reshape(len(weight), -1).sum(1),
            )
        elif after.op_type == "Gemm" and _int(after, "transB", 0) and not _int(after, "transA", 0):
            if any(name in after.attributes and after.attributes[name].as_float() != 1.0 for name in ("alpha", "beta")):
                continue
            folded, moved = weight * scale, weight @ shift
        else:
            continue
        bias = after.inputs[2] if len(after.inputs) > 2 else None
        if bias is not None:
            value = _array(bias)
            if value is None or value.shape != moved.shape:
                continue
            moved = moved + value
        name = after.inputs[1].name if after.inputs[1] is not None else after.name
        new = ir.node(
            after.op_type,
            [
                node.inputs[0],
                _constant(graph, f"{name}_folded", folded.astype(np.float32)),
                _constant(graph, f"{name}_folded_bias", moved.astype(np.float32)),
            ],
            outputs=[_like(after.outputs[0])],
            metadata_props=dict(after.metadata_props),
            attributes={key: value.value for key, value in after.attributes.items()},
        )
        graph.insert_before(after, new)
        _replace(after.outputs[0], new.outputs[0], graph)
        graph.remove([after, node], safe=True)


def convolve_in_planes(model: ir.Model) -> None:
    """Make one-dimensional convolutions two-dimensional ones of height 1.

    onnxruntime has its fast layouts for planes only: depthwise convolutions gain most (six times, measured), whole
    networks 5 to 20 %. Elementwise operations between convolutions are moved along, so that the data becomes a plane
    once and not around every layer.

    Args:
        model: Changed in place.
    """
    Planes(model.graph).convert()


class Planes:
    """The state of `convolve_in_planes`: which values have a copy with a height axis.

    Args:
        graph: Changed in place.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._planes: dict[ir.Value, ir.Value] = {}  # flat value -> the same with a height axis
        self._made: set[ir.Value] = set()  # flat values that come from planes
        self._axis: ir.Value | None = None

    def convert(self) -> None:
        """Convert every node that can be."""
        for node in list(self._graph):
            inputs = self._convolution(node) if node.op_type == "Conv" else self._elementwise(node)
            if inputs is None:
                continue
            attributes = {key: value.value for key, value in node.attributes.items()}
            if node.op_type == "Conv":
                attributes = _plane_attributes(node)
            new = ir.node(
                node.op_type,
                inputs,
                attributes,
                outputs=[_like(value, rank_4=True) for value in node.outputs],
                metadata_props=dict(node.metadata_props),
            )
            self._graph.insert_before(node, new)
            for old, plane in zip(node.outputs, new.outputs, strict=True):
                flat = ir.node(
                    "Squeeze", [plane, self._height()], outputs=[_like(old)], metadata_props=dict(node.metadata_props)
                )
                self._graph.insert_before(node, flat)
                self._planes[flat.outputs[0]] = plane
                self._made.add(flat.outputs[0])
                _replace(old, flat.outputs[0], self._graph)
            self._graph.remove(node, safe=True)

    def _height(self) -> ir.Value:
        if self._axis is None:
            self._axis = _constant(self._graph, "height_axis", np.array([2], np.int64))
        return self._axis

    def _plane(self, value: ir.Value, before: ir.Node) -> ir.Value:
        """`value` with a height axis, made before a node unless it is there already."""
        if value not in self._planes:
            new = ir.node(
                "Unsqueeze",
                [value, self._height()],
                outputs=[_like(value, rank_4=True)],
                metadata_props=dict(before.metadata_props),
            )
            self._graph.insert_before(before, new)
            self._planes[value] = new.outputs[0]
        return self._planes[value]

    def _convolution(self, node: ir.Node) -> list[ir.Value | None] | None:
        value, weight = node.inputs[0], node.inputs[1]
        array = _array(weight)
        if value is None or weight is None or array is None or array.ndim != 3 or not _explicit(node):
            return None
        plane = _constant(self._graph, f"{weight.name}_plane", array[:, :, None])
        return [self._plane(value, node), plane, *node.inputs[2:]]

    def _elementwise(self, node: ir.Node) -> list[ir.Value | None] | None:
        """Inputs as planes, for an operation that works element by element on at least one plane."""
        values = list(node.inputs)
        if node.domain or not any(value in self._made for value in values):
            return None
        if node.op_type in _UNARY:
            first, *rest = values
            return None if first is None else [self._plane(first, node), *rest]
        along_channels = node.op_type in ("Concat", "Split") and _int(node, "axis", 0) == 1
        if node.op_type == "Split" and along_channels:
            first, *rest = values
            return None if first is None else [self._plane(first, node), *rest]
        if not along_channels and node.op_type not in _BINARY:
            return None
        planes: list[ir.Value | None] = []
        for value in values:
            array = _array(value)
            if array is not None and array.size == 1 and array.ndim <= 1:
                planes.append(value)
            elif value is not None and array is None and value.shape is not None and len(value.shape) == 3:
                planes.append(self._plane(value, node))
            else:
                return None
        return planes


def _plane_attributes(node: ir.Node) -> dict[str, int | list[int]]:
    (left, right) = _ints(node, "pads", [0, 0])
    array = _array(node.inputs[1])
    assert array is not None
    return {
        "group": _int(node, "group", 1),
        "kernel_shape": [1, array.shape[2]],
        "strides": [1, *_ints(node, "strides", [1])],
        "dilations": [1, *_ints(node, "dilations", [1])],
        "pads": [0, left, 0, right],
    }


def _explicit(node: ir.Node) -> bool:
    """Whether a convolution's padding is written out in numbers."""
    return "auto_pad" not in node.attributes or node.attributes["auto_pad"].as_string() == "NOTSET"


def _array(value: ir.Value | None) -> np.ndarray | None:
    """The constant that a value holds, if it does."""
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    value = ir.val(name, const_value=ir.tensor(np.array(array, order="C"), name=name))
    graph.register_initializer(value)
    return value


def _like(value: ir.Value, *, rank_4: bool = False) -> ir.Value:
    """A new value of the type and shape of another, with a height of 1 where asked."""
    shape = value.shape
    if rank_4 and shape is not None:
        shape = ir.Shape([*shape[:2], 1, *shape[2:]])
    return ir.Value(type=value.type, shape=shape)


def _replace(old: ir.Value, new: ir.Value, graph: ir.Graph) -> None:
    output = old.is_graph_output()
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    if output:
        new.name, old.name = old.name, None


def _int(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _ints(node: ir.Node, name: str, default: list[int]) -> list[int]:
    return list(node.attributes[name].as_ints()) if name in node.attributes else default
