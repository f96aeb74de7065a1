import csv

import pytest

from parvox.training.run_writer import RunWriter

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


@pytest.fixture(scope="session")
def prepared_phrases(tiny_tree, tmp_path_factory):
    """The tiny corpus with a text for each utterance: one of three words, in turn. Do not write into it."""
    from parvox.corpora.prepare import PrepareSettings, prepare

    folder = tmp_path_factory.mktemp("phrases")
    for speaker in tiny_tree.glob("*/"):
        (folder / speaker.name).symlink_to(speaker)
    with (tiny_tree / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["text"] = ("yes", "no", "open sesame")[int(row["path"][-5]) % 3] if row["speaker"] else ""
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    settings = PrepareSettings(dev_speakers=3, test_speakers=3, text_dependent=True)
    prepare("csv", folder, folder / "prepared", settings)
    return folder / "prepared"


@pytest.fixture
def interrupted(monkeypatch):
    """Trains until the first checkpoint, as an interrupt right after it would leave a run."""

    def until_checkpoint(work, *, within_epoch=False):
        real = RunWriter.checkpoint

        def stop(self, progress):
            real(self, progress)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(RunWriter, "checkpoint", stop)
            if within_epoch:
                patch.setattr(RunWriter, "checkpoint_due", lambda self: True)
            with pytest.raises(KeyboardInterrupt):
                work()

    return until_checkpoint
