"""Recordings of nobody in particular: prepared, and batched without labels."""

from dataclasses import replace

import numpy as np
import pytest

from parvox.cli.main import main
from parvox.corpora.prepare import PrepareSettings, prepare
from parvox.corpora.prepared import PreparedCorpus
from parvox.data import Batches, DataSettings
from parvox.errors import CorpusError, RecipeError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, make_wav):
    root = tmp_path_factory.mktemp("recordings")
    for number in range(6):
        make_wav(root / f"{'deep/er/' if number % 2 else ''}call {number}.wav", 1.0, kind="noise", seed=number)
    make_wav(root / "copy.wav", 1.0, kind="noise", seed=0)
    (root / "notes.txt").write_text("not a recording")
    return root, prepare("unlabelled", root, root.parent / f"{root.name}-out")


def test_everything_is_for_training_and_nobodys(prepared):
    root, corpus = prepared
    assert corpus.splits == ("train",)
    split = corpus.info.splits["train"]
    assert (split.speakers, split.utterances, split.trials_from) == (0, 6, "")
    assert corpus.info.name == root.name
    assert corpus.info.rejected == {"duplicate": 1}
    cuts = list(corpus.cuts("train"))
    assert {cut.supervisions[0].speaker for cut in cuts} == {None}
    assert sorted(cut.id for cut in cuts)[:2] == ["call%200", "call%202"]
    assert corpus.speakers("train") == []
    PreparedCorpus.load(corpus.folder).verify()


def test_batches_come_without_labels(prepared):
    _, corpus = prepared
    data = DataSettings(crop_s=0.5, batch_size=3, speed_perturbation=(0.9,), workers=0)
    batches = Batches(corpus, data, seed=1)
    assert not batches.labelled
    assert (batches.speakers, batches.classes, batches.batches_per_epoch) == ([], 0, 2)
    made = list(batches.epoch(0))
    assert sorted(name for batch in made for name in batch.ids) == sorted(cut.id for cut in corpus.cuts("train"))
    assert all((batch.labels == -1).all() for batch in made)
    assert all(np.isfinite(batch.waveforms.numpy()).all() for batch in made)


@pytest.mark.parametrize("asked", [{"speaker_balanced": True}, {"min_utterances_per_speaker": 2}])
def test_settings_that_mean_speakers_are_refused_in_batches(prepared, asked):
    with pytest.raises(RecipeError, match=f"{next(iter(asked))} .* the corpus names no speakers"):
        Batches(prepared[1], replace(DataSettings(batch_size=2), **asked), seed=1)


@pytest.mark.parametrize(
    "asked", [{"trials": "list"}, {"split_file": "list"}, {"dev_speakers": 3}, {"text_dependent": True}]
)
def test_settings_that_mean_speakers_are_refused_in_preparation(prepared, tmp_path, asked):
    lists = tmp_path / "list"
    lists.write_text("speaker,split\na,train\n" if "split_file" in asked else "1 a b\n0 a c\n")
    asked = {name: lists if value == "list" else value for name, value in asked.items()}
    with pytest.raises(CorpusError, match=f"{next(iter(asked))} given, but unlabelled recordings have no speakers"):
        prepare("unlabelled", prepared[0], tmp_path / "out", PrepareSettings(**asked))


def test_the_command(prepared, tmp_path, capsys):
    assert main(["prepare", "unlabelled", str(prepared[0]), str(tmp_path / "out")]) == 0
    assert "unknown speakers         6 utterances" in capsys.readouterr().out
