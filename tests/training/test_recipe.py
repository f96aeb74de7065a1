import functools
import shutil
from pathlib import Path

import pytest
import yaml

from parvox.errors import ParvoxError, RecipeError
from parvox.losses.margin import SoftmaxSettings
from parvox.models import SpeakerModel
from parvox.training.recipe import build_recipe, load_recipe
from parvox.training.recipe_parsing import parse_recipe, read_yaml

BASE = {
    "corpus": "prepared",
    "model": {"name": "ecapa_tdnn", "channels": 64, "pooling": {"name": "statistics"}},
    "loss": {"name": "am_softmax", "margin": 0.3},
    "distillation": {"teacher": "runs/teacher", "label": {"temperature": 2}, "embedding": None},
    "training": {"learning_rate": "3e-3"},
}


def write(folder: Path, data) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_recipe_survives_its_own_yaml(tmp_path):
    recipe = load_recipe(write(tmp_path, BASE))
    assert recipe.model.encoder.channels == 64
    assert recipe.loss.margin == 0.3
    assert recipe.training.learning_rate == 0.003
    assert set(recipe.distillation.methods) == {"label", "embedding"}
    again = tmp_path / "again.yaml"
    again.write_text(recipe.to_yaml())
    assert load_recipe(again) == recipe


def test_text_that_is_null_is_not_given(tmp_path):
    section = {"teacher": "runs/teacher", "cache": None, "embedding": {}}
    recipe = load_recipe(write(tmp_path, {**BASE, "distillation": section, "init": None}))
    assert recipe.distillation.cache == ""
    assert recipe.init == ""


def test_overrides_win_and_choose(tmp_path):
    overrides = ["--model.name", "xvector", "--model.pooling.name=mean", "--model.embedding_dim", "7"]
    data = {**BASE, "model": {"name": "ecapa_tdnn"}}
    recipe = load_recipe(write(tmp_path, data), [*overrides, "--distillation.label.temperature", "9"])
    assert type(recipe.model.encoder).__name__ == "XVectorSettings"
    assert type(recipe.model.pooling).__name__ == "MeanPoolingSettings"
    assert recipe.model.embedding_dim == 7
    assert recipe.distillation.methods["label"].temperature == 9


