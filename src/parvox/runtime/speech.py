"""How much of a recording is speech, judged by energy alone.

This finds where a recording is clearly louder than its own background. It does not know speech from music, barking
or a slamming door, and below a signal-to-noise ratio of about 5 dB it misses speech. It serves to say how much a
decision rests on and to refuse recordings that hold nearly nothing, not to clean recordings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

SHIFT_S = 0.01
_WINDOW_S = 0.025
_PREEMPHASIS = 0.97  # takes hum and rumble away, which carry energy but no speech
_RANGE_DB = 80.0  # how far below the loudest frame levels are told apart
_SMOOTH_FRAMES = 7  # a click fills 3 frames of 25 ms; the median of 7 does not see it
_FLOOR_QUANTILE = 0.1
_LEAST_RANGE_DB = 6.0  # a steady sound (hum, hiss, a tone) varies less
_MARGIN_SHARE, _LEAST_MARGIN_DB, _MOST_MARGIN_DB = 0.35, 3.0, 12.0
_BELOW_PEAK_DB = 35.0  # what is softer is background or reverberation
_GAP_FRAMES = 20  # shorter pauses belong to the speech around them
_BURST_FRAMES = 5  # shorter bursts are no speech
_HANGOVER_FRAMES = 3  # weak beginnings and ends of words


@dataclass(frozen=True)
class Speech:
    """Where a recording holds speech.

    Attributes:
        mask: (frames,) bool, one per 10 ms.
        seconds: How much of the recording is speech.
    """

    mask: NDArray[np.bool_]
    seconds: float


def find_speech(samples: NDArray[np.floating], sample_rate_hz: int) -> Speech:
    """Find speech by energy over an adaptive floor.

    Levels of 25 ms windows, pre-emphasised and median-smoothed, are compared with a threshold between the
    recording's quietest tenth and its loudest moment; short gaps are filled, short bursts dropped. The result does
    not depend on the recording's level.

    Args:
        samples: (samples,) of one channel.
        sample_rate_hz: Their rate.

    Returns:
        The mask and its seconds; nothing is found in silence, in steady sounds, and in less than 25 ms.
    """
    levels_db = _levels_db(np.asarray(samples, np.float64), sample_rate_hz)
    if not len(levels_db):
        return Speech(np.zeros(0, bool), 0.0)
    peak, floor = levels_db.max(), np.quantile(levels_db, _FLOOR_QUANTILE)
    if peak - floor < _LEAST_RANGE_DB:
        return Speech(np.zeros(len(levels_db), bool), 0.0)
    margin = np.clip(_MARGIN_SHARE * (peak - floor), _LEAST_MARGIN_DB, _MOST_MARGIN_DB)
    mask = levels_db > max(floor + margin, peak - _BELOW_PEAK_DB)
    mask = _without_runs(mask, False, _GAP_FRAMES)
    mask = _without_runs(mask, True, _BURST_FRAMES)
    spread = np.convolve(mask, np.ones(2 * _HANGOVER_FRAMES + 1))
    mask = spread[_HANGOVER_FRAMES : _HANGOVER_FRAMES + len(mask)] > 0.5
    return Speech(mask, min(float(mask.sum()) * SHIFT_S, len(samples) / sample_rate_hz))


def _levels_db(samples: NDArray[np.float64], sample_rate_hz: int) -> NDArray[np.float64]:
    """(frames,) smoothed levels relative to the loudest frame; empty without any energy."""
    window, shift = round(_WINDOW_S * sample_rate_hz), round(SHIFT_S * sample_rate_hz)
    if len(samples) < window:
        return np.zeros(0)
    centred = samples - samples.mean()
    emphasised = np.concatenate([centred[:1] * (1 - _PREEMPHASIS), centred[1:] - _PREEMPHASIS * centred[:-1]])
    running = np.concatenate([[0.0], np.cumsum(emphasised**2)])
    energy = (running[window:] - running[:-window])[::shift]
    loudest = energy.max()
    if loudest <= 0:
        return np.zeros(0)
    levels_db = 10 * np.log10(np.maximum(energy / loudest, 10 ** (-_RANGE_DB / 10)))
    half = _SMOOTH_FRAMES // 2
    smoothed: NDArray[np.float64] = np.median(
        sliding_window_view(np.pad(levels_db, half, mode="edge"), _SMOOTH_FRAMES), axis=1
    )
    return smoothed


def _without_runs(mask: NDArray[np.bool_], value: bool, shorter_than: int) -> NDArray[np.bool_]:
    """`mask` with runs of `value` shorter than so many frames turned over; pauses at either end are no gaps."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask == value, [False]]).astype(np.int8)))
    result = mask.copy()
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        inside = value or (start > 0 and end < len(mask))
        if inside and end - start < shorter_than:
            result[start:end] = not value
    return result
