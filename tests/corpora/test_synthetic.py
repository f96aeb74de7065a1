"""The synthetic corpus: whole, repeatable, speech-like, and with a channel that says nothing about the speaker."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from parvox.corpora.synthetic import (
    SOURCE,
    SyntheticSettings,
    generate_synthetic,
    read_synthetic_settings,
)
from parvox.corpora.synthetic_channel import NOISE_KINDS, coloured_noise, draw_noise, draw_room, record
from parvox.corpora.synthetic_voice import (
    REFERENCE_TRACT_CM,
    _overlap_add,
    _tract,
    _windowed_spectra,
    draw_voice,
    speak,
)
from parvox.errors import OutputError, RecipeError

RATE = 16000
SETTINGS = SyntheticSettings(speakers=32, utterances=6, min_seconds=0.8, max_seconds=1.6, noises=6, rooms=3, seed=7)
SMALL = SyntheticSettings(speakers=3, utterances=2, noises=2, rooms=1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_synthetic(tmp_path_factory.mktemp("synthetic") / "corpus", SETTINGS)


@pytest.fixture(scope="module")
def clips(corpus: Path) -> list[tuple[dict[str, str], np.ndarray]]:
    return [(row, soundfile.read(corpus / "speech" / row["path"])[0]) for row in rows_of(corpus / "speech")]


@pytest.fixture(scope="module")
def voices(corpus: Path) -> dict[str, dict[str, str]]:
    with (corpus / "speech" / "speakers.csv").open(encoding="utf-8") as file:
        return {row["speaker"]: row for row in csv.DictReader(file)}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def eer(scores: np.ndarray, targets: np.ndarray) -> float:
    false_accept, true_accept, _ = roc_curve(targets, scores)
    at = int(np.argmin(np.abs(false_accept - (1 - true_accept))))
    return float(false_accept[at] + 1 - true_accept[at]) / 2


def pairwise_eer(features: np.ndarray, speakers: np.ndarray) -> float:
    """EER of negated distance between standardised features over all pairs."""
    features = (features - features.mean(0)) / features.std(0)
    distance = np.linalg.norm(features[:, None] - features[None], axis=-1)
    first, second = np.triu_indices(len(features), 1)
    return eer(-distance[first, second], speakers[first] == speakers[second])


def loud_frames(samples: np.ndarray, length: int) -> np.ndarray:
    frames = np.lib.stride_tricks.sliding_window_view(samples, length)[:: length // 4]
    power = (frames**2).mean(1)
    return frames[power > np.percentile(power, 60)]


def pitch_hz(samples: np.ndarray) -> float:
    """Median over loud frames of the autocorrelation's best lag between 60 and 400 Hz."""
    frames = loud_frames(scipy.signal.sosfilt(scipy.signal.butter(4, 900, fs=RATE, output="sos"), samples), 800)
    window = np.hanning(800)
    window_lags = scipy.signal.correlate(window, window, "full")[799:1066]
    found = []
    for frame in frames * window:
        lags = scipy.signal.correlate(frame, frame, "full")[799:1066] / window_lags
        lag = 40 + int(np.argmax(lags[40:]))
        if lags[lag] > 0.5 * lags[0]:
            found.append(RATE / lag)
    return float(np.median(found)) if found else np.nan


def formant_spacing(samples: np.ndarray) -> float:
    """Mean over loud frames of the geometric mean of the LPC resonances 2 to 4, in Hz."""
    emphasised = np.append(samples[0], samples[1:] - 0.95 * samples[:-1])
    emphasised = scipy.signal.resample_poly(emphasised, 10, 16)  # 10 kHz: about five formants
    found = []
    for frame in loud_frames(emphasised, 320) * np.hamming(320):
        correlation = scipy.signal.correlate(frame, frame, "full")[319:331]
        correlation[0] *= 1.001
        coefficients = scipy.linalg.solve_toeplitz(correlation[:-1], correlation[1:])
        roots = np.roots(np.append(1, -coefficients))
        roots = roots[(roots.imag > 0) & (np.abs(roots) > 0.8)]
        formants = np.sort(np.angle(roots) * 10000 / (2 * np.pi))
        formants = formants[formants > 150]
        if len(formants) >= 4:
            found.append(np.exp(np.log(formants[1:4]).mean()))
    return float(np.mean(found))


def by_speaker(clips: list, values: list[float]) -> dict[str, list[float]]:
    grouped: dict[str, list[float]] = {}
    for (row, _), value in zip(clips, values, strict=True):
        grouped.setdefault(row["speaker"], []).append(value)
    return grouped


