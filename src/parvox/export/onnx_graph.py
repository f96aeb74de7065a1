"""A speaker model as an ONNX graph: waveform and lengths in, embedding out."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections import Counter
from collections.abc import Iterator

import onnx
import torch
from onnxscript import ir
from onnxscript.ir.passes import common as passes
from torch import Tensor, nn

from parvox import __version__
from parvox.errors import ExportError
from parvox.export.rewrite import convolve_in_planes, fold_batch_norms
from parvox.models import SpeakerModel

OPSET = 18
"""Everything from onnxruntime 1.14 on runs it, mobile builds included; the exporter's own, so nothing is converted."""
IR_VERSION = 8
"""The file format that goes with opset 18; the exporter would write a newer one that older runtimes refuse."""
INPUTS = ("waveform", "lengths")
OUTPUT = "embedding"

_SCOPES = "pkg.torch.onnx.name_scopes"


class _Signature(nn.Module):
    """The model as the graph's signature has it."""

    def __init__(self, model: SpeakerModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        embedding: Tensor = self.model(waveform, lengths).embedding
        return embedding


def to_onnx(model: SpeakerModel) -> onnx.ModelProto:
    """Trace a model as it is for inference (`SpeakerModel.for_inference`) and tidy the graph.

    The graph takes `waveform` float32 (batch, samples) and `lengths` int64 (batch,), of any batch and any number of
    samples from `model.min_samples` up, and gives `embedding` float32 (batch, embedding_dim). Each node's name
    begins with the name of the module that it comes from, `frontend`, `encoder`, `pooling` or `head`.

    Args:
        model: In evaluation mode, on the CPU.

    Raises:
        ExportError: the exporter cannot trace it.
    """
    if model.training:
        raise ExportError("a model in training mode given; call model.eval() before exporting it")
    # An odd number of samples and of most things made of them: nothing then holds by accident of the example.
    samples = 2 * model.min_samples + model.settings.features.sample_rate_hz + 77
    waveform = torch.zeros(2, samples)
    lengths = torch.tensor([samples, samples - model.settings.features.frame_shift])
    dynamic = torch.export.Dim.DYNAMIC
    shapes = {INPUTS[0]: {0: dynamic, 1: dynamic}, INPUTS[1]: {0: dynamic}}
    try:
        with _quiet(), torch.no_grad():
            # Captured first: the ONNX exporter's own capture defers shape guards and then stumbles over slices.
            signature = _Signature(model.for_inference())
            program = torch.export.export(signature, (waveform, lengths), dynamic_shapes=shapes)
            exported = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, input_names=INPUTS, output_names=[OUTPUT], verbose=False
            )
    except Exception as error:  # the exporters raise all kinds of errors
        raise ExportError(
            f"the model cannot be exported: {type(error).__name__}: {_first_line(error)}; its operations must be "
            "traceable by torch.export for any length"
        ) from error
    if exported is None or exported.model.opset_imports.get("") != OPSET:
        raise ExportError(f"the exporter gave no opset {OPSET} graph; use the torch and onnxscript that Parvox pins")
    graph = exported.model
    fold_batch_norms(graph)
    convolve_in_planes(graph)
    return _finished(graph, model.settings.embedding_dim)


def _finished(model: ir.Model, embedding_dim: int) -> onnx.ModelProto:
    """Without leftovers, under legible names, as a checked protocol buffer."""
    passes.LiftConstantsToInitializersPass()(model)
    passes.CommonSubexpressionEliminationPass()(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.TopologicalSortPass()(model)
    _rename(model.graph)
    passes.ClearMetadataAndDocStringPass()(model)
    passes.RemoveUnusedOpsetsPass()(model)
    model.metadata_props.clear()
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "parvox", __version__
    model.graph.name = "parvox"
    proto = ir.to_proto(model)
    assert isinstance(proto, onnx.ModelProto)
    del proto.graph.value_info[:]
    for value, axes in zip(
        [*proto.graph.input, *proto.graph.output],
        [("batch", "samples"), ("batch",), ("batch", embedding_dim)],
        strict=True,
    ):
        del value.type.tensor_type.shape.dim[:]
        for axis in axes:
            dimension = value.type.tensor_type.shape.dim.add()
            if isinstance(axis, str):
                dimension.dim_param = axis
            else:
                dimension.dim_value = axis
    onnx.checker.check_model(proto)
    return proto


def _rename(graph: ir.Graph) -> None:
    """Nodes get the name of the module they come from, values between them short ones: names are a part of the file."""
    seen: Counter[str] = Counter()
    fixed = {id(value) for value in (*graph.inputs, *graph.outputs)}
    number = 0
    for node in graph:
        name = f"{_scope(node)}/{node.op_type}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
        for value in node.outputs:
            if id(value) not in fixed:
                value.name = f"v{number}"
                number += 1
    constants = 0
    for value in list(graph.initializers.values()):
        name = (value.name or "").removeprefix("model.")
        if name.split(".")[0] not in ("frontend", "encoder", "pooling", "head"):
            name, constants = f"c{constants}", constants + 1
        if name != value.name:
            value.name = name


def _scope(node: ir.Node) -> str:
    """The module that a node belongs to, such as ``encoder.blocks.0.widen``."""
    text = node.metadata_props.get(_SCOPES, "")
    scopes = [part.strip(" '\"") for part in text.strip("[]").split(",")]
    inside = [scope.removeprefix("model.") for scope in scopes if scope.startswith("model.")]
    return inside[-1] if inside else "shape"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about its own dependencies; what matters it raises."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    words = " ".join(str(error).split())
    return words if len(words) <= 300 else words[:297] + "..."
