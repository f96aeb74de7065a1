from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from parvox.export.calibrate import METHODS, Histograms


def doubling():
    """A graph with the waveform doubled, its negative part, and a constant zero, as values to look at."""
    nodes = [
        helper.make_node("Mul", ["waveform", "two"], ["doubled"]),
        helper.make_node("Min", ["doubled", "zero"], ["negative"]),
        helper.make_node("Sub", ["doubled", "doubled"], ["nothing"]),
        helper.make_node("Cast", ["lengths"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["count", "axis"], ["embedding"]),
    ]
    constants = {"two": np.float32(2), "zero": np.float32(0), "axis": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["b", "s"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT64, ["b"]),
        ],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["b", 1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


NAMES = ["doubled", "negative", "nothing"]


def histograms(*clips):
    return Histograms(doubling(), NAMES, [np.asarray(clip, np.float32) for clip in clips])


def test_minmax_takes_every_value_of_every_clip():
    ranges = histograms([0.1, -0.2, 0.05], [0.4, 0.0], [-0.3, 0.1]).ranges("minmax")
    assert ranges["doubled"] == pytest.approx((-0.6, 0.8))
    assert ranges["negative"] == pytest.approx((-0.6, 0.0))
    assert ranges["nothing"] == (0.0, 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_every_range_holds_zero_and_no_more_than_was_seen(method):
    rng = np.random.default_rng(0)
    ranges = histograms(rng.uniform(0.2, 0.5, 3000), rng.uniform(0.3, 0.7, 500)).ranges(method)
    for name, (low, high) in ranges.items():
        assert low <= 0 <= high, name
    assert ranges["doubled"][1] <= 1.4001


def test_rare_outliers_are_clipped_by_percentile():
    rng = np.random.default_rng(1)
    clip = rng.normal(0, 0.1, 60_000)
    clip[777], clip[5] = 5.0, -4.0
    found = histograms(clip)
    assert found.ranges("minmax")["doubled"] == pytest.approx((-8.0, 10.0))
    low, high = found.ranges("percentile")["doubled"]
    assert -1.5 < low < -0.4
    assert 0.4 < high < 1.5


@pytest.mark.parametrize("degrees", [2, 3, 30])
def test_mse_is_the_best_range_of_those_it_may_choose(degrees):
    """Brute force over both ends: the error of rounding to 256 levels and of clipping, on the values themselves."""
    clip = 0.05 * np.random.default_rng(2).standard_t(degrees, 20_000).astype(np.float32)
    values = 2 * clip

    def error(low, high):
        step = (high - low) / 255
        clipped = values - np.clip(values, low, high)
        return np.where(clipped == 0, step**2 / 12, clipped**2).mean()

    low, high = histograms(clip).ranges("mse")["doubled"]
    parts = np.linspace(0.3, 1.0, 15)
    best = min(error(a * values.min(), b * values.max()) for a in parts for b in parts)
    assert error(low, high) <= 1.05 * best
    if degrees == 3:  # tails so long that clipping them pays
        assert error(low, high) < 0.97 * error(values.min(), values.max())
