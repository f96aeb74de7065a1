"""Real speech: int8 stays near fp32, and both near PyTorch, on voices recorded in rooms."""

from __future__ import annotations

import csv

import numpy as np
import onnx
import pytest

from parvox.audio import read_audio
from parvox.export.agreement import check_against_pytorch, check_padding
from parvox.export.compact import compact_frontend, strip
from parvox.export.int8 import Quantiser
from parvox.export.session import open_session

MOST = 60


@pytest.fixture(scope="module")
def speech(real_corpus):
    """Clips spread over the manifests, of up to 6 s."""
    found = []
    for manifest in sorted([*real_corpus.glob("manifest.csv"), *real_corpus.glob("*/manifest.csv")]):
        with manifest.open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row.get("speaker")]
        for row in rows[:: max(1, len(rows) // MOST)][:MOST]:
            found.append(read_audio(manifest.parent / row["path"], max_duration_s=6.0, cut=True).samples)
    assert len(found) >= 20
    return found


def test_exported_graphs_agree_on_real_speech(speech, toy, toy_bytes):
    graph = onnx.load_model_from_string(toy_bytes)
    features = toy.settings.features
    session = open_session(strip(compact_frontend(graph, features)).SerializeToString())
    lengths = [len(clip) for clip in speech]
    assert max(lengths) > 2 * min(lengths)
    assert check_against_pytorch(toy, session, sorted(speech, key=len)) < 1e-6
    quantiser = Quantiser(graph, features, speech[::2], speech[1::2])
    best = quantiser.best()
    assert best.mean_distance < 0.002
    assert check_padding(open_session(best.graph.SerializeToString()), speech[1::2]) < 1e-3
    assert np.isfinite(best.max_distance)
