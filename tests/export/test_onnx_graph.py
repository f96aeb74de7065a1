from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from toy_encoder import settle, toy_model

from parvox.errors import ExportError
from parvox.export.agreement import batched, check_against_pytorch
from parvox.export.onnx_graph import IR_VERSION, OPSET, to_onnx
from parvox.export.session import cosine_distances, embed, open_session
from parvox.models import ENCODERS, POOLINGS, ModelSettings, SpeakerModel


def pytorch(model, waveform):
    with torch.no_grad():
        return model(torch.from_numpy(waveform)[None]).embedding.numpy()


def noises(*lengths):
    rng = np.random.default_rng(sum(lengths))
    return [(0.1 * rng.standard_normal(length)).astype(np.float32) for length in lengths]


def agrees(model, graph):
    session = open_session(graph.SerializeToString())
    least = model.min_samples
    clips = noises(least, least + 1, least + 159, least + 160, 16_000, 24_321, 48_000, 100_003)
    wanted = np.concatenate([pytorch(model, clip) for clip in clips])
    alone = np.concatenate([embed(session, [clip]) for clip in clips])
    together = embed(session, clips)
    pairs = batched(session, clips)
    for found in (alone, together, pairs):
        assert found.shape == wanted.shape
        assert cosine_distances(wanted, found).max() < 1e-6
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-3 * np.abs(alone).max())


def test_agrees_with_pytorch_at_any_length_alone_and_in_a_batch(toy, toy_graph):
    agrees(toy, toy_graph)


@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        ("depthwise_tdnn", {"channels": 16, "frames_dim": 24, "se_dim": 8, "dilations": (1, 3)}),
        pytest.param("xvector", {"channels": (24, 24, 24, 24, 40)}, marks=pytest.mark.slow),
    ],
)
def test_small_students_agree(encoder, options):
    """With gates, residuals and attention; with normalisations that fold forwards. All encoders: tests/models."""
    settings = ENCODERS[encoder].settings(**options)
    pooling = POOLINGS[settings.default_pooling].settings()
    torch.manual_seed(1)
    model = SpeakerModel(ModelSettings(encoder=settings, pooling=pooling, embedding_dim=20, head=settings.default_head))
    graph = to_onnx(settle(model))
    agrees(model, graph)
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("BatchNormalization") == (1 if encoder == "xvector" else 0)  # the one before statistics stays
    weights = {tensor.name: tensor.dims for tensor in graph.graph.initializer}
    assert all(len(weights[node.input[1]]) == 4 for node in graph.graph.node if node.op_type == "Conv")


def test_the_network_for_inference_is_traced_and_the_trained_one_checked_against(toy):
    model, other = copy.deepcopy(toy), copy.deepcopy(toy)
    with torch.no_grad():
        other.encoder.leave.bias += 1
    model.encoder.for_inference = lambda: other.encoder
    session = open_session(to_onnx(model).SerializeToString())
    clips = noises(8000, 12_345)
    wanted = np.concatenate([pytorch(other, clip) for clip in clips])
    assert cosine_distances(wanted, embed(session, clips)).max() < 1e-6
    assert cosine_distances(wanted, np.concatenate([pytorch(model, clip) for clip in clips])).min() > 1e-3
    with pytest.raises(ExportError, match="PyTorch and the exported graph differ"):
        check_against_pytorch(model, session, clips)


def test_signature_and_format(toy_graph):
    onnx.checker.check_model(toy_graph, full_check=True)
    assert [(o.domain, o.version) for o in toy_graph.opset_import] == [("", OPSET)]
    assert toy_graph.ir_version == IR_VERSION
    assert not toy_graph.functions
    assert not toy_graph.metadata_props
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*toy_graph.graph.input, *toy_graph.graph.output)
    }
    assert axes == {"waveform": ["batch", "samples"], "lengths": ["batch"], "embedding": ["batch", 24]}
    types = [value.type.tensor_type.elem_type for value in toy_graph.graph.input]
    assert types == [onnx.TensorProto.FLOAT, onnx.TensorProto.INT64]


def test_nodes_are_named_after_modules(toy_graph):
    names = [node.name for node in toy_graph.graph.node]
    assert len(set(names)) == len(names)
    roots = {name.split("/")[0].split(".")[0] for name in names}
    assert roots == {"shape", "frontend", "encoder", "pooling", "head"}
    layers = [node.name for node in toy_graph.graph.node if node.op_type == "Conv"]
    assert [name.split("/")[0] for name in layers] == [
        "encoder.stem_norm",
        "encoder.depthwise",
        "encoder.pointwise",
        "encoder.leave",
    ]
    assert not any(node.metadata_props or node.doc_string for node in toy_graph.graph.node)


def test_no_trace_of_the_machine(toy_bytes):
    """The exporter notes where each operation was called from; that is nobody's business."""
    for secret in (b"/home", b"site-packages", b".py", b"toy_encoder"):
        assert secret not in toy_bytes


def test_every_normalisation_folds(toy_graph):
    assert "BatchNormalization" not in {node.op_type for node in toy_graph.graph.node}


@pytest.mark.slow
def test_tracing_twice_gives_the_same_bytes(toy, toy_bytes):
    assert to_onnx(toy).SerializeToString(deterministic=True) == toy_bytes


def test_training_mode_is_refused():
    with pytest.raises(ExportError, match=r"eval\(\)"):
        to_onnx(toy_model().train())


def test_what_cannot_be_traced_is_refused_on_one_line():
    model = toy_model()

    class Counting(torch.nn.Module):
        def forward(self, values):
            return values * int(values.abs().sum().item() > 0)  # a decision on values, not on shapes

    model.head = Counting()
    with pytest.raises(ExportError, match="cannot be exported") as caught:
        to_onnx(model)
    assert "\n" not in str(caught.value)
