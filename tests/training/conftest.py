import pytest

TINY = """
seed: 5
model:
  name: xvector
  channels: [32, 32, 32, 32, 48]
  embedding_dim: 16
data:
  crop_s: 0.5
  batch_size: 8
training:
  epochs: 3
  learning_rate: 0.003
  accelerator: cpu
  precision: fp32
"""


@pytest.fixture
def tiny_recipe(tmp_path, prepared_tiny):
    """A recipe file of a run of a few seconds on the tiny corpus."""
    path = tmp_path / "tiny.yaml"
    path.write_text(f"corpus: {prepared_tiny}\n{TINY}")
    return path
