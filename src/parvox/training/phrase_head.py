"""A second head, which tells phrases apart, beside the speaker head."""

from __future__ import annotations

import dataclasses
from typing import Any

from parvox.errors import RecipeError
from parvox.losses import SpeakerLoss
from parvox.training.recipe import Recipe


def build_phrase_head(recipe: Recipe, phrases: list[str]) -> SpeakerLoss | None:
    """The phrase head that a recipe asks for; None if it asks for none.

    It is of the kind of the speaker head, on the same embedding, without sub-centres and inter-topK penalty: phrases
    are few. It is for training alone and is not kept.

    Args:
        recipe: Whose `training.phrase_weight` asks.
        phrases: The phrases in training.

    Raises:
        RecipeError: there is one phrase only.
    """
    if not recipe.training.phrase_weight:
        return None
    if len(phrases) < 2:
        raise RecipeError(
            f"training.phrase_weight: {recipe.training.phrase_weight} given, but all training utterances say "
            f"{phrases[0]!r}; expected 0, or a corpus of two phrases or more"
        )
    settings: Any = recipe.loss
    plain = {"sub_centres": 1, "top_k": 0}
    settings = dataclasses.replace(settings, **{name: plain[name] for name in plain if hasattr(settings, name)})
    head: SpeakerLoss = settings.build(recipe.model.embedding_dim, len(phrases))
    return head
