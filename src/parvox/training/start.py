"""Training that starts from the weights of an earlier run, such as large-margin fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from parvox.errors import RecipeError

if TYPE_CHECKING:
    from parvox.training.recipe import Recipe
    from parvox.training.run import Run


def recipe_path(init: str) -> Path:
    """The recipe of the run that a recipe's `init` names.

    Raises:
        RecipeError: it names no run folder.
    """
    path = Path(init) / "recipe.yaml"
    if not path.is_file():
        what = "holds no recipe.yaml" if path.parent.is_dir() else "is not there, seen from the current folder"
        raise RecipeError(
            f"init: {init} {what}; expected the folder of a finished run: train that first, or name another with --init"
        )
    return path


def laid_over(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Sections of a run's recipe, with those fields replaced that a second recipe gives.

    The run's teacher is not taken over. A section that chooses another name (another loss) replaces the run's as a
    whole, for the two have other fields.

    Args:
        base: The run's recipe.
        change: The recipe that starts from it.
    """
    kept = {name: value for name, value in base.items() if name not in ("distillation", "init")}
    return _merged(kept, change)


def _merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in change.items():
        before = merged.get(name)
        alike = isinstance(before, dict) and isinstance(value, dict) and value.get("name") in (None, before.get("name"))
        merged[name] = _merged(before, value) if alike and before else value
    return merged


def start_from(run: Run, recipe: Recipe, speakers: list[str], model: nn.Module, classifier: nn.Module | None) -> None:
    """Fill a model, and its classifier if it has one, with the weights of a finished run.

    Args:
        run: Where the weights are taken from.
        recipe: The recipe of the training to come.
        speakers: Its training speakers, in class order.
        model: Filled in place.
        classifier: Filled in place.

    Raises:
        RecipeError: the run has another model, other speakers or another classifier.
    """
    theirs, ours = run.recipe.to_dict(), recipe.to_dict()
    differing = _differing(theirs["model"], ours["model"], "model")
    if differing:
        name, before, now = differing[0]
        raise RecipeError(f"{name}: {now} given, but the run in init, {run.folder}, has {before}; give the same model")
    if classifier is None:
        model.load_state_dict(run.model.state_dict())
        return
    if run.classifier is None:
        raise RecipeError(f"init: {run.folder} has no classifier, for its speech had no labels; give another run")
    if theirs["data"]["classes"] != ours["data"]["classes"]:
        raise RecipeError(
            f"data.classes: {ours['data']['classes']} given, but the run in init, {run.folder}, has "
            f"{theirs['data']['classes']}; give the same"
        )
    if run.speakers != speakers:
        both = len(set(run.speakers) & set(speakers))
        raise RecipeError(
            f"init: {run.folder} knows {len(run.speakers)} speakers and the corpus has {len(speakers)}, {both} of them "
            f"in common; expected the corpus it was trained on: {run.recipe.corpus}"
        )
    tensors = run.classifier.state_dict()
    if tensors.keys() != classifier.state_dict().keys():
        raise RecipeError(
            f"loss.name: {ours['loss']['name']} given, but the run in init, {run.folder}, has "
            f"{theirs['loss']['name']}, whose classifier has other weights; give the same loss"
        )
    for section, field in (("data", "speed_perturbation"), ("loss", "sub_centres")):
        before, now = theirs[section].get(field), ours[section].get(field)
        if before != now:
            raise RecipeError(
                f"{section}.{field}: {now} given, but the run in init, {run.folder}, has {before}; its classifier can "
                "be kept only with the same"
            )
    model.load_state_dict(run.model.state_dict())
    classifier.load_state_dict(tensors)


def _differing(before: dict[str, Any], now: dict[str, Any], prefix: str) -> list[tuple[str, Any, Any]]:
    """Name, and the two values, of each field in which two sections differ; the choice of a name comes first."""
    found = []
    for name in dict.fromkeys([*before, *now]):
        one, other = before.get(name), now.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found += _differing(one, other, f"{prefix}.{name}")
        elif one != other:
            found.append((f"{prefix}.{name}", one, other))
    return found
