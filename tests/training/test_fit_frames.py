"""The frame classifier: labels of frames by hand, a fit that hears a difference, its way into a model."""

import csv
import json

import numpy as np
import pytest
import soundfile
import torch
from lhotse import MonoCut, SupervisionSegment
from lhotse.supervision import AlignmentItem

from parvox.cli.main import main
from parvox.corpora.prepare import PrepareSettings, prepare
from parvox.errors import CorpusError, ModelFileError, RecipeError
from parvox.models import SpeakerModel
from parvox.models.frame_classifier import NO_LABEL
from parvox.models.frontend import Fbank, FbankSettings
from parvox.training.checkpoint import load_tensors, save_tensors
from parvox.training.fit_frames import FrameSettings, load_frames
from parvox.training.frame_labels import FrameLabels, read_ctm
from parvox.training.recipe import load_recipe
from parvox.training.run import load_run
from parvox.training.trainer import Trainer

TONES = {"fall": (1800.0, 300.0), "rise": (300.0, 1800.0)}
FRAMES = ["--frames.epochs", "8", "--frames.learning_rate", "0.01", "--frames.batch_s", "3", "--features.bins", "40"]


def said(word, pitch=1.0):
    """(6400,), 0.4 s."""
    hz = np.repeat(TONES[word], 3200) * pitch
    return 0.2 * np.sin(2 * np.pi * np.cumsum(hz) / 16000)


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """A prepared corpus of two words, a tone that falls and one that rises, by 6 speakers at their own pitch."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    rows = []
    for speaker in range(6):
        for number in range(6):
            word = ("rise", "fall")[number % 2]
            path = folder / f"s{speaker}-{number}.wav"
            soundfile.write(path, said(word, 1 + 0.03 * speaker) + 0.02 * rng.standard_normal(6400), 16000)
            rows.append((path.name, f"s{speaker}", word, f"day{number % 2}"))
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "speaker", "text", "session"), *rows])
    prepare("csv", folder, folder / "prepared", PrepareSettings(dev_speakers=2, test_speakers=0, min_duration_s=0.1))
    return folder / "prepared"


@pytest.fixture(scope="module")
def fitted(tones, tmp_path_factory):
    """The file of a fitted classifier. Do not write into it."""
    out = tmp_path_factory.mktemp("fitted") / "frames.safetensors"
    assert main(["fit-frames", str(tones), str(out), *FRAMES]) == 0
    return out


def cut(name, text=None, **alignment):
    """A cut of 0.1 s."""
    items = {tier: [AlignmentItem(*item) for item in words] for tier, words in alignment.items()}
    spoken = SupervisionSegment(name, name, 0, 0.1, speaker="a", text=text, alignment=items or None)
    return MonoCut(name, 0, 0.1, 0, supervisions=[spoken])


def test_a_word_is_every_frames_label():
    labels = FrameLabels([cut("a", "yes"), cut("b", "no"), cut("c", "no"), cut("d", "yes")], [cut("e", "maybe")])
    assert labels.names == ["no", "yes"]
    assert labels.source == "texts of whole utterances"
    assert labels.targets("d", 3, FbankSettings()).tolist() == [1, 1, 1]
    assert labels.targets("e", 2, FbankSettings()).tolist() == [NO_LABEL] * 2


def test_aligned_labels_by_hand():
    """Windows of 25 ms each 10 ms have their middles at 12.5, 22.5, 32.5, … ms."""
    phones = [("t", 0.0, 0.02), ("u", 0.02, 0.0225)], [("u", 0.01, 0.0025), ("t", 0.05, 1.0)]
    cuts = [cut(name, "two", word=[("two", 0.0, 0.1)], phone=phone) for name, phone in zip("ab", phones, strict=True)]
    labels = FrameLabels(cuts)
    assert labels.source == "aligned phones"
    none, t, u = NO_LABEL, 0, 1
    assert labels.targets("a", 6, FbankSettings()).tolist() == [t, u, u, none, none, none]
    assert labels.targets("b", 6, FbankSettings()).tolist() == [none, none, none, none, t, t]


def test_words_stand_in_where_there_are_no_phones(tmp_path):
    cuts = [cut(name, "one two", word=[("one", 0.0, 0.05), ("two", 0.05, 0.05)]) for name in "ab"]
    labels = FrameLabels(cuts)
    assert (labels.names, labels.source) == (["one", "two"], "aligned words")
    assert labels.targets("a", 8, FbankSettings()).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    ctm = tmp_path / "words.ctm"
    ctm.write_text(";; made\na 1 0.00 0.03 x 0.9\n\na 1 0.03 0.05 y\nb A 0 0.02 x\nb A 0.02 1 y\nelsewhere 1 0 1 z\n")
    given = FrameLabels(cuts, alignments=ctm)
    assert (given.names, given.source) == (["x", "y"], "words.ctm")
    assert given.targets("a", 8, FbankSettings()).tolist() == [0, 0, 1, 1, 1, 1, 1, NO_LABEL]


@pytest.mark.parametrize("line", ["a 1 0.0 0.1", "a 1 zero 0.1 x", "a 1 -1 0.1 x", "a 1 0.1 -0.2 x", "a 1 nan 0.1 x"])
def test_damaged_lines_are_named(tmp_path, line):
    (tmp_path / "a.ctm").write_text(f"a 1 0 1 x\n{line}\n")
    with pytest.raises(CorpusError, match=r"a\.ctm line 2"):
        read_ctm(tmp_path / "a.ctm")


def test_labels_that_teach_nothing_are_refused(tmp_path):
    with pytest.raises(CorpusError, match="only 'yes' in 2 utterances"):
        FrameLabels([cut("a", "yes"), cut("b", "yes")])
    with pytest.raises(CorpusError, match="3 different labels among 3, most of which come once"):
        FrameLabels([cut(name, f"sentence {name}") for name in "abc"])
    with pytest.raises(CorpusError, match="'a' has no text"):
        FrameLabels([cut("a")])
    (tmp_path / "other.ctm").write_text("elsewhere 1 0 1 x\n")
    with pytest.raises(CorpusError, match=r"other\.ctm: no label in 1 utterances"):
        FrameLabels([cut("a", "yes")], alignments=tmp_path / "other.ctm")
    with pytest.raises(CorpusError, match="cannot read alignments"):
        read_ctm(tmp_path / "nothing.ctm")


def test_it_hears_words_of_speakers_it_does_not_know(tones, tmp_path, capsys):
    out = tmp_path / "frames.safetensors"
    assert main(["fit-frames", str(tones), str(out), *FRAMES, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["names"] == ["fall", "rise"]
    assert told["dev_accuracy"] > 0.95
    assert told["dev_accuracy_of_one_class"] == pytest.approx(0.5)
    fitted = load_frames(out)
    assert (fitted.names, fitted.features) == (["fall", "rise"], FbankSettings(bins=40))
    words = torch.from_numpy(np.stack([said(name, 1.2) for name in fitted.names])).float()
    with torch.no_grad():
        scores = fitted.classifier(Fbank(fitted.features)(words)[0])
    assert scores.mean(1).argmax(-1).tolist() == [0, 1]
    assert main(["fit-frames", str(tones), str(out), *FRAMES]) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_same_seed_fits_the_same(tones, fitted, tmp_path):
    assert main(["fit-frames", str(tones), str(tmp_path / "again.safetensors"), *FRAMES]) == 0
    assert (tmp_path / "again.safetensors").read_bytes() == fitted.read_bytes()


def test_only_a_frame_classifier_is_replaced(tones, fitted, tmp_path, capsys):
    for name, content in (("corpus.json", b"{}"), ("model.safetensors", None), ("folder", "")):
        out = tmp_path / name
        if content == "":
            out.mkdir()
        elif content is None:
            save_tensors(out, {"weight": torch.zeros(1)})
        else:
            out.write_bytes(content)
        before = out.read_bytes() if out.is_file() else None
        assert main(["fit-frames", str(tones), str(out), *FRAMES, "--overwrite"]) == 2
        assert "nothing that parvox fit-frames wrote" in capsys.readouterr().err
        assert out.is_dir() if before is None else out.read_bytes() == before
    again = tmp_path / "again.safetensors"
    again.write_bytes(fitted.read_bytes())
    assert main(["fit-frames", str(tones), str(again), *FRAMES, "--frames.epochs", "1", "--overwrite"]) == 0
    assert again.read_bytes() != fitted.read_bytes()


def test_weights_that_are_no_numbers_are_neither_written_nor_taken(tones, fitted, tmp_path, capsys, monkeypatch):
    tensors, state = load_tensors(fitted)
    broken = tmp_path / "broken.safetensors"
    save_tensors(broken, {name: tensor * torch.nan for name, tensor in tensors.items()}, state)
    with pytest.raises(ModelFileError, match="holds no frame classifier"):
        load_frames(broken)
    rate = {**state, "features": {**state["features"], "sample_rate_hz": float("inf")}}
    for weights, about in (
        (tensors, rate),
        (tensors, {**state, "names": state["names"][:1] * len(state["names"])}),
        ({name: tensor.to(torch.complex64) for name, tensor in tensors.items()}, state),
    ):
        save_tensors(broken, weights, about)
        with pytest.raises(ModelFileError, match="holds no frame classifier"):
            load_frames(broken)
    monkeypatch.setattr("parvox.training.fit_frames._finite", lambda _: False)
    assert main(["fit-frames", str(tones), str(tmp_path / "f.safetensors"), *FRAMES, "--frames.epochs", "1"]) == 2
    assert "no longer finite; lower frames.learning_rate (0.01)" in capsys.readouterr().err
    assert not (tmp_path / "f.safetensors").exists()


def phonetic(tones, tmp_path, *overrides):
    """A recipe of a model with phonetic positions."""
    path = tmp_path / "phonetic.yaml"
    path.write_text(
        f"corpus: {tones}\n"
        "model: {name: memory_attention, width: 16, conv_blocks: 1, blocks: 1, heads: 2, memory_slots: 8, "
        "memory_heads: 1, memory_key_dim: 8, positions: phonetic, phones: 2, embedding_dim: 8, features: {bins: 40}}\n"
        "data: {crop_s: 0.3, batch_size: 8, workers: 0}\n"
        "training: {epochs: 1, accelerator: cpu, precision: fp32}\n"
    )
    return load_recipe(path, list(overrides))


def test_a_model_takes_it_freezes_it_and_carries_it_along(tones, fitted, tmp_path):
    given = ["--model.frame_classifier", str(fitted)]
    trainer = Trainer(phonetic(tones, tmp_path, *given))
    trainer.fit(tmp_path / "run")
    expected = load_frames(fitted).classifier.state_dict()
    (tmp_path / "gone").mkdir()
    moved = (tmp_path / "run").rename(tmp_path / "gone" / "run")
    recipe = (moved / "recipe.yaml").read_text()
    (moved / "recipe.yaml").write_text(recipe.replace(str(fitted), "nowhere.safetensors"))  # no longer needed
    run = load_run(moved)
    found = run.model.encoder.positions.classifier.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    tuned = Trainer(phonetic(tones, tmp_path, "--init", str(moved), "--model.frame_classifier", "nowhere.safetensors"))
    found = tuned.model.encoder.positions.classifier.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_what_does_not_fit_is_named_before_training(tones, fitted, tmp_path):
    given = ["--model.frame_classifier", str(fitted)]
    for overrides, error, says in (
        ([], RecipeError, "model.frame_classifier: nothing given, and positions are phonetic"),
        ([*given, "--model.phones", "3"], RecipeError, "model.phones: 3 given, .* tells 2 classes apart; set it to 2"),
        ([*given, "--model.features.bins", "41"], RecipeError, r"other features than model.features \(bins 40\)"),
        ([*given, "--model.positions", "none", "--model.phones", "0"], RecipeError, "with none positions given"),
        (
            ["--model.frame_classifier", str(tmp_path / "no.safetensors")],
            RecipeError,
            "model.frame_classifier: .* is missing; fit it first: parvox fit-frames PREPARED .*no.safetensors",
        ),
    ):
        with pytest.raises(error, match=says):
            Trainer(phonetic(tones, tmp_path, *overrides))
    other = tmp_path / "other.safetensors"
    save_tensors(other, {"weight": torch.zeros(1)})
    with pytest.raises(ModelFileError, match="holds no frame classifier"):
        load_frames(other)
    for field, value in (("epochs", 0), ("learning_rate", 1e30), ("learning_rate", float("nan")), ("batch_s", 1e9)):
        with pytest.raises(RecipeError, match=rf"frames\.{field}: .* given"):
            FrameSettings(**{field: value})


def test_other_models_need_none(tiny_recipe):
    assert isinstance(Trainer(load_recipe(tiny_recipe)).model, SpeakerModel)
