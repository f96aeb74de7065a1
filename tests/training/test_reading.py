"""Read-outs of one trained student with a distillation token: class, distillation, both."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from parvox.cli.main import main
from parvox.errors import RecipeError
from parvox.export import export_model
from parvox.models.tokens import READS
from parvox.runtime.embedder import SpeakerEmbedder
from parvox.training.recipe import load_recipe
from parvox.training.run import load_run
from parvox.training.trainer import train

STUDENT = """
model:
  name: memory_attention
  width: 16
  conv_blocks: 1
  blocks: 1
  heads: 2
  memory_slots: 8
  memory_heads: 1
  memory_key_dim: 8
  pooling: {name: class_distillation_token, vectors: 3}
  embedding_dim: 16
  head: none
data: {crop_s: 0.5, batch_size: 8, workers: 0}
training: {epochs: 1, accelerator: cpu, precision: fp32}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, prepared_tiny):
    """A student that learnt by its distillation token from a teacher alongside. Do not write into it."""
    folder = tmp_path_factory.mktemp("reading")
    (folder / "teacher.yaml").write_text("model: {name: xvector, channels: [16, 16, 16, 16, 24], embedding_dim: 12}\n")
    recipe = folder / "student.yaml"
    recipe.write_text(f"corpus: {prepared_tiny}\n{STUDENT}")
    learns = ["--distillation.alongside", str(folder / "teacher.yaml"), "--distillation.distillation_token.weight", "1"]
    return train(load_recipe(recipe, learns), folder / "run")


def test_one_training_gives_three_embeddings(run):
    waveforms, lengths = torch.randn(3, 9000), torch.tensor([9000, 8000, 5000])
    waveforms[1, 8000:] = waveforms[2, 5000:] = 0
    with torch.no_grad():
        states = run.model(waveforms, lengths).encoded.tokens
        found = {read: run.reading(read).model(waveforms, lengths).embedding for read in READS}
    assert torch.equal(found["class"], states[:, 0])
    assert torch.equal(found["distillation"], states[:, 1])
    assert torch.equal(found["both"], torch.cat([normalize(states[:, 0]), normalize(states[:, 1])], 1))
    assert run.reading("both").recipe.model.embedding_dim == 32
    assert "read: both" in run.reading("both").recipe_text
    tokens = run.classifier.classes * 16
    assert run.summary["parameters_added_for_training"] > tokens  # the token's head, and the teacher


def test_states_that_cannot_be_read_apart(run, tmp_path, capsys):
    settings = dataclasses.replace(run.recipe.model, head="linear")
    other = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, model=settings))
    with pytest.raises(RecipeError, match="model.head linear, which was trained for the class token alone"):
        other.reading("both")
    teacher = run.folder / "teacher"
    with pytest.raises(RecipeError, match="has statistics pooling; expected class_distillation_token"):
        load_run(teacher).reading("distillation")
    assert main(["export", str(teacher), str(tmp_path / "x.onnx"), "--read", "both"]) == 2
    assert "read both" in capsys.readouterr().err


@pytest.mark.slow
def test_exported_files_read_what_was_asked_for(run, tmp_path):
    fingerprints = set()
    signal = np.random.default_rng(0).standard_normal(12000).astype(np.float32) * 0.1
    for read in ("distillation", "both"):
        apart = run.reading(read)
        path = export_model(apart, tmp_path / f"{read}.onnx").path
        embedder = SpeakerEmbedder.load(path)
        with torch.no_grad():
            expected = normalize(apart.model(torch.from_numpy(signal)[None]).embedding)[0].numpy()
        found = embedder.embed_batch([signal], ["one"])[0]
        np.testing.assert_allclose(found / np.linalg.norm(found), expected, atol=1e-4)
        assert f"read: {read}" in embedder.contract.recipe
        fingerprints.add(embedder.contract.fingerprint)
    assert len(fingerprints) == 2
