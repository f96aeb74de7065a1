from __future__ import annotations

import onnx
import pytest
from toy_encoder import toy_model

from parvox.export.onnx_graph import to_onnx
from parvox.models import SpeakerModel


@pytest.fixture(scope="session")
def toy() -> SpeakerModel:
    return toy_model()


@pytest.fixture(scope="session")
def toy_bytes(toy: SpeakerModel) -> bytes:
    return bytes(to_onnx(toy).SerializeToString(deterministic=True))


@pytest.fixture
def toy_graph(toy_bytes: bytes) -> onnx.ModelProto:
    """The toy, traced; a test's own copy."""
    return onnx.load_model_from_string(toy_bytes)
