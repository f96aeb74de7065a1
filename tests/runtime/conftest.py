from __future__ import annotations

from pathlib import Path

import pytest
import tiny_model

from parvox.runtime.embedder import SpeakerEmbedder
from parvox.runtime.model_file import ModelContract


@pytest.fixture(scope="session")
def model_bytes() -> bytes:
    """A sealed tiny model."""
    return tiny_model.model_file()


@pytest.fixture(scope="session")
def model_path(model_bytes: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    path.write_bytes(model_bytes)
    return path


@pytest.fixture(scope="session")
def embedder(model_path: Path) -> SpeakerEmbedder:
    return SpeakerEmbedder.load(model_path)


@pytest.fixture(scope="session")
def contract() -> ModelContract:
    """What the tiny model says of itself."""
    return tiny_model.contract(tiny_model.bare_model())
