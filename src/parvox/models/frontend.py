"""Log-mel filterbank features, computed on the whole batch, on the device, inside the model.

The one front end of Parvox: training, evaluation and the exported file run these very operations, so features
cannot differ between them. The discrete Fourier transform is a real matrix product, because complex transforms do
not survive export to every runtime.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from parvox.errors import RecipeError
from parvox.models.contract import mask_from_lengths

FULL_SCALE = 32768.0
"""What samples in [-1, 1] are multiplied by: Kaldi's filterbanks are defined on 16-bit sample values."""
_LONGEST_WINDOW_MS = 1000
_MOST_BINS, _MOST_HZ = 1000, 1_000_000
_ENERGY_FLOOR = 1.1920928955078125e-07  # Kaldi's: the float32 epsilon


@dataclass(frozen=True, kw_only=True)
class FbankSettings:
    """Filterbank settings; the defaults are Kaldi's with the 80 bins and Hamming window usual in the field."""

    bins: int = 80
    """Mel bins."""
    sample_rate_hz: int = 16000
    """Sample rate the model listens at."""
    frame_length_ms: float = 25.0
    """Window length."""
    frame_shift_ms: float = 10.0
    """Hop between windows."""
    low_hz: float = 20.0
    """Lower edge of the first mel bin."""
    high_hz: float = 0.0
    """Upper edge of the last mel bin; zero or less counts down from half the sample rate."""
    window: Literal["hamming", "povey", "hann"] = "hamming"
    """Window shape."""
    preemphasis: float = 0.97
    """First-order pre-emphasis coefficient."""

    def __post_init__(self) -> None:
        if not 1 <= self.bins <= _MOST_BINS or not 1000 <= self.sample_rate_hz <= _MOST_HZ:
            raise RecipeError(
                f"features: {self.bins} bins at {self.sample_rate_hz} Hz given; expected 1 to {_MOST_BINS} bins and "
                f"1000 to {_MOST_HZ} Hz"
            )
        nyquist = self.sample_rate_hz / 2
        high = self.high_hz if self.high_hz > 0 else nyquist + self.high_hz
        if not 0 <= self.low_hz < high <= nyquist:
            raise RecipeError(
                f"features: mel bins from {self.low_hz} to {high} Hz given; expected 0 <= low < high <= {nyquist}"
            )
        if not 0 < self.frame_shift_ms <= self.frame_length_ms <= _LONGEST_WINDOW_MS:
            raise RecipeError(
                f"features: a shift of {self.frame_shift_ms} ms with windows of {self.frame_length_ms} ms given; "
                f"expected 0 < shift <= window length <= {_LONGEST_WINDOW_MS}"
            )
        if self.frame_shift < 1 or self.frame_length < 2:
            raise RecipeError(
                f"features: a shift of {self.frame_shift_ms} ms with windows of {self.frame_length_ms} ms given; "
                f"expected at least a sample and two, of which {self.sample_rate_hz} come in a second"
            )
        if not 0 <= self.preemphasis <= 1:
            raise RecipeError(f"features: preemphasis {self.preemphasis} given; expected 0 to 1")

    @property
    def frame_length(self) -> int:
        """Window length in samples."""
        return int(self.sample_rate_hz * self.frame_length_ms / 1000)

    @property
    def frame_shift(self) -> int:
        """Hop in samples."""
        return int(self.sample_rate_hz * self.frame_shift_ms / 1000)

    def samples(self, frames: int) -> int:
        """The fewest samples that give `frames` frames."""
        return self.frame_length + (frames - 1) * self.frame_shift


