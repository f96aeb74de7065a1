"""Teachers of the transformers library, tiny and random, against the library's own feature extractors."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from parvox.errors import MissingExtraError, ModelFileError, RecipeError
from parvox.training.recipe import load_recipe
from parvox.training.teacher_settings import TeacherOptions, TransformersSettings
from parvox.training.teachers import Inputs, load_teacher, load_teachers
from parvox.training.trainer import train

transformers = pytest.importorskip("transformers")

CPU = torch.device("cpu")
SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
CONVOLUTIONS = {"conv_dim": [8, 8], "conv_kernel": [10, 8], "conv_stride": [5, 64], "num_feat_extract_layers": 2}
WAVLM = {
    **SMALL,
    **CONVOLUTIONS,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "tdnn_dim": [12, 12],
    "tdnn_kernel": [3, 1],
    "tdnn_dilation": [1, 1],
    "xvector_output_dim": 10,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """By kind: wavlm without a head, xvector with one, bert for w2v-BERT."""
    root = tmp_path_factory.mktemp("hf")
    torch.manual_seed(0)
    normalised = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    made = {
        "wavlm": (transformers.WavLMModel(transformers.WavLMConfig(**WAVLM)), normalised),
        "xvector": (
            transformers.WavLMForXVector(transformers.WavLMConfig(**WAVLM, use_weighted_layer_sum=True)),
            transformers.Wav2Vec2FeatureExtractor(do_normalize=False),
        ),
        "bert": (
            transformers.Wav2Vec2BertModel(
                transformers.Wav2Vec2BertConfig(**SMALL, feature_projection_input_dim=160, conv_depthwise_kernel_size=7)
            ),
            transformers.SeamlessM4TFeatureExtractor(padding_value=1),
        ),
    }
    for name, (model, extractor) in made.items():
        model.save_pretrained(root / name)
        extractor.save_pretrained(root / name)
    return root


def waveforms(samples=8000):
    rng = np.random.default_rng(1)
    return torch.from_numpy((0.05 * rng.standard_normal((3, samples)) + 0.02).astype(np.float32))


def loaded(folder, **settings):
    return load_teacher(f"hf:{folder}", None, CPU, TeacherOptions(transformers=TransformersSettings(**settings)))


def direct(folder, kind, samples=8000, **options):
    """The library's own way, padding masks and all."""
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    model = kind.from_pretrained(folder).eval()
    fed = extractor(list(waveforms(samples).numpy()), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        return model(**fed, **options)


def test_the_mean_over_frames_of_the_last_layer(folders):
    teacher = loaded(folders / "wavlm")
    expected = direct(folders / "wavlm", transformers.WavLMModel).last_hidden_state.mean(1)
    torch.testing.assert_close(teacher.embed(waveforms()), expected, rtol=1e-4, atol=1e-5)
    assert (teacher.side.embedding_dim, teacher.sample_rate_hz) == (16, 16000)
    assert "WavLMModel at 16000 Hz" in teacher.note
    assert not any(parameter.requires_grad for parameter in teacher._model.parameters())


def test_other_layers_weighted(folders):
    teacher = loaded(folders / "wavlm", layers=(0, 2, -1), layer_weights=(1.0, 2.0, 1.0))
    states = direct(folders / "wavlm", transformers.WavLMModel, output_hidden_states=True).hidden_states
    expected = (states[0].mean(1) + 2 * states[2].mean(1) + states[3].mean(1)) / 4
    torch.testing.assert_close(teacher.embed(waveforms()), expected, rtol=1e-4, atol=1e-5)


def test_an_x_vector_head_is_used_unless_layers_are_named(folders):
    expected = direct(folders / "xvector", transformers.WavLMForXVector).embeddings
    teacher = loaded(folders / "xvector")
    torch.testing.assert_close(teacher.embed(waveforms()), expected, rtol=1e-4, atol=1e-5)
    assert teacher.side.embedding_dim == 10
    assert loaded(folders / "xvector", layers=(-1,)).side.embedding_dim == 16


@pytest.mark.parametrize("samples", [8080, 8240])  # 49 and 50 frames: the library masks an odd one out
def test_features_of_w2v_bert(folders, samples):
    fed = loaded(folders / "bert")._feed(waveforms(samples))["input_features"]
    own = transformers.SeamlessM4TFeatureExtractor(padding_value=1)(
        list(waveforms(samples).numpy()), sampling_rate=16000, return_tensors="pt"
    )
    frames = int(own["attention_mask"].sum(1)[0])
    torch.testing.assert_close(fed, own["input_features"][:, :frames], rtol=1e-3, atol=2e-3)
    assert fed.shape[1] == frames


def test_w2v_bert(folders):
    expected = direct(folders / "bert", transformers.Wav2Vec2BertModel, 8240).last_hidden_state.mean(1)
    torch.testing.assert_close(loaded(folders / "bert").embed(waveforms(8240)), expected, rtol=1e-3, atol=1e-3)


def test_a_student_learns_from_one(folders, tiny_recipe, tmp_path):
    options = ["--distillation.teacher", f"hf:{folders / 'wavlm'}", "--distillation.embedding.weight", "10"]
    run = train(load_recipe(tiny_recipe, [*options, "--training.epochs", "1"]), tmp_path / "run")
    assert run.summary["steps"] > 0


def test_kept_embeddings_are_of_the_layers_and_the_configuration_that_were_read(folders, tmp_path):
    folder = shutil.copytree(folders / "wavlm", tmp_path / "wavlm")
    given = Inputs(waveforms(), torch.zeros(1))

    def kept(**settings):
        options = TeacherOptions(transformers=TransformersSettings(layers=(0, 1), **settings))
        load_teachers(f"hf:{folder}", None, CPU, options, str(tmp_path / "said")).view(given)
        return len(list((tmp_path / "said").glob("*/*")))

    assert [kept(layer_weights=weights) for weights in ((1.0, 9.0), (9.0, 1.0), (1.0, 9.0))] == [1, 2, 2]
    config = folder / "preprocessor_config.json"
    config.write_text(config.read_text().replace('"do_normalize": true', '"do_normalize": false'))
    assert kept(layer_weights=(1.0, 9.0)) == 3


def without(folder, name):
    (folder / name).unlink()


def pickled(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def incomplete(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layers.1.attention.k_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def another_extractor(folder):
    transformers.ASTFeatureExtractor().save_pretrained(folder)


def code(folder):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}
    config["model_type"] = "evil"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('code of the folder was run')")


@pytest.mark.parametrize(
    ("spoil", "settings", "says"),
    [
        (lambda folder: without(folder, "config.json"), {}, "holds no config.json"),
        (lambda folder: without(folder, "preprocessor_config.json"), {}, "holds no preprocessor_config.json"),
        (lambda folder: without(folder, "model.safetensors"), {}, "expected config.json and model.safetensors"),
        (pickled, {}, "expected config.json and model.safetensors"),
        (incomplete, {}, "1 weights are missing or of another shape, such as encoder.layers.1.attention.k_proj.weight"),
        (another_extractor, {}, "feature extractor ASTFeatureExtractor given; known are Wav2Vec2FeatureExtractor"),
        (code, {}, "cannot load it"),
        (lambda folder: None, {"layers": (4,)}, "transformers.layers 4 given; its 3 layers are 1 to 3"),
    ],
)
def test_what_cannot_teach_is_refused_in_one_line(folders, tmp_path, spoil, settings, says):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in (folders / "wavlm").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    spoil(folder)
    with pytest.raises(ModelFileError, match=says) as caught:
        loaded(folder, **settings)
    assert "\n" not in str(caught.value)


def test_no_folder(tmp_path):
    with pytest.raises(ModelFileError, match="is not a folder; expected what save_pretrained wrote"):
        loaded(tmp_path / "nothing")


def test_without_the_library_the_remedy_is_named(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'parvox\[transformers\]'"):
        loaded(folders / "wavlm")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"layers": (1, 2), "layer_weights": (1.0,)}, "layer_weights: 1 given for 2 layers"),
        ({"layers": (1, 2), "layer_weights": (0.0, 0.0)}, "expected 0 or more each, not all 0"),
        ({"layers": (1, 2), "layer_weights": (2.0, -1.0)}, "expected 0 or more each, not all 0"),
    ],
)
def test_senseless_settings_are_named(settings, says):
    with pytest.raises(RecipeError, match=says):
        TransformersSettings(**settings)