def test_the_command_line_alone_makes_a_recipe():
    argv = ["--corpus", "x", "--distillation.teacher", "t", "--distillation.embedding.weight", "3"]
    recipe = build_recipe(parse_recipe(None, argv, prog="parvox distill"))
    assert recipe.distillation.methods["embedding"].weight == 3
    assert recipe.model.embedding_dim == 192


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"model": {"name": "ecapa_tdnn", "chanels": 3}},
            "unknown field 'model.chanels': did you mean 'model.channels'",
        ),
        ({"model": {"name": "ecapa"}}, "unknown model 'ecapa': did you mean 'ecapa_tdnn'"),
        ({"model": {"channels": "many"}}, "model.channels: expected int"),
        ({"model": 5}, "field model: 5 given"),
        ({"model": {"name": "memory_attention", "blocks": 10**12}}, "blocks 1000000000000 given; expected 1 to 1000"),
        ({"model": {"name": "resnet34", "blocks": [10**6]}}, "expected one or more numbers from 1 to 1000"),
        ({"model": {"features": {"frame_length_ms": float("inf")}}}, "shift <= window length <= 1000"),
        ({"distillation": {"teacher": "t", "integrated": {"steps": 10**12}}}, "expected 10000 at most"),
        (
            {"distillation": {"teacher": "t", "integrated": {"smooth_frames": 10**6 + 1}}},
            "an odd number from 1 to 10000",
        ),
        ({"model": {"pooling": {"name": "statistic"}}}, "unknown pooling 'statistic': did you mean 'statistics'"),
        ({"modle": {"name": "xvector"}}, "unknown field 'modle.name': did you mean 'model'"),
        ({"loss": {"name": "arcface"}}, "unknown loss 'arcface'"),
        ({"distillation": {"teacher": "t", "lable": {}}}, "unknown distillation method 'lable': did you mean 'label'"),
        ({"distillation": {"teacher": "t"}}, "no method given"),
        ({"distillation": {"label": {}}}, "teacher: nothing given"),
        ({"distillation": {"teacher": "t", "label": {"temperature": 0}}}, "expected 0.001 to 1000"),
        ({"distillation": {"teacher": "t", "label": {}, "speaker_weight": -1}}, "speaker_weight: -1.0 given"),
        ({"training": {"precision": "bf17"}}, "expected one of auto, fp32, bf16, fp16; got bf17"),
        ({"training": {"devices": "zero"}}, "expected one of int, auto; got zero"),
        ({"training": {"epochs": 0}}, "training.epochs: 0 given; expected 1 or more"),
        ({"training": {"learning_rate": -1}}, "learning_rate: -1.0 given"),
        ({"training": {"final_learning_rate": 1}}, "at most learning_rate"),
        ({"data": {"crop_s": None}}, "data.crop_s: expected float"),
        ({"seed": "x"}, "seed: expected int"),
        ({"seed": 2**63}, "a whole number of more than 64 bits"),
        ({"corpus": "a\0b"}, "a text with a zero character"),
        ({"corpus": b"abc"}, "holds a bytes; expected text"),
        ({"model": {"name": "xvector", "channels": functools.reduce(lambda x, _: [x], range(30), 1)}}, "too deeply"),
        ({"distillation": {1: {"weight": 2}}}, "'1' for the name of a field"),
        ({"training": 5}, "training: '5' given; expected fields under it"),
        ({"distillation": {"teacher": "t", "label": 3}}, "distillation.label: '3' given; expected fields under it"),
        ({"distillation": {"teacher": {"a": 1}, "label": {}}}, "distillation.teacher: fields given; expected a value"),
        ({"model": {"features": {"bins": 10**12}}}, "expected 1 to 1000 bins"),
        ({"model": {"features": {"sample_rate_hz": 10**15}}}, "1000 to 1000000 Hz"),
        ({"loss": {"name": "aam_softmax", "sub_centres": 10**11}}, "expected 1 to 1000"),
    ],
)
def test_mistakes_are_one_line_and_named(tmp_path, change, says):
    with pytest.raises(ParvoxError) as caught:
        load_recipe(write(tmp_path, {**BASE, **change}))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_cannot_execute_code(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text(f'corpus: !!python/object/apply:os.system ["touch {tmp_path}/touched"]')
    with pytest.raises(RecipeError, match="not valid YAML"):
        load_recipe(path)
    assert not (tmp_path / "touched").exists()


def test_references_to_references_are_not_followed(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    for text in ("\n".join([*lines, "model: *a29"]), "model: &m {pooling: *m}"):
        (tmp_path / "r.yaml").write_text(text)
        with pytest.raises(RecipeError, match=r"r.yaml (holds more than 10000 values|is nested too deeply)") as raised:
            load_recipe(tmp_path / "r.yaml")
        assert len(str(raised.value)) < 500


@pytest.mark.parametrize("content", [b"- a\n- b\n", b"just words", b"1: 2\n", b"\xff\xfe\x00", b"a: [1"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"recipe .*recipe\.yaml"):
        read_yaml(path)


def test_missing_and_empty(tmp_path):
    with pytest.raises(RecipeError, match="cannot read recipe"):
        read_yaml(tmp_path / "nothing.yaml")
    (tmp_path / "empty.yaml").touch()
    assert read_yaml(tmp_path / "empty.yaml") == {}


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "path", [*ROOT.glob("recipes/**/*.yaml"), *ROOT.glob("src/parvox/demo/*.yaml")], ids=lambda path: path.stem
)
def test_every_recipe_of_the_repository_fits_together(path, tmp_path, monkeypatch):
    if init := read_yaml(path).get("init"):  # a run of the recipe beside it
        monkeypatch.chdir(tmp_path)
        Path(init).mkdir(parents=True)
        shutil.copy(path.with_stem(Path(init).name), Path(init) / "recipe.yaml")
    overrides = ["--distillation.teacher", "runs/teacher"] if "distillation:" in path.read_text() else []
    recipe = load_recipe(path, overrides)
    SpeakerModel(recipe.model)


def test_another_choice_leaves_the_fields_of_the_first_behind():
    path = ROOT / "recipes" / "small" / "ecapa_mqmha_top_k.yaml"

    def recipe(*words):
        return load_recipe(path, ["--corpus", "c", *words])

    assert recipe("--model.pooling.name", "statistics").model.encoder == recipe().model.encoder
    other = recipe("--model.name", "depthwise_tdnn")
    assert other.model.encoder == type(other.model.encoder)()  # not as wide as the recipe's ECAPA-TDNN
    assert other.model.pooling == recipe().model.pooling
    assert other.loss == recipe().loss
    assert recipe("--loss.name=am_softmax", "--loss.margin", "0.3").loss.margin == 0.3
    assert recipe("--loss.name", "am_softmax").loss.top_k == recipe().loss.top_k == 5  # said of either
    assert recipe("--loss.name", "softmax").loss == SoftmaxSettings()
    with pytest.raises(ParvoxError, match="unknown option '--model.pooling.heads'"):
        recipe("--model.pooling.name", "statistics", "--model.pooling.heads", "2")
    assert recipe("--model.name", "ecapa_tdnn", "--model.channels", "64").model.encoder.frames_dim == 768


@pytest.mark.parametrize("word", [["--distillation.embedding", "none"], ["--distillation.embedding=none"]])
def test_a_method_of_the_recipe_can_be_taken_out(word):
    given = ["--corpus", "c", *word, "--distillation.label.weight", "3"]
    assert list(load_recipe(ROOT / "recipes" / "student.yaml", given).distillation.methods) == ["label"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--distillation.embedding", "none"], "no method given"),
        (
            ["--distillation.label.weight", "1", "--distillation.label", "none"],
            "--distillation.label none given after its settings",
        ),
        (["--distillation.embedding", "null"], "expected --distillation.embedding none, which takes the method out"),
        (["--distillation.embedding"], "expected --distillation.embedding none"),
        (["--distillation.nontarget", "none"], "unknown distillation method 'nontarget': did you mean 'non_target'"),
    ],
)
def test_what_takes_no_method_out_is_told(words, says):
    with pytest.raises(RecipeError, match=says):
        load_recipe(ROOT / "recipes" / "student.yaml", ["--corpus", "c", *words])
