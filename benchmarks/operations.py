"""Where the time of an exported model goes, by kind of operation.

    python benchmarks/operations.py [--model bc_cmt] [--seconds 10] [--as_trained]

Milliseconds of onnxruntime on one core for one utterance, as its own profile has them, and of the whole without a
profile, for 1 s and for so many seconds. With random weights, which change nothing. Keep the machine quiet.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from parvox.cli.parsing import call
from parvox.errors import ParvoxError
from parvox.evaluation.environment import environment
from parvox.export.compact import compact_frontend, strip
from parvox.export.onnx_graph import INPUTS, to_onnx
from parvox.export.session import open_session, run_batch
from parvox.export.speed import repeated_milliseconds
from parvox.models import SpeakerModel
from parvox.models.catalogue import configuration
from rows import markdown

RATE_HZ, RUNS = 16_000, 30
KINDS = {
    "matrix products": ("MatMul", "Gemm", "FusedMatMul", "FusedGemm"),
    "convolutions": ("Conv", "FusedConv"),
    "GELU, SiLU and other activations": ("Gelu", "Erf", "Sigmoid", "QuickGelu", "Relu", "Tanh"),
    "softmax and layer normalisation": ("Softmax", "LayerNormalization", "BatchNormalization"),
    "copies: joining, splitting, transposing, blocks of channels": (
        *("Concat", "Split", "Slice", "Transpose", "ReorderInput", "ReorderOutput", "Pad", "Expand", "Gather"),
        *("Reshape", "Squeeze", "Unsqueeze"),
    ),
    "sums, products and other single steps": (),
}


def benchmark(*, model: str = "bc_cmt", seconds: float = 10.0, as_trained: bool = False) -> None:
    """Print the table.

    Args:
        model: As parvox models lists it.
        seconds: Length of the utterance.
        as_trained: Export the network as it is trained, not as it is for inference.
    """
    torch.manual_seed(1)
    made = SpeakerModel(configuration(model).settings()).eval()
    if as_trained:
        made.encoder.for_inference = lambda: made.encoder  # type: ignore[method-assign]
    data = strip(compact_frontend(to_onnx(made), made.settings.features)).SerializeToString()
    times, nodes = profile(data, seconds)
    whole = [run_milliseconds(data, each) for each in (1.0, seconds)]
    total = sum(times.values())
    ranked = sorted(times.items(), key=lambda item: -item[1])
    lines = [[kind, f"{ms:.2f}", f"{100 * ms / total:.0f} %"] for kind, ms in ranked]
    print(markdown([f"{model}, {seconds:g} s", "ms", "share"], lines))
    print(
        f"\n{nodes} operations, {len(data) / 1e3:,.0f} kB; in all {whole[1]:.1f} ms for {seconds:g} s and "
        f"{whole[0]:.1f} ms for 1 s. {environment()['hardware']}, onnxruntime {onnxruntime.__version__}"
    )


def profile(data: bytes, seconds: float) -> tuple[dict[str, float], int]:
    """Milliseconds by kind of operation, and how many operations run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        for _ in range(RUNS):
            session.run(None, dict(zip(INPUTS, _inputs(seconds), strict=True)))
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    steps = [each for each in events if each.get("cat") == "Node" and each["name"].endswith("_kernel_time")]
    found: dict[str, float] = defaultdict(float)
    for step in steps:
        name = step["args"]["op_name"]
        kind = next((kind for kind, names in KINDS.items() if name in names), list(KINDS)[-1])
        found[kind] += step["dur"] / 1e3 / RUNS
    return dict(found), len(steps) // RUNS


def run_milliseconds(data: bytes, seconds: float) -> float:
    """The median of many runs without a profile."""
    session, inputs = open_session(data), _inputs(seconds)
    return repeated_milliseconds(lambda: run_batch(session, *inputs), least_s=2.0)


def _inputs(seconds: float) -> tuple[np.ndarray, np.ndarray]:
    samples = round(seconds * RATE_HZ)
    waveform = 0.1 * np.random.default_rng(0).standard_normal((1, samples))
    return waveform.astype(np.float32), np.array([samples], np.int64)


if __name__ == "__main__":
    try:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        call(benchmark, sys.argv[1:], prog="benchmarks/operations.py")
    except ParvoxError as error:
        sys.exit(f"benchmarks/operations.py: error: {error}")
