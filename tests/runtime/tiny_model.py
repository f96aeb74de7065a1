"""A real, sealed model file built with onnx alone: 24 log-mel bands, their means and deviations over valid frames.

It needs no training to tell sounds apart, honours lengths, and does not hear level: enough to test what reads it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from parvox.runtime.golden import DEFAULT_SIGNAL, golden_signal
from parvox.runtime.model_file import (
    CHECKSUM_KEY,
    CONTRACT_KEY,
    UNSEALED,
    Golden,
    ModelContract,
    seal,
)
from parvox.runtime.operating import OperatingPoint

RATE = 16000
WINDOW, SHIFT, BANDS = 400, 160, 24


def graph() -> onnx.GraphProto:
    """Waveform (batch, samples) and lengths (batch,) to embedding (batch, 48)."""
    time = np.arange(WINDOW)
    bins = np.arange(3, 200)
    angle = 2 * np.pi * bins[:, None] * time[None] / WINDOW
    kernels = np.concatenate([np.cos(angle), np.sin(angle)]) * np.hanning(WINDOW)
    edges = np.geomspace(3, 200, BANDS + 2)
    up = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    bands = np.clip(np.minimum(up, down), 0, None) + 1e-3
    weights = {
        "kernels": kernels[:, None].astype(np.float32),
        "bands": np.concatenate([bands, bands], 1)[..., None].astype(np.float32),
        "floor": np.float32(1e-10),
        "window": np.int64(WINDOW),
        "shift": np.int64(SHIFT),
        "zero": np.int64(0),
        "one": np.int64(1),
        "two": np.array([2], np.int64),
        "last": np.array([-1], np.int64),
        "middle": np.array([1], np.int64),
        "tiny": np.float32(1e-6),
    }
    node = helper.make_node
    nodes = [
        node("Unsqueeze", ["waveform", "middle"], ["wave"]),
        node("Conv", ["wave", "kernels"], ["spectrum"], strides=[SHIFT]),  # (batch, 394, frames)
        node("Mul", ["spectrum", "spectrum"], ["power"]),
        node("Conv", ["power", "bands"], ["energy"]),
        node("Max", ["energy", "floor"], ["floored"]),
        node("Log", ["floored"], ["levels"]),  # (batch, 24, frames)
        node("ReduceMean", ["levels", "middle"], ["loudness"], keepdims=1),
        node("Sub", ["levels", "loudness"], ["shape"]),
        node("Sub", ["lengths", "window"], ["rest"]),
        node("Div", ["rest", "shift"], ["steps"]),
        node("Add", ["steps", "one"], ["valid"]),
        node("Unsqueeze", ["valid", "last"], ["valid_column"]),
        node("Shape", ["levels"], ["frames_list"], start=2, end=3),
        node("Squeeze", ["frames_list"], ["frames"]),
        node("Range", ["zero", "frames", "one"], ["index"]),
        node("Less", ["index", "valid_column"], ["mask_flat"]),
        node("Cast", ["mask_flat"], ["mask_float"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask_float", "middle"], ["mask"]),  # (batch, 1, frames)
        node("ReduceSum", ["mask", "two"], ["count"], keepdims=1),
        node("Mul", ["shape", "mask"], ["shape_masked"]),
        node("ReduceSum", ["shape_masked", "two"], ["total"], keepdims=1),
        node("Div", ["total", "count"], ["mean"]),
        node("Sub", ["shape", "mean"], ["centred"]),
        node("Mul", ["centred", "mask"], ["centred_masked"]),
        node("Mul", ["centred_masked", "centred_masked"], ["squares"]),
        node("ReduceSum", ["squares", "two"], ["square_total"], keepdims=1),
        node("Div", ["square_total", "count"], ["variance"]),
        node("Add", ["variance", "tiny"], ["variance_up"]),
        node("Sqrt", ["variance_up"], ["deviation"]),
        node("Concat", ["mean", "deviation"], ["both"], axis=1),
        node("Squeeze", ["both", "two"], ["embedding"]),
    ]
    return helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", "samples"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT64, ["batch"]),
        ],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 2 * BANDS])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )


def bare_model(made: onnx.GraphProto | None = None) -> onnx.ModelProto:
    """An ONNX model without Parvox's contract."""
    model = helper.make_model(made or graph(), opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def contract(model: onnx.ModelProto, **changes: Any) -> ModelContract:
    """A true contract for `model`, but for `changes`."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    signal = golden_signal(DEFAULT_SIGNAL, RATE)[None]
    feed = {"waveform": signal, "lengths": np.array([signal.shape[1]])}
    golden = session.run(["embedding"], feed)[0][0]
    point = OperatingPoint(0.9, 0.02, 0.03, 120, 3400, "made-up trials of a test")
    made = ModelContract(
        name="tiny",
        precision="fp32",
        sample_rate_hz=RATE,
        min_samples=WINDOW,
        embedding_dim=2 * BANDS,
        features={"bands": BANDS},
        parameters=394 * WINDOW,
        macs_1s=100 * 394 * WINDOW,
        mean=None,
        thresholds={"eer": point, "strict": dataclasses.replace(point, threshold=0.97, false_accept_rate=0.001)},
        default_threshold="eer",
        golden=Golden(DEFAULT_SIGNAL, tuple(map(float, golden)), 1e-4),
        fingerprint=hashlib.sha256(b"tiny").hexdigest(),
        synthetic=False,
        licence="CC0-1.0",
        recipe="model: tiny\n",
        parvox_version="0.1.0",
    )
    return dataclasses.replace(made, **changes)


def unsealed(model: onnx.ModelProto, contract_json: str) -> bytes:
    """The model with contract and an empty seal."""
    entries = {CONTRACT_KEY: contract_json, "producer_note": "made by a test", CHECKSUM_KEY: UNSEALED}
    helper.set_model_props(model, entries)
    return bytes(model.SerializeToString())


def model_file(made: onnx.GraphProto | None = None, **changes: Any) -> bytes:
    """A sealed model file, its contract changed by `changes`."""
    model = bare_model(made)
    return seal(unsealed(model, contract(model, **changes).to_json()))
