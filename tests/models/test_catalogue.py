"""Names of models."""

from pathlib import Path

import pytest
import yaml

from parvox.errors import RecipeError
from parvox.models import SpeakerModel
from parvox.models.catalogue import configuration, configurations
from parvox.models.cost import count_parameters
from parvox.training.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


def test_the_recipe_of_each_gives_the_same_model(tmp_path):
    names = []
    for name, made in configurations():
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"model": made.section()}))
        assert load_recipe(path).model == made.settings(), name
        names.append(name)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("xvector-two_layers", 4.61e6),
        ("ecapa_tdnn-1024", 14.65e6),
        ("redimnet2-b0", 1.1e6),
        ("redimnet2-b1", 2.1e6),
        ("redimnet2-b2", 3.6e6),
        ("resnet293", 28.62e6),
        ("bc_cmt", 271_440),
    ],
)
def test_sizes_have_their_published_parameters(name, published):
    found = count_parameters(SpeakerModel(configuration(name).settings()))
    assert found == pytest.approx(published, rel=0.03)  # ReDimNet2's are published with two digits


@pytest.mark.parametrize("name", ["ecapa_tdnn-256", "ecapa_tdnn-128"])
def test_sizes_of_published_recipes_are_those_of_the_recipes(name):
    recipe = load_recipe(RECIPES / "voxceleb" / f"{name.replace('-', '_')}.yaml")
    assert recipe.model.encoder == configuration(name).settings().encoder


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(RecipeError, match=r"unknown model 'resnet292': did you mean 'resnet293'\?"):
        configuration("resnet292")
