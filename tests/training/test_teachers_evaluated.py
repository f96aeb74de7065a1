"""Models that Parvox did not make, evaluated beside those that it did."""

import dataclasses
import json
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import pytest
import soundfile
import torch
from onnx import TensorProto, helper
from onnx_models import BINS, DIM, WEIGHTS, features_model, saved

from parvox.cli.main import main
from parvox.corpora.prepared import PreparedCorpus
from parvox.errors import ModelFileError, ParvoxError, RecipeError
from parvox.evaluation.evaluate import evaluate
from parvox.evaluation.system import load_system, load_systems
from parvox.training.fit_head import fit_head
from parvox.training.recipe import load_recipe
from parvox.training.teacher_settings import OnnxSettings, TeacherOptions
from parvox.training.trainer import train

SAYS_ALL = {"framework": "wespeaker", "sample_rate": "16000", "normalize_samples": "0", "output_dim": "6"}


def by_kaldi(samples):
    """The embedding that `features_model` gives, from Kaldi's own features."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.window_type = "hamming"
    options.mel_opts.num_bins = BINS
    fbank = kaldi_native_fbank.OnlineFbank(options)
    fbank.accept_waveform(16000, (samples * 32768).tolist())
    fbank.input_finished()
    features = np.stack([fbank.get_frame(frame) for frame in range(fbank.num_frames_ready)])
    return ((features - features.mean(0)) ** 2).mean(0) @ WEIGHTS


def test_a_foreign_model_scores_as_computed_directly(prepared_tiny, tmp_path):
    path = features_model(tmp_path / "foreign.onnx", SAYS_ALL)
    corpus = PreparedCorpus.load(prepared_tiny)
    evaluation = evaluate([path], corpus, replicates=0, workers=0)
    (system,) = evaluation.systems
    assert any("foreign.onnx: 80 log-mel bins" in note for note in evaluation.notes)  # what was taken of how it is fed
    unit = {}
    for cut in corpus.cuts("test"):
        samples, _ = soundfile.read(cut.recording.sources[0].source, dtype="float32")
        embedding = by_kaldi(samples)
        unit[cut.id] = embedding / np.linalg.norm(embedding)
    lines = [line.split() for line in (prepared_tiny / "test.trials").read_text().splitlines()]
    expected = [unit[enrol] @ unit[test] for _, enrol, test in lines]
    assert np.ptp(expected) > 0.01
    assert list(system.scores) == pytest.approx(expected, abs=1e-4)
    assert (system.name, system.kind, system.parameters, system.macs_1s) == ("foreign", "teacher", WEIGHTS.size, None)


def test_told_beside_or_by_a_head_or_in_its_metadata_it_scores_alike(prepared_tiny, recipe_of_head, tmp_path):
    path = features_model(tmp_path / "told.onnx", SAYS_ALL)
    beside = features_model(tmp_path / "beside.onnx")
    (tmp_path / "beside.onnx.yaml").write_text("convention: wespeaker\n")
    fit_head(recipe_of_head(features_model(tmp_path / "bare.onnx")), tmp_path / "head")
    systems = evaluate([path, beside, tmp_path / "head"], PreparedCorpus.load(prepared_tiny), replicates=0).systems
    assert [system.name for system in systems] == ["told", "beside", "head"]
    for system in systems[1:]:
        assert system.scores == pytest.approx(systems[0].scores, abs=1e-6)


@pytest.fixture
def recipe_of_head(prepared_tiny):
    from parvox.data.settings import DataSettings
    from parvox.losses.margin import AamSoftmaxSettings
    from parvox.training.fit_head import HeadRecipe, HeadSettings

    def make(teacher):
        return HeadRecipe(
            teacher=str(teacher),
            corpus=str(prepared_tiny),
            seed=1,
            loss=AamSoftmaxSettings(),
            head=HeadSettings(passes=1, epochs=1),
            data=DataSettings(crop_s=0.5, batch_size=8, workers=0),
            options=TeacherOptions(onnx=OnnxSettings(convention="wespeaker")),
        )

    return make


def taught_by(path, recipe, out):
    """The run folder of a student that was trained to give the embeddings of the ONNX model in `path`."""
    options = ["--distillation.teacher", str(path), "--distillation.embedding.weight", "1"]
    return train(load_recipe(recipe, [*options, "--model.embedding_dim", str(DIM)]), out).folder


def test_the_command_shows_teacher_and_student(prepared_tiny, tiny_recipe, tmp_path, capsys):
    path = features_model(tmp_path / "foreign.onnx", SAYS_ALL)
    taught_by(path, tiny_recipe, tmp_path / "student")
    models = ["--models", str(path), str(tmp_path / "student"), "--replicates", "0", "--no_cache", "--workers", "0"]
    assert main(["evaluate", str(prepared_tiny), *models, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["systems"]
    assert [system["kind"] for system in found] == ["teacher", "run folder"]
    assert main(["evaluate", str(prepared_tiny), *models[:1], *models[2:], "--enrol_with", str(path)]) == 0
    assert load_system(tmp_path / "student").goes_with(load_system(path))  # it was trained to give its embeddings


def test_a_model_that_says_too_little_is_one_line(prepared_tiny, tmp_path, capsys):
    path = features_model(tmp_path / "foreign.onnx")
    assert main(["evaluate", str(prepared_tiny), "--models", str(path)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "metadata do not say sample_rate_hz" in said[0]
    assert main(["evaluate", str(prepared_tiny), "--models", "hf:nowhere"]) == 2
    assert "hf:nowhere: no such file or folder" in capsys.readouterr().err


def test_what_the_file_beside_says_of_the_output_counts(tmp_path):
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", DIM]) for name in ("embs", "means")]
    nodes = [
        helper.make_node("ReduceMean", ["feats", "axis"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["embs"]),
    ]
    weights = {"axis": np.array([1]), "weights": WEIGHTS}
    path = saved(tmp_path / "two.onnx", nodes, "feats", ("B", "T", BINS), weights=weights, outputs=given)
    with pytest.raises(ModelFileError, match="2 outputs given"):
        say(path, "convention: wespeaker\n")
    embs, means = (say(path, f"convention: wespeaker\noutput: {name}\n") for name in ("embs", "means"))
    assert (embs.embedding_dim, means.embedding_dim) == (DIM, BINS)


def say(path, words):
    path.with_name(f"{path.name}.yaml").write_text(words)
    return load_system(path)


def test_a_model_fed_otherwise_is_another(prepared_tiny, recipe_of_head, tiny_recipe, tmp_path):
    path = features_model(tmp_path / "m.onnx")
    systems = [say(path, f"convention: {name}\n") for name in ("3d-speaker", "wespeaker")]
    assert len({system.key for system in systems}) == len({system.fingerprint for system in systems}) == 2
    (tmp_path / "copy").mkdir()
    elsewhere = features_model(tmp_path / "copy" / "other.onnx")
    assert say(elsewhere, "convention: wespeaker\n").key == systems[1].key  # wherever it lies
    fit_head(dataclasses.replace(recipe_of_head(path), options=TeacherOptions()), tmp_path / "head")
    student = taught_by(path, tiny_recipe, tmp_path / "student")
    assert load_system(student).goes_with(load_system(path))
    say(path, "convention: 3d-speaker\n")
    assert not load_system(student).goes_with(load_system(path))
    with pytest.raises(ModelFileError, match="its teacher .* has changed since the head was fitted"):
        load_system(tmp_path / "head")


def test_the_enrolling_model_says_how_it_is_fed(prepared_tiny, tmp_path):
    path = features_model(tmp_path / "m.onnx", SAYS_ALL)
    other = tmp_path / "n.onnx"
    other.write_bytes(path.read_bytes())
    evaluation = evaluate([path], PreparedCorpus.load(prepared_tiny), enrol_with=other, replicates=0, workers=0)
    assert any("n.onnx: 80 log-mel bins" in note for note in evaluation.notes)


def test_the_same_model_by_two_names_is_told(tmp_path, monkeypatch):
    path = features_model(tmp_path / "m.onnx", SAYS_ALL)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParvoxError, match="m.onnx is given twice"):
        load_systems([Path("m.onnx"), path])


@pytest.mark.parametrize("device", ["meta", "nonsense"])
def test_a_device_that_computes_nothing_is_refused(tmp_path, device):
    with pytest.raises(ParvoxError, match=f"device '{device}'"):
        load_system(features_model(tmp_path / "m.onnx", SAYS_ALL), device=device)


def test_an_output_that_is_no_embedding_is_refused(tmp_path):
    given = [helper.make_tensor_value_info("embs", TensorProto.INT64, ["B", "T", BINS])]
    nodes = [helper.make_node("Cast", ["feats"], ["embs"], to=TensorProto.INT64)]
    path = saved(tmp_path / "m.onnx", nodes, "feats", ("B", "T", BINS), SAYS_ALL, outputs=given)
    with pytest.raises(ModelFileError, match=r"output embs of type tensor\(int64\) given"):
        load_system(path)


def test_a_rate_beyond_measure_is_refused():
    with pytest.raises(RecipeError, match="sample_rate_hz: 100000000000 given; expected 1000 to 768000"):
        OnnxSettings(sample_rate_hz=100_000_000_000)


def test_a_folder_of_transformers(prepared_tiny, tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    sizes |= {"conv_dim": [8, 8], "conv_kernel": [10, 8], "conv_stride": [5, 64], "num_feat_extract_layers": 2}
    sizes |= {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    torch.manual_seed(0)
    model = transformers.WavLMModel(transformers.WavLMConfig(**sizes)).eval()
    model.save_pretrained(tmp_path / "wavlm")
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path / "wavlm")
    system = load_system(f"hf:{tmp_path / 'wavlm'}")
    waveform = 0.1 * torch.randn(1, 9000, generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(waveform, (0, 5000)).numpy()
    with torch.no_grad():
        expected = model(waveform).last_hidden_state.mean(1).numpy()
    assert system.embed(padded, np.array([9000]), ["one"]) == pytest.approx(expected, abs=1e-5)
    assert (system.name, system.kind) == ("wavlm", "teacher")
    assert system.parameters == sum(parameter.numel() for parameter in model.parameters())
