"""A voice made of numbers: glottal pulses and noise, shaped by a vocal tract that moves from phone to phone.

The source-filter model of speech (Fant 1960): a train of glottal pulses, or noise, passes through the resonances
(formants) of the vocal tract. The glottal spectrum follows the causal-anticausal linear model (Doval, d'Alessandro
and Henrich 2003): a resonance that the open quotient places, and a low-pass that sets the spectral tilt. The tract is
a cascade of digital resonators as in Klatt (1980), whose frequencies go with the inverse of its length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from parvox.corpora.synthetic_phones import CODAS, ONSETS, PAUSE, VOWEL_NAMES, VOWEL_PHONES, Phone, parts

SAMPLE_RATE_HZ = 16000
REFERENCE_TRACT_CM = 17.5  # an adult male tract; its neutral formants lie at 500, 1500, 2500 … Hz

_HOP = 128  # samples between tract shapes
_FFT = 1024  # a window of two hops, and 48 ms for the resonances to die away
_CONTROL_HZ = 500  # rate at which articulation is planned
_FREQUENCIES = np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE_HZ)
_WINDOW = np.sin(np.pi * (np.arange(2 * _HOP) + 0.5) / (2 * _HOP)) ** 2  # sums to one over hops

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Voice:
    """What makes a speaker: body, glottis and habits.

    Attributes:
        gender: "m" or "f": the group that pitch and tract length were drawn from.
        tract_cm: Length of the vocal tract; formants are proportional to its inverse.
        vowel_offsets: (vowels, 3) factors on the first three formants of each vowel: an accent.
        upper_offsets: (6,) factors on the formants from the fourth on: the shape of the tract.
        bandwidth: Factor on formant bandwidths.
        cavity: Factor on the frequencies of fricatives and bursts.
        f0_hz: Median pitch.
        accent_st: Height of pitch accents, semitones.
        declination_st: Pitch lost per second, semitones.
        final_st: Pitch movement on the last syllable, semitones.
        accent_delay: Where in its syllable an accent peaks, 0 to 1.
        drift_st: Size of slow pitch wandering, semitones.
        open_quotient: Part of a glottal cycle in which the glottis is open.
        tilt_hz: Above this frequency the glottal spectrum falls faster.
        breath: Noise at the glottis relative to the pulses.
        jitter: Irregularity of glottal periods, relative.
        shimmer: Irregularity of glottal amplitudes, relative.
        rate: Factor on speaking rate.
        vowel_stretch: Factor on vowel durations alone.
        transition_s: Time from one phone's tract shape to the next's.
        reduction: How far vowels shrink towards the neutral vowel, 0 to 1.
    """

    gender: str
    tract_cm: float
    vowel_offsets: Array
    upper_offsets: Array
    bandwidth: float
    cavity: float
    f0_hz: float
    accent_st: float
    declination_st: float
    final_st: float
    accent_delay: float
    drift_st: float
    open_quotient: float
    tilt_hz: float
    breath: float
    jitter: float
    shimmer: float
    rate: float
    vowel_stretch: float
    transition_s: float
    reduction: float


def draw_voice(rng: np.random.Generator) -> Voice:
    """A random speaker. Pitch and tract length go together across the sexes, hardly within one."""
    male = bool(rng.random() < 0.5)
    return Voice(
        gender="m" if male else "f",
        tract_cm=float(np.clip((17.2 if male else 14.9) + 0.75 * rng.standard_normal(), 13.0, 19.5)),
        vowel_offsets=np.exp(0.05 * rng.standard_normal((len(VOWEL_NAMES), 3))),
        upper_offsets=np.exp(0.04 * rng.standard_normal(6)),
        bandwidth=float(np.exp(0.2 * rng.standard_normal())),
        cavity=float(np.exp(0.08 * rng.standard_normal()) * (1.0 if male else 1.1)),
        f0_hz=float((118 if male else 205) * np.exp(0.15 * rng.standard_normal())),
        accent_st=float(rng.uniform(0.5, 5.0)),
        declination_st=float(rng.uniform(0.0, 5.0)),
        final_st=float(rng.uniform(-5.0, 3.0)),
        accent_delay=float(rng.uniform(0.2, 0.9)),
        drift_st=float(rng.uniform(0.1, 0.6)),
        open_quotient=float(rng.uniform(0.4, 0.85)),
        tilt_hz=float(np.exp(rng.uniform(np.log(400), np.log(2500)))),
        breath=float(np.exp(rng.uniform(np.log(0.005), np.log(0.12)))),
        jitter=float(np.exp(rng.uniform(np.log(0.002), np.log(0.02)))),
        shimmer=float(rng.uniform(0.02, 0.15)),
        rate=float(np.exp(0.15 * rng.standard_normal())),
        vowel_stretch=float(np.exp(0.15 * rng.standard_normal())),
        transition_s=float(rng.uniform(0.03, 0.08)),
        reduction=float(rng.uniform(0.0, 0.35)),
    )


def speak(voice: Voice, seconds: float, rng: np.random.Generator) -> tuple[Array, str]:
    """One utterance of random syllables.

    Args:
        voice: Who speaks. Pitch, rate and effort vary a little from one utterance to the next.
        seconds: About how long.
        rng: Decides everything else.

    Returns:
        Samples (samples,) with voiced stretches at unit RMS, and the phones, space between syllables.
    """
    pace = voice.rate * float(np.exp(0.08 * rng.standard_normal()))
    syllables = _plan(seconds, pace, voice.vowel_stretch, rng)
    phones = [phone for syllable in syllables for phone in syllable.phones]
    lengths = np.array([length for syllable in syllables for length in syllable.lengths])  # control steps
    tracks = _Tracks(voice, phones, lengths, rng)
    f0 = voice.f0_hz * 2.0 ** (_intonation(voice, syllables, rng) / 12)
    return _synthesise(voice, tracks, f0, rng), " ".join(syllable.text for syllable in syllables if syllable.text)


@dataclass(frozen=True)
class _Syllable:
    text: str
    phones: tuple[Phone, ...]
    lengths: tuple[int, ...]
    stress: float


def _plan(seconds: float, pace: float, stretch: float, rng: np.random.Generator) -> list[_Syllable]:
    """Syllables that fill about `seconds`, between silences and with pauses now and then."""

    def silence(low: float, high: float) -> _Syllable:
        return _Syllable("", (PAUSE,), (round(rng.uniform(low, high) * _CONTROL_HZ),), 0.0)

    plan = [silence(0.04, 0.15)]
    end = silence(0.04, 0.15)
    steps_left = round(seconds * _CONTROL_HZ) - plan[0].lengths[0] - end.lengths[0]
    while True:
        names = [ONSETS[rng.integers(len(ONSETS))]] if rng.random() < 0.85 else []
        names.append(VOWEL_NAMES[rng.integers(len(VOWEL_NAMES))])
        if rng.random() < 0.4:
            names.append(CODAS[rng.integers(len(CODAS))])
        stress = float(rng.random() < 0.5)
        phones: list[Phone] = []
        lengths: list[int] = []
        for name in names:
            vowel = name in VOWEL_NAMES
            factor = np.exp(0.15 * rng.standard_normal()) / pace * (stretch * (0.8 + 0.5 * stress) if vowel else 1.0)
            for part in parts(name):
                phones.append(part)
                lengths.append(max(2, round(part.seconds * factor * _CONTROL_HZ)))
        if sum(lengths) > steps_left and len(plan) > 1:
            break
        steps_left -= sum(lengths)
        plan.append(_Syllable("".join(names), tuple(phones), tuple(lengths), stress))
        if rng.random() < 0.08 and steps_left > 0.4 * _CONTROL_HZ:
            plan.append(silence(0.05, 0.2))
            steps_left -= plan[-1].lengths[0]
    return [*plan, end]


class _Tracks:
    """Articulation over time, (steps, …) at the control rate: formants, bandwidths, gains and noise cavities."""

    def __init__(self, voice: Voice, phones: list[Phone], lengths: NDArray[np.int64], rng: np.random.Generator) -> None:
        own = np.log([_personal_formants(voice, phone) for phone in phones])  # (phones, 3)
        firm = np.array([phone.firmness for phone in phones])[:, None]
        before, after = np.vstack([own[:1], own[:-1]]), np.vstack([own[1:], own[-1:]])
        targets = firm * own + (1 - firm) * (before + after) / 2 + 0.02 * rng.standard_normal(own.shape)
        index = np.repeat(np.arange(len(phones)), lengths)
        ratio = REFERENCE_TRACT_CM / (voice.tract_cm * (1 + 0.01 * rng.standard_normal()))
        low = np.exp(_smooth(targets[index], voice.transition_s)) * ratio  # (steps, 3)
        upper = (1000.0 * (np.arange(4, 10) - 0.5) * voice.upper_offsets * ratio)[None, :]
        formants = np.hstack([low, np.repeat(upper, len(low), 0)])  # (steps, 9)
        damping = _smooth(np.array([phone.damping for phone in phones])[index][:, None], 0.02)
        widths = voice.bandwidth * damping * (50.0 + 0.02 * formants + (formants / 3000.0) ** 3 * 15.0)
        beyond = np.maximum(formants - 7400.0, 0.0)  # what nears half the sample rate fades into its damping
        self.formants = np.minimum(formants, 7700.0)
        self.widths = widths + 3.0 * beyond
        effort = np.exp(0.1 * rng.standard_normal(len(phones)))
        gains = np.array([(phone.voice, phone.breath, phone.friction) for phone in phones]) * effort[:, None]
        self.voice, self.breath, self.friction = _smooth(gains[index], 0.012).T
        cavities = list(dict.fromkeys(phone.cavity for phone in phones))
        self.cavities = np.array(cavities) * voice.cavity
        self.cavity_index = np.array([cavities.index(phone.cavity) for phone in phones])[index]


def _personal_formants(voice: Voice, phone: Phone) -> Array:
    formants = np.array(phone.formants, dtype=float)
    if phone not in VOWEL_PHONES:
        return formants
    neutral = np.array([500.0, 1500.0, 2500.0])
    reduced: Array = formants ** (1 - voice.reduction) * neutral**voice.reduction
    personal: Array = reduced * voice.vowel_offsets[VOWEL_PHONES.index(phone)]
    return personal


def _smooth(track: Array, seconds: float) -> Array:
    """(steps, channels) smoothed by a raised-cosine of `seconds` effective length."""
    half = max(1, round(seconds * _CONTROL_HZ))
    kernel = np.hanning(2 * half + 1)
    kernel /= kernel.sum()
    padded = np.pad(track, ((half, half), (0, 0)), mode="edge")
    return np.stack([np.convolve(column, kernel, "valid") for column in padded.T], axis=1)


def _intonation(voice: Voice, syllables: list[_Syllable], rng: np.random.Generator) -> Array:
    """Pitch relative to the speaker's median, semitones (steps,)."""
    lengths = np.array([sum(syllable.lengths) for syllable in syllables])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    time = np.arange(starts[-1]) / _CONTROL_HZ
    contour: Array = 0.6 * rng.standard_normal() - voice.declination_st * (time - time[-1] / 2)
    for syllable, start, length in zip(syllables, starts, lengths, strict=False):
        if syllable.stress:
            peak = (start + voice.accent_delay * length) / _CONTROL_HZ
            height = voice.accent_st * rng.uniform(0.6, 1.3)
            contour += height * np.exp(-(((time - peak) / 0.07) ** 2))
    last = starts[-3] / _CONTROL_HZ  # the last syllable before the closing silence
    contour += voice.final_st * np.clip((time - last) / max(0.08, time[-1] - last), 0, 1)
    knots = rng.standard_normal(int(time[-1] * 8) + 2)
    contour += voice.drift_st * np.interp(time * 8, np.arange(len(knots)), knots)
    return contour