def test_equal_seeds_give_equal_files_whatever_the_number_of_workers(tmp_path: Path) -> None:
    one = contents(generate_synthetic(tmp_path / "one", SMALL, workers=1))
    three = contents(generate_synthetic(tmp_path / "three", SMALL, workers=3))
    assert one == three
    other = contents(generate_synthetic(tmp_path / "other", SyntheticSettings(**{**vars(SMALL), "seed": 1})))
    assert not {name for name in one if name.endswith(".flac") and one[name] == other.get(name)}


def test_a_smaller_corpus_is_a_part_of_a_larger_one(tmp_path: Path) -> None:
    small = contents(generate_synthetic(tmp_path / "small", SMALL))
    large = contents(
        generate_synthetic(tmp_path / "large", SyntheticSettings(speakers=4, utterances=2, noises=2, rooms=1))
    )
    assert {name: large[name] for name in small if name.endswith(".flac")} == {
        name: data for name, data in small.items() if name.endswith(".flac")
    }


def test_manifests_describe_the_files(corpus: Path, clips: list) -> None:
    assert len(clips) == SETTINGS.speakers * SETTINGS.utterances
    assert len({row["speaker"] for row, _ in clips}) == SETTINGS.speakers
    for row, samples in clips:
        assert row["source"] == SOURCE
        assert row["path"].startswith(row["speaker"] + "/")
        assert float(row["seconds"]) == pytest.approx(len(samples) / RATE, abs=1e-3)
        assert row["text"]
    on_disk = {str(path.relative_to(corpus / "speech")) for path in (corpus / "speech").rglob("*.flac")}
    assert on_disk == {row["path"] for row, _ in clips}
    noise = rows_of(corpus / "noise")
    assert [row["kind"] for row in noise] == ["noise"] * 6 + ["rir"] * 3
    for row in noise:
        info = soundfile.info(corpus / "noise" / row["path"])
        assert (info.samplerate, info.channels) == (RATE, 1)


def test_recordings_are_sound(clips: list) -> None:
    assert len({samples.tobytes() for _, samples in clips}) == len(clips)
    for _, samples in clips:
        assert SETTINGS.min_seconds - 0.4 < len(samples) / RATE < SETTINGS.max_seconds + 0.4
        assert np.abs(samples).max() < 0.95
        assert -36 < 10 * np.log10(np.mean(samples**2)) < -12
    assert np.std([len(samples) / RATE for _, samples in clips]) > 0.1


def test_pitch_is_the_speakers_own(clips: list, voices: dict) -> None:
    grouped = by_speaker(clips, [pitch_hz(samples) for _, samples in clips])
    measured = np.log([np.nanmedian(values) for values in grouped.values()])
    drawn = np.log([float(voices[name]["f0_hz"]) for name in grouped])
    assert np.corrcoef(measured, drawn)[0, 1] > 0.9


def test_tract_length_is_the_speakers_own(clips: list, voices: dict) -> None:
    grouped = by_speaker(clips, [formant_spacing(samples) for _, samples in clips])
    measured = [np.mean(values) for values in grouped.values()]
    drawn = [1 / float(voices[name]["tract_cm"]) for name in grouped]
    assert np.corrcoef(measured, drawn)[0, 1] > 0.75


def test_a_speaker_can_be_told_but_not_trivially(clips: list) -> None:
    speakers = np.array([row["speaker"] for row, _ in clips])
    body = np.log([(pitch_hz(samples), formant_spacing(samples)) for _, samples in clips])
    known = np.isfinite(body).all(1)
    assert 0.15 < pairwise_eer(body[known], speakers[known]) < 0.35
    spectra = []
    for _, samples in clips:
        _, _, power = scipy.signal.spectrogram(samples, RATE, nperseg=400, noverlap=240)
        bands = np.log([band.mean(0) + 1e-12 for band in np.array_split(power[1:], 40)])
        spectra.append(np.concatenate([bands.mean(1), bands.std(1)]))
    assert pairwise_eer(np.array(spectra), speakers) > 0.2


def test_the_channel_does_not_give_the_speaker_away(clips: list) -> None:
    """The noise before the first phone has passed through the same microphone as the voice."""
    speakers = np.array([row["speaker"] for row, _ in clips])
    floors = []
    for _, samples in clips:
        _, power = scipy.signal.welch(samples[:480], RATE, nperseg=256)
        bands = np.log([band.mean() + 1e-14 for band in np.array_split(power[2:], 8)])
        floors.append([bands.mean(), *(bands - bands.mean())])
    assert pairwise_eer(np.array(floors), speakers) > 0.45
    tilt = np.polyfit(np.arange(8), np.array(floors)[:, 1:].T, 1)[0]
    assert pairwise_eer(tilt[:, None], speakers) > 0.45


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="overwrite"):
        generate_synthetic(tmp_path / "mine", SMALL)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.txt"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        generate_synthetic(tmp_path / "corpus", SMALL)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [{"speakers": 0}, {"utterances": 0}, {"noises": -1}, {"seed": -1}, {"min_seconds": 2.0}, {"max_seconds": 90.0}],
)
def test_settings_are_checked(wrong: dict) -> None:
    with pytest.raises(RecipeError, match="expected"):
        SyntheticSettings(**wrong)


