"""`parvox models`: the list, and what a name stands for."""

import json
from dataclasses import fields

import pytest

from parvox.cli import models as command
from parvox.cli.main import main
from parvox.distillation import METHODS
from parvox.losses import LOSSES
from parvox.models import ENCODERS, POOLINGS, SpeakerModel
from parvox.models.catalogue import configuration
from parvox.models.cost import count_parameters


@pytest.fixture
def few(monkeypatch):
    """Two models, for counting all takes seconds."""
    names = ("xvector", "bc_cmt-small")
    monkeypatch.setattr(command, "configurations", lambda: [(name, configuration(name)) for name in names])
    return names


def test_the_list_as_json_has_all_choices_with_their_sizes(few, capsys):
    assert main(["models", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in told["models"]] == list(few)
    for key, registry in (("poolings", POOLINGS), ("losses", LOSSES), ("distillation", METHODS)):
        assert [row["name"] for row in told[key]] == sorted(entry.name for entry in registry)
        assert all(row["source"] == registry[row["name"]].source for row in told[key])
    parameters = {row["name"]: row["parameters"] for row in told["models"] + told["poolings"] + told["losses"]}
    assert parameters["xvector"] == count_parameters(SpeakerModel(configuration("xvector").settings()))
    assert parameters["mean"] == parameters["statistics"] == 0
    assert parameters["fsd_asp"] == 64 * 65 + 128 * 129 + 256 + 128 * 129
    assert parameters["class_token"] == 256
    assert parameters["softmax"] == 193 * 1000


def test_the_list_as_text_names_all(few, capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = {line.split()[0] for line in lines[: lines.index("sources")] if line}
    assert set(few) <= first
    assert {entry.name for registry in (POOLINGS, LOSSES, METHODS) for entry in registry} <= first


@pytest.mark.parametrize("registry", [ENCODERS, POOLINGS, LOSSES, METHODS], ids=lambda registry: registry.kind)
def test_a_name_tells_each_setting_with_its_help(registry, capsys):
    for entry in registry:
        assert main(["models", entry.name, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["source"] == entry.source
        assert [setting["name"] for setting in told["settings"]] == [field.name for field in fields(entry.settings)]
        assert all(setting["help"] and setting["type"] for setting in told["settings"]), entry.name


def test_a_size_tells_what_to_write_in_a_recipe(capsys):
    assert main(["models", "redimnet2-b1"]) == 0
    told = capsys.readouterr().out
    assert "model:\n  name: redimnet2\n  size: b1\n  features:\n    bins: 72\n" in told
    assert "size: b0, b1, b2 (default: b0)" in told


def test_options_may_come_first(capsys):
    assert main(["models", "--json", "softmax"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "softmax"


def test_a_model_tells_what_goes_with_it(capsys):
    assert main(["models", "memory_attention", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["pooling"], told["head"]) == ("class_token", "linear")
    assert set(told["poolings"]) == {entry.name for entry in POOLINGS} - {"fsd_asp", "frequency_average"}
    assert main(["models", "xvector"]) == 0
    assert "poolings that go with it: attentive_statistics, mean, mqmha, statistics\n" in capsys.readouterr().out


def test_a_pooling_tells_what_it_goes_on_and_gives(capsys):
    assert main(["models", "fsd_asp", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["encoders"] == ["bc_cmt", "redimnet2", "resnet34"]
    assert (told["encoder"], told["frames_dim"], told["output_dim"]) == ("bc_cmt", 320, 256)
    assert main(["models", "frequency_average"]) == 0
    assert "encoders it goes on: bc_cmt, redimnet2, resnet34\n" in capsys.readouterr().out


def test_nothing_is_wider_than_the_terminal(few, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for words in ([], ["resnet293"], ["mqmha"], ["aam_softmax"]):
        assert main(["models", *words]) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80, words


def test_an_unknown_name_is_one_line(capsys):
    assert main(["models", "resnet43"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("parvox: error: unknown name 'resnet43': did you mean 'resnet34'?")
    assert said.count("\n") == 1
