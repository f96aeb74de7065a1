"""The golden signal must never change: files in the field rest on it."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from parvox.errors import ModelFileError
from parvox.runtime.golden import DEFAULT_SIGNAL, golden_signal


@pytest.mark.parametrize(
    ("rate", "digest"),
    [
        (8000, "d204e9afe29d379acd20afebd0a56a58cc120569fdd278c9a2921c45fdc1a1d2"),
        (16000, "e26b08212358e7dee7dbccf5451435e1447e282740fd0859ceacb6a019ddcbf8"),
    ],
)
def test_it_is_what_it_was(rate: int, digest: str) -> None:
    samples = golden_signal(DEFAULT_SIGNAL, rate)
    assert samples.dtype == np.float32
    assert len(samples) == 1.5 * rate
    whole = np.round(samples.astype(np.float64) * 32768)
    np.testing.assert_array_equal(whole / 32768, samples)
    assert hashlib.sha256(whole.astype("<i2").tobytes()).hexdigest() == digest


def test_it_is_like_speech() -> None:
    samples = golden_signal(DEFAULT_SIGNAL, 16000).astype(np.float64)
    assert 0.1 < np.abs(samples).max() < 1
    levels = (samples[: len(samples) // 160 * 160].reshape(-1, 160) ** 2).mean(1)
    assert 10 * np.log10(levels.max() / levels.min()) > 15  # syllables and pauses
    assert levels.min() > 1e-8  # but no digital silence, where features are ill-conditioned
    energy = np.abs(np.fft.rfft(samples)) ** 2
    hz = np.fft.rfftfreq(len(samples), 1 / 16000)
    assert energy[hz < 4000].sum() > 0.95 * energy.sum()
    assert energy[(hz > 1000) & (hz < 4000)].sum() > 0.02 * energy.sum()


def test_unknown_name() -> None:
    with pytest.raises(ModelFileError, match="glide-1"):
        golden_signal("glide-7", 16000)
