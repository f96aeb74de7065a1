from __future__ import annotations

from typing import Any

import pytest

from parvox.data import AugmentationSettings, DataSettings
from parvox.errors import RecipeError


@pytest.mark.parametrize(
    "given",
    [
        {"crop_s": 0.01},
        {"crop_s": float("nan")},
        {"crop_from": "end"},
        {"classes": "phrase"},
        {"batch_size": 0},
        {"utterances_per_epoch": 0},
        {"min_utterances_per_speaker": 0},
        {"speed_perturbation": (0.9, 1.0)},
        {"speed_perturbation": (0.9, 0.9)},
        {"speed_perturbation": (4.0,)},
        {"workers": -1},
        {"cache_audio_mib": -1},
    ],
)
def test_data_settings_out_of_range_are_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(given))):
        DataSettings(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"noise_probability": 1.5},
        {"reverberation_probability": -0.1},
        {"spec_augment_probability": float("nan")},
        {"snr_db": (20.0, 0.0)},
        {"gain_db": (float("-inf"), 0.0)},
        {"time_masks": -1},
        {"max_frequency_mask_bins": -1},
        {"random_erasing_probability": -0.5},
        {"random_erasing_area": (0.5, 0.1)},
        {"random_erasing_aspect": (0.0, 1.0)},
        {"random_erasing_fill": "black"},
        {"random_erasing_teacher": "other"},
    ],
)
def test_augmentation_settings_out_of_range_are_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(given))):
        AugmentationSettings(**given)


def test_lists_as_yaml_gives_them_become_tuples() -> None:
    assert DataSettings(speed_perturbation=[0.9, 1.1]) == DataSettings(speed_perturbation=(0.9, 1.1))  # type: ignore[arg-type]
