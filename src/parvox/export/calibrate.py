"""Ranges of activations on real clips, from which int8 scales follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from parvox.export.onnx_graph import INPUTS
from parvox.export.session import open_session
from parvox.progress import progress

Clip = NDArray[np.float32]
Ranges = dict[str, tuple[float, float]]
Method = Literal["minmax", "percentile", "mse"]

METHODS: tuple[Method, ...] = ("minmax", "percentile", "mse")
PERCENTILE = 99.99
"""Share of values, in %, that the percentile method keeps inside the range."""

_BINS = 2048
_MOST_VALUES = 1 << 16  # of one tensor and clip that go into the histogram
_LEVELS = 255
_SHRINK = np.linspace(1.0, 0.3, 36)  # parts of the full range that the mse method tries on either side


class Histograms:
    """How the values of each tensor are distributed over the clips.

    Args:
        model: The float32 graph.
        tensors: Which of its values to look at.
        clips: Waveforms, (samples,) each.
        threads: Threads of the session.
    """

    def __init__(self, model: onnx.ModelProto, tensors: Sequence[str], clips: Sequence[Clip], threads: int = 1) -> None:
        self._tensors = list(tensors)
        watched = onnx.ModelProto()
        watched.CopyFrom(model)
        del watched.graph.output[:]
        watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
        self._session = open_session(watched.SerializeToString(), threads=threads, optimise=False)
        # Zero is always in the range: padding is zero, and a scale must represent it exactly.
        self._low = dict.fromkeys(self._tensors, 0.0)
        self._high = dict.fromkeys(self._tensors, 0.0)
        for clip in progress(clips, "calibrating, ranges", unit="clip"):
            for name, values in self._values(clip):
                self._low[name] = min(self._low[name], float(values.min()))
                self._high[name] = max(self._high[name], float(values.max()))
        self._counts = {name: np.zeros(_BINS, np.int64) for name in self._tensors}
        for clip in progress(clips, "calibrating, histograms", unit="clip"):
            for name, values in self._values(clip):
                self._count(name, values)

    def ranges(self, method: Method) -> Ranges:
        """Lowest and highest value to represent, by tensor; each range holds zero.

        Args:
            method: ``minmax`` takes all values seen; ``percentile`` leaves out the rarest at either end; ``mse``
                takes the range whose expected squared error, of rounding inside and clipping outside, is least.
        """
        return {name: self._range(name, method) for name in self._tensors}

    def _values(self, clip: Clip) -> list[tuple[str, NDArray[np.float32]]]:
        feed = dict(zip(INPUTS, (clip[None], np.array([len(clip)], np.int64)), strict=True))
        return list(zip(self._tensors, self._session.run(self._tensors, feed), strict=True))

    def _count(self, name: str, values: NDArray[np.float32]) -> None:
        width = (self._high[name] - self._low[name]) / _BINS
        if width <= 0:
            return
        flat = values.ravel()
        flat = flat[:: max(1, len(flat) // _MOST_VALUES) | 1]  # an odd step meets every channel and frame in turn
        place = np.clip(((flat - self._low[name]) / width).astype(np.int64), 0, _BINS - 1)
        self._counts[name] += np.bincount(place, minlength=_BINS)

    def _range(self, name: str, method: Method) -> tuple[float, float]:
        low, high, counts = self._low[name], self._high[name], self._counts[name]
        if method == "minmax" or not counts.any():
            return low, high
        edges = np.linspace(low, high, _BINS + 1)
        if method == "percentile":
            share = np.cumsum(counts) / counts.sum()
            outside = (1 - PERCENTILE / 100) / 2
            lowest = edges[np.searchsorted(share, outside, side="right")]
            highest = edges[min(int(np.searchsorted(share, 1 - outside)) + 1, _BINS)]
            return min(0.0, float(lowest)), max(0.0, float(highest))
        return _least_squares(low, high, (edges[:-1] + edges[1:]) / 2, counts / counts.sum())


def _least_squares(low: float, high: float, values: np.ndarray, shares: np.ndarray) -> tuple[float, float]:
    """The range of least expected squared error: first one end is moved, then the other, twice."""

    def error(lowest: float, highest: float) -> float:
        step = (highest - lowest) / _LEVELS
        clipped = values - np.clip(values, lowest, highest)
        return float(shares @ np.where(clipped == 0, step * step / 12, clipped * clipped))

    lowest, highest = low, high
    for _ in range(2):
        if high > 0:
            highest = min((high * part for part in _SHRINK), key=lambda end: error(lowest, end))
        if low < 0:
            lowest = min((low * part for part in _SHRINK), key=lambda end: error(end, highest))
    return lowest, highest