def _synthesise(voice: Voice, tracks: _Tracks, f0: Array, rng: np.random.Generator) -> Array:
    ratio = SAMPLE_RATE_HZ // _CONTROL_HZ
    count = len(f0) * ratio
    steps = np.arange(count) / ratio
    control = np.arange(len(f0))
    voicing, breathing, friction = (
        np.interp(steps, control, track) for track in (tracks.voice, tracks.breath, tracks.friction)
    )
    phase = np.cumsum(np.interp(steps, control, f0)) / SAMPLE_RATE_HZ
    pulses = _pulses(voice, phase, voicing, rng)
    source = scipy.fft.irfft(scipy.fft.rfft(pulses) * _glottis(voice, count, f0, rng), count)
    source /= np.sqrt(np.mean(source[voicing > 0.5] ** 2)) + 1e-9
    hiss = rng.standard_normal(count)
    flow = 1 + np.cos(2 * np.pi * phase)  # turbulence comes and goes with the open glottis
    breath = voice.breath * float(np.exp(0.3 * rng.standard_normal()))
    source += hiss * (breathing + breath * voicing * flow)

    frames = -(-count // _HOP) + 1
    at = np.minimum(np.arange(frames) * _HOP // ratio, len(f0) - 1)
    spectrum = _windowed_spectra(source, frames) * _tract(tracks.formants[at], tracks.widths[at])
    voiced = _overlap_add(spectrum, count)
    voiced /= np.sqrt(np.mean(voiced[voicing > 0.5] ** 2)) + 1e-9
    noise = _windowed_spectra(rng.standard_normal(count) * friction, frames)
    noise *= _cavity(tracks.cavities)[tracks.cavity_index[at]]
    return voiced + _overlap_add(noise, count)


def _pulses(voice: Voice, phase: Array, gain: Array, rng: np.random.Generator) -> Array:
    """A band-limited impulse at each whole number that `phase` (cycles) passes, uneven as the voice is."""
    cycles = np.arange(1, int(phase[-1]))
    at = np.interp(cycles, phase, np.arange(len(phase)))
    period = np.gradient(at) if len(at) > 1 else np.ones_like(at)
    at = np.clip(at + voice.jitter * period * rng.standard_normal(len(at)), 8, len(phase) - 9)
    height = np.interp(at, np.arange(len(gain)), gain) * (1 + voice.shimmer * rng.standard_normal(len(at)))
    taps = np.arange(-7, 9)
    whole = np.floor(at).astype(int)
    offset = taps[None, :] - (at - whole)[:, None]  # (pulses, taps)
    shape = np.sinc(offset) * np.cos(np.pi * offset / 17) ** 2
    train = np.bincount((whole[:, None] + taps).ravel(), (height[:, None] * shape).ravel(), len(phase))
    return np.asarray(train, dtype=np.float64)


def _glottis(voice: Voice, count: int, f0: Array, rng: np.random.Generator) -> NDArray[np.complex128]:
    """Spectrum of one differentiated glottal pulse, on the bins of a transform of `count` samples."""
    frequency = scipy.fft.rfftfreq(count, 1 / SAMPLE_RATE_HZ)
    resonance_hz = float(np.median(f0)) / (2 * voice.open_quotient)
    x = frequency / resonance_hz
    opening = np.conj(1j * x / (1 - x**2 + 1j * x / 0.9))  # growing, then cut off: the anticausal half of the model
    tilt_hz = voice.tilt_hz * np.exp(0.2 * rng.standard_normal())
    closing: NDArray[np.complex128] = opening / (1 + 1j * frequency / tilt_hz)
    return closing


def _tract(formants: Array, widths: Array) -> NDArray[np.complex128]:
    """(frames, bins) responses of resonators in series with unit gain at 0 Hz, from (frames, resonators) each."""
    radius = np.exp(-np.pi * widths / SAMPLE_RATE_HZ)
    first = -2 * radius * np.cos(2 * np.pi * formants / SAMPLE_RATE_HZ)
    second = radius**2
    polynomial = np.zeros((len(formants), 2 * formants.shape[1] + 1))
    polynomial[:, 0] = 1
    for k in range(formants.shape[1]):
        previous = polynomial.copy()
        polynomial[:, 1:] += first[:, k, None] * previous[:, :-1]
        polynomial[:, 2:] += second[:, k, None] * previous[:, :-2]
    response: NDArray[np.complex128] = polynomial.sum(1, keepdims=True) / scipy.fft.rfft(polynomial, _FFT)
    return response


def _cavity(cavities: Array) -> Array:
    """(cavities, bins) magnitudes that give white noise a hump at each cavity's centre, and unit power."""
    centre, width = cavities[:, :1], cavities[:, 1:]
    hump = 1 / (1 + ((_FREQUENCIES - centre) / (width / 2)) ** 2)
    hump *= np.minimum(1, _FREQUENCIES / 400)
    normalised: Array = hump / np.sqrt(np.mean(hump**2, axis=1, keepdims=True))
    return normalised


def _windowed_spectra(signal: Array, frames: int) -> NDArray[np.complex128]:
    padded = np.pad(signal, (_HOP, frames * _HOP - len(signal)))
    blocks = np.lib.stride_tricks.sliding_window_view(padded, 2 * _HOP)[::_HOP]
    spectra: NDArray[np.complex128] = scipy.fft.rfft(blocks * _WINDOW, _FFT)
    return spectra


def _overlap_add(spectra: NDArray[np.complex128], count: int) -> Array:
    blocks = scipy.fft.irfft(spectra, _FFT).reshape(len(spectra), -1, _HOP)  # (frames, hops, samples)
    total = np.zeros((len(spectra) + blocks.shape[1], _HOP))
    for row in range(blocks.shape[1]):
        total[row : row + len(spectra)] += blocks[:, row]
    return total.ravel()[_HOP : _HOP + count]
