"""The int8 model: calibrated several ways, the closest to fp32 kept, and the most sensitive parts left in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx

from parvox.errors import ExportError
from parvox.export.calibrate import METHODS, Clip, Histograms, Method, Ranges
from parvox.export.compact import compact_bands, compact_frontend, compact_weights, strip
from parvox.export.quantise import Plan, plan_quantisation, quantise
from parvox.export.session import cosine_distances, embed_all, open_session
from parvox.models.frontend import FbankSettings

Calibration = Literal["auto", "minmax", "percentile", "mse"]

_GROUP_DEPTH = 3  # parts of a module's name that tell groups apart: encoder.blocks.4


@dataclass(frozen=True)
class Quantised:
    """An int8 graph and how it came about.

    Attributes:
        graph: The finished graph.
        method: How ranges were taken from the calibration clips.
        mean_distance: Mean cosine distance from the fp32 embeddings of the probe clips.
        max_distance: The largest.
        excluded: Modules left in fp32.
    """

    graph: onnx.ModelProto
    method: Method
    mean_distance: float
    max_distance: float
    excluded: tuple[str, ...] = ()


class Quantiser:
    """Makes int8 graphs of one fp32 graph.

    The way of calibrating is chosen by the distance of the embeddings from those of fp32, not by EER: both graphs
    are given the same clips, so the distance is known to a few per cent from some dozens of them, while the EER of
    a small dev set moves by single trials, and its lowest value would be luck.

    Args:
        graph: From `to_onnx`.
        features: The front end's settings.
        clips: To calibrate with, (samples,) each.
        probes: To measure distances on; others than `clips`.
        threads: Threads of the sessions.
    """

    def __init__(
        self,
        graph: onnx.ModelProto,
        features: FbankSettings,
        clips: Sequence[Clip],
        probes: Sequence[Clip],
        threads: int = 1,
    ) -> None:
        self._features = features
        self._probes = probes
        self._threads = threads
        self._plan: Plan = plan_quantisation(graph)
        self._histograms = Histograms(self._plan.model, self._plan.tensors, clips, threads=threads)
        self._wanted = embed_all(open_session(graph.SerializeToString(), threads=threads), probes, "fp32 embeddings")

    def best(self, calibration: Calibration = "auto") -> Quantised:
        """The int8 graph nearest to fp32.

        Args:
            calibration: A method, or ``auto`` to try each.
        """
        methods: Sequence[Method] = METHODS if calibration == "auto" else (calibration,)
        made = [self._make(method, self._histograms.ranges(method), ()) for method in methods]
        return min(made, key=lambda result: result.mean_distance)

    def groups_by_sensitivity(self, method: Method) -> list[str]:
        """The modules whose layers cost most when they alone are quantised, the most costly first."""
        ranges = self._histograms.ranges(method)
        groups = sorted({_group(layer) for layer in self._plan.layers})
        costs = {}
        for group in groups:
            others = [layer for layer in self._plan.layers if _group(layer) != group]
            costs[group] = self._distances(quantise(self._plan, ranges, exclude=others)).mean()
        return sorted(groups, key=lambda group: -costs[group])

    def without(self, groups: Sequence[str], method: Method) -> Quantised:
        """The int8 graph with the layers of some modules left in fp32.

        Raises:
            ExportError: no layer is left to quantise.
        """
        excluded = [layer for layer in self._plan.layers if _group(layer) in groups]
        if len(excluded) == len(self._plan.layers):
            raise ExportError("int8: no layer left to quantise; export fp32")
        return self._make(method, self._histograms.ranges(method), excluded, tuple(groups))

    def _make(self, method: Method, ranges: Ranges, excluded: Sequence[str], groups: tuple[str, ...] = ()) -> Quantised:
        graph = quantise(self._plan, ranges, exclude=excluded)
        compact = compact_weights(compact_frontend(graph, self._features), keep=excluded)
        finished = strip(compact_bands(compact))
        distances = self._distances(finished)
        return Quantised(finished, method, float(distances.mean()), float(distances.max()), groups)

    def _distances(self, graph: onnx.ModelProto) -> np.ndarray:
        session = open_session(graph.SerializeToString(), threads=self._threads)
        return cosine_distances(self._wanted, embed_all(session, self._probes, "int8 embeddings"))


def _group(layer: str) -> str:
    """The module that a layer is excluded with."""
    return ".".join(layer.split("/")[0].split(".")[:_GROUP_DEPTH])