def test_settings_are_found_again(corpus: Path, tmp_path: Path) -> None:
    assert read_synthetic_settings(corpus) == SETTINGS
    assert read_synthetic_settings(tmp_path) is None
    (tmp_path / "synthetic.json").write_text('{"source": "parvox-synthetic", "version": 1, "settings": {"size": 3}}')
    assert read_synthetic_settings(tmp_path) is None


def test_tract_agrees_with_scipys_resonators() -> None:
    formants, widths = np.array([[500.0, 1500.0, 7700.0]]), np.array([[60.0, 90.0, 900.0]])
    expected = np.ones(513, dtype=complex)
    for formant, width in zip(formants[0], widths[0], strict=True):
        pole = np.exp(-np.pi * width / RATE + 2j * np.pi * formant / RATE)
        _, response = scipy.signal.freqz_zpk([0, 0], [pole, np.conj(pole)], 1, np.linspace(0, np.pi, 513))
        expected *= response / np.abs(response[0])
    np.testing.assert_allclose(np.abs(_tract(formants, widths)[0]), np.abs(expected), rtol=1e-6)


@given(st.integers(1, 3000), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_an_open_tract_leaves_the_source_as_it_is(count: int, seed: int) -> None:
    source = np.random.default_rng(seed).standard_normal(count)
    frames = -(-count // 128) + 1
    np.testing.assert_allclose(_overlap_add(_windowed_spectra(source, frames), count), source, atol=1e-9)


def test_vowels_have_the_formants_of_their_tract() -> None:
    """A shorter tract moves the resonances of the same words up in proportion."""
    voice = draw_voice(np.random.default_rng(0))
    spacing = {}
    for tract_cm in (14.0, REFERENCE_TRACT_CM):
        scaled = type(voice)(**{**vars(voice), "tract_cm": tract_cm, "f0_hz": 110.0, "breath": 0.005})
        said = [speak(scaled, 3.0, np.random.default_rng(seed))[0] for seed in range(4)]
        spacing[tract_cm] = np.mean([formant_spacing(samples) for samples in said])
    assert spacing[14.0] / spacing[REFERENCE_TRACT_CM] == pytest.approx(REFERENCE_TRACT_CM / 14.0, rel=0.1)


@given(st.integers(0, 10_000), st.sampled_from([0.5, 1.0, 2.5]))
@settings(max_examples=30, deadline=None)
def test_any_voice_in_any_channel_is_finite(seed: int, seconds: float) -> None:
    rng = np.random.default_rng(seed)
    said, text = speak(draw_voice(rng), seconds, rng)
    assert text
    recorded = record(said, rng)
    assert recorded.shape == said.shape
    assert np.isfinite(recorded).all()
    assert 0.001 < np.abs(recorded).max() <= 0.9 + 1e-9


@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_noises(kind: str) -> None:
    noise = draw_noise(kind, 1.5, np.random.default_rng(1))
    assert noise.shape == (24000,)
    assert np.mean(noise**2) == pytest.approx(1.0)
    assert not np.allclose(noise, draw_noise(kind, 1.5, np.random.default_rng(2)))


@pytest.mark.parametrize("colour", [0.0, 1.0, 2.0])
def test_coloured_noise_falls_as_told(colour: float) -> None:
    frequency, power = scipy.signal.welch(coloured_noise(160000, colour, np.random.default_rng(0)), RATE, nperseg=2048)
    used = (frequency > 100) & (frequency < 6000)
    slope = np.polyfit(np.log(frequency[used]), np.log(power[used]), 1)[0]
    assert slope == pytest.approx(-colour, abs=0.1)


def test_rooms_die_away_as_told() -> None:
    room = draw_room(np.random.default_rng(4), 0.5, 0.5001)
    assert room[0] == 1.0
    assert np.abs(room[1:]).max() < 1.0
    left_db = 10 * np.log10(np.cumsum(room[::-1] ** 2)[::-1])  # Schroeder's integral
    steady = slice(int(0.05 * RATE), int(0.3 * RATE))
    slope = np.polyfit(np.arange(len(room))[steady] / RATE, left_db[steady], 1)[0]
    assert -60 / slope == pytest.approx(0.5, rel=0.15)