class Fbank(nn.Module):
    """Waveforms to mean-normalised log-mel energies.

    Windows that do not fit are dropped (Kaldi's ``snip_edges``), each window is freed of its mean, pre-emphasised
    and weighted, and each utterance's features are freed of their mean over its own valid frames. Agrees with
    kaldi-native-fbank without dither to 1e-3 in log energy.

    Args:
        settings: What to compute.
    """

    def __init__(self, settings: FbankSettings) -> None:
        super().__init__()
        self.settings = settings
        length = settings.frame_length
        fft_size = 2 ** math.ceil(math.log2(length))
        mel = _mel_filters(settings, fft_size)
        used = np.flatnonzero(mel.any(axis=1))
        first, last = int(used[0]), int(used[-1]) + 1
        # The power spectrum does not change when time is counted from the middle of the window. Counted so, cosines
        # are even and sines odd, and one half of the window can be folded onto the other: half the arithmetic.
        half = (length + 1) // 2
        time = np.arange(half) - (length - 1) / 2
        angle = 2 * np.pi / fft_size * time[:, None] * np.arange(first, last)[None, :]
        cosine = np.cos(angle)
        if length % 2:
            cosine[-1] /= 2  # the middle sample meets itself in the fold
        self.register_buffer("cosine", torch.from_numpy(cosine).float(), persistent=False)
        self.register_buffer("sine", torch.from_numpy(np.sin(angle)).float(), persistent=False)
        self.register_buffer("mel", torch.from_numpy(mel[first:last]).float(), persistent=False)
        self.register_buffer("window", torch.from_numpy(_window(settings.window, length)).float(), persistent=False)
        self.cosine: Tensor
        self.sine: Tensor
        self.mel: Tensor
        self.window: Tensor

    def lengths(self, samples: Tensor) -> Tensor:
        """Frames that waveforms of so many samples give.

        Args:
            samples: (batch,) int64.
        """
        settings = self.settings
        return (samples - settings.frame_length) // settings.frame_shift + 1

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Compute features.

        Args:
            waveforms: (batch, samples) float in [-1, 1].
            lengths: (batch,) int64 valid samples; None when every row is full.

        Returns:
            Features (batch, frames, bins), zero where padded, and valid frames (batch,) or None.
        """
        device = waveforms.device.type
        if torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):  # half precision is too coarse for log energies
                return self._compute(waveforms.float(), lengths)
        return self._compute(waveforms, lengths)

    def log_energies(self, waveforms: Tensor) -> Tensor:
        """Log-mel energies (batch, frames, bins) of waveforms (batch, samples), their mean still in them."""
        frames = _frames(waveforms * FULL_SCALE, self.settings.frame_length, self.settings.frame_shift)
        frames = frames - frames.mean(-1, keepdim=True)
        previous = torch.cat([frames[..., :1], frames[..., :-1]], -1)
        frames = (frames - self.settings.preemphasis * previous) * self.window
        half = self.cosine.shape[0]
        head, tail = frames[..., :half], frames[..., -half:].flip(-1)
        power = ((head + tail) @ self.cosine).square() + ((head - tail) @ self.sine).square()
        return (power @ self.mel).clamp(min=_ENERGY_FLOOR).log()

    def _compute(self, waveforms: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        features = self.log_energies(waveforms)
        if lengths is None:
            return features - features.mean(1, keepdim=True), None
        valid = self.lengths(lengths)
        mask = mask_from_lengths(valid, features.shape[1]).unsqueeze(-1).to(features.dtype)
        mean = (features * mask).sum(1, keepdim=True) / valid.clamp(min=1).view(-1, 1, 1).to(features.dtype)
        return (features - mean) * mask, valid


def _frames(samples: Tensor, length: int, shift: int) -> Tensor:
    """(batch, samples) to overlapping windows (batch, frames, length), by slices alone: they export everywhere."""
    count = (samples.shape[1] - length) // shift + 1
    rows = -(-length // shift)  # shifts that a window touches
    padded = nn.functional.pad(samples, (0, shift * rows - length))
    blocks = padded[:, : (count + rows - 1) * shift].reshape(samples.shape[0], count + rows - 1, shift)
    parts = [blocks[:, row : row + count] for row in range(rows)]
    parts[-1] = parts[-1][..., : length - (rows - 1) * shift]
    return torch.cat(parts, -1)


def _window(shape: str, length: int) -> np.ndarray:
    phase = 2 * np.pi * np.arange(length) / (length - 1)
    if shape == "hamming":
        window: np.ndarray = 0.54 - 0.46 * np.cos(phase)
        return window
    hann: np.ndarray = 0.5 - 0.5 * np.cos(phase)
    povey: np.ndarray = hann**0.85
    return povey if shape == "povey" else hann


def _mel_filters(settings: FbankSettings, fft_size: int) -> np.ndarray:
    """(fft bins, mel bins): triangles that are straight on the mel scale 1127 ln(1 + f / 700), as in Kaldi."""
    nyquist = settings.sample_rate_hz / 2
    high_hz = settings.high_hz if settings.high_hz > 0 else nyquist + settings.high_hz

    def mel(hz: np.ndarray | float) -> np.ndarray:
        return np.asarray(1127.0 * np.log1p(np.asarray(hz) / 700.0))

    edges = np.linspace(mel(settings.low_hz), mel(high_hz), settings.bins + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins = mel(np.arange(fft_size // 2) * settings.sample_rate_hz / fft_size)[:, None]
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    filters: np.ndarray = np.clip(np.minimum(rising, falling), 0.0, None)
    if not filters.any(axis=0).all():
        raise RecipeError(
            f"features: {settings.bins} mel bins given, but some hold no frequency of a {fft_size}-point transform; "
            "use fewer bins or longer windows"
        )
    return filters
