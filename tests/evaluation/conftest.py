"""A prepared corpus with enough test speakers for intervals, a model file and a run folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))  # tiny_model, a model file that needs no training


@pytest.fixture(scope="session")
def six_speakers(tiny_tree: Path) -> Path:
    """A prepared corpus of `tiny_tree`: 4 train, 2 dev and 6 test speakers. Do not write into it."""
    from parvox.corpora.prepare import PrepareSettings, prepare

    out = tiny_tree.parent / "six"
    prepare("csv", tiny_tree, out, PrepareSettings(dev_speakers=2, test_speakers=6))
    return out


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny_model

    path = tmp_path_factory.mktemp("models") / "tiny.onnx"
    path.write_bytes(tiny_model.model_file())
    return path


@pytest.fixture(scope="session")
def centred_model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with an embedding mean in its contract."""
    import tiny_model

    path = tmp_path_factory.mktemp("models") / "centred.onnx"
    path.write_bytes(tiny_model.model_file(mean=tuple(0.1 * k for k in range(2 * tiny_model.BANDS))))
    return path


@pytest.fixture(scope="session")
def run_folder(
    six_speakers: Path, write_recipe: Callable[[Path, Path], None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of one epoch."""
    from parvox.training.recipe import load_recipe
    from parvox.training.trainer import train

    folder = tmp_path_factory.mktemp("runs")
    recipe = folder / "tiny.yaml"
    write_recipe(recipe, six_speakers)
    return train(load_recipe(recipe), folder / "tiny").folder
