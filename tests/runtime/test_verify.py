"""Decisions: the score is the cosine it should be, the threshold decides, and what a decision rests on is said."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tiny_model

from parvox.audio import Audio, read_audio
from parvox.errors import AudioError, ModelFileError, ParvoxError
from parvox.runtime.embedder import SpeakerEmbedder
from parvox.runtime.verify import Verifier, verify_files

RATE = 16000


def recording(name: str, seconds: float = 2.0, hz: float = 120.0, native_rate_hz: int = RATE) -> Audio:
    """A syllabic buzz with a pause on either side."""
    time = np.arange(int(seconds * RATE)) / RATE
    voice = sum(np.sin(2 * np.pi * hz * k * time) / k for k in range(1, 25)) * (0.55 - 0.45 * np.cos(25 * time))
    pause = np.zeros(RATE // 2)
    samples = np.concatenate([pause, 0.2 * voice, pause])
    samples += 1e-4 * np.random.default_rng(int(hz)).normal(size=len(samples))
    return Audio(samples.astype(np.float32), RATE, native_rate_hz, 1, len(samples) / RATE, name)


A, B, C = recording("a.wav", hz=110), recording("b.wav", hz=118), recording("c.wav", hz=300)


@pytest.fixture(scope="module")
def raw(model_path: Path) -> Callable[[Audio], np.ndarray]:
    """Embeddings straight from onnxruntime."""
    session = onnxruntime.InferenceSession(model_path)

    def embed(audio: Audio) -> np.ndarray:
        feed = {"waveform": audio.samples[None], "lengths": np.array([len(audio.samples)])}
        return np.asarray(session.run(None, feed)[0][0], np.float64)

    return embed


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b))


def changed(tmp_path: Path, **changes: object) -> SpeakerEmbedder:
    path = tmp_path / "changed.onnx"
    path.write_bytes(tiny_model.model_file(**changes))
    return SpeakerEmbedder.load(path)


def test_score_is_the_cosine(embedder: SpeakerEmbedder, raw: Callable[[Audio], np.ndarray]) -> None:
    for one, other in ((A, B), (A, C), (B, C)):
        decision = Verifier(embedder).compare(one, other)
        assert decision.score == pytest.approx(cosine(raw(one), raw(other)), abs=1e-6)
        assert decision.score == pytest.approx(Verifier(embedder).compare(other, one).score, abs=1e-12)


def test_mean_is_subtracted_before_scoring(tmp_path: Path, raw: Callable[[Audio], np.ndarray]) -> None:
    mean = (raw(A) + raw(C)) / 2 + 0.1
    decision = Verifier(changed(tmp_path, mean=tuple(map(float, mean)))).compare(A, B)
    assert decision.score == pytest.approx(cosine(raw(A) - mean, raw(B) - mean), abs=1e-5)


def test_enrolment_is_the_mean_of_normalised_embeddings(
    embedder: SpeakerEmbedder, raw: Callable[[Audio], np.ndarray]
) -> None:
    voices = [raw(each) / np.sqrt(raw(each) @ raw(each)) for each in (A, C)]
    decision = Verifier(embedder).compare([A, C], B)
    assert decision.score == pytest.approx(cosine(voices[0] + voices[1], raw(B)), abs=1e-6)
    assert [(heard.name, heard.role) for heard in decision.recordings] == [
        ("a.wav", "enrolment"),
        ("c.wav", "enrolment"),
        ("b.wav", "test"),
    ]


def test_threshold_decides_and_belongs_to_acceptance(embedder: SpeakerEmbedder) -> None:
    score = Verifier(embedder, threshold=0.0).compare(A, B).score
    assert score is not None
    assert 0.5 < score < 1
    assert Verifier(embedder, threshold=score).compare(A, B).decision == "accept"
    assert Verifier(embedder, threshold=np.nextafter(score, 2)).compare(A, B).decision == "reject"
    assert Verifier(embedder, threshold=score - 0.01).compare(A, B).decision == "accept"


def test_operating_points_come_from_the_contract(embedder: SpeakerEmbedder) -> None:
    default = Verifier(embedder).compare(A, B)
    assert (default.operating_point, default.threshold) == ("eer", 0.9)
    assert (default.false_accept_rate, default.false_reject_rate) == (0.02, 0.03)
    strict = Verifier(embedder, operating_point="strict").compare(A, B)
    assert (strict.operating_point, strict.threshold, strict.false_accept_rate) == ("strict", 0.97, 0.001)
    own = Verifier(embedder, threshold=0.4).compare(A, B)
    assert (own.operating_point, own.threshold, own.false_accept_rate, own.source) == (None, 0.4, None, None)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), 1.5, -2.0])
def test_thresholds_no_cosine_can_meet(embedder: SpeakerEmbedder, threshold: float) -> None:
    with pytest.raises(ParvoxError, match="-1 to 1"):
        Verifier(embedder, threshold=threshold)


def test_unknown_operating_point(embedder: SpeakerEmbedder) -> None:
    with pytest.raises(ModelFileError, match="did you mean 'strict'"):
        Verifier(embedder, operating_point="strickt")
    with pytest.raises(ParvoxError, match="exclude"):
        Verifier(embedder, operating_point="eer", threshold=0.5)


def test_model_without_thresholds(tmp_path: Path) -> None:
    embedder = changed(tmp_path, thresholds={}, default_threshold=None)
    with pytest.raises(ModelFileError, match="--threshold"):
        Verifier(embedder)
    with pytest.raises(ModelFileError, match="it has none"):
        Verifier(embedder, operating_point="eer")
    assert Verifier(embedder, threshold=0.5).compare(A, B).decision == "accept"


def test_speech_seconds(embedder: SpeakerEmbedder) -> None:
    decision = Verifier(embedder).compare(recording("one", 1.0), recording("three", 3.0, 140))
    assert [heard.speech_s for heard in decision.recordings] == pytest.approx([1.0, 3.0], abs=0.15)
    assert [heard.duration_s for heard in decision.recordings] == [2.0, 4.0]
    assert decision.reasons == ()


def test_little_speech_is_said(embedder: SpeakerEmbedder) -> None:
    decision = Verifier(embedder).compare(A, recording("short.wav", 0.35))
    assert decision.decision in ("accept", "reject")
    (reason,) = decision.reasons
    assert "s of speech in short.wav: less than the 0.5 s this decision should rest on" in reason


def test_several_short_enrolments_make_a_long_one(embedder: SpeakerEmbedder) -> None:
    short = [recording(f"{hz}.wav", 0.3, hz) for hz in (110, 111, 112)]
    assert any("110.wav" in reason for reason in Verifier(embedder, threshold=-1).compare(short[:1], B).reasons)
    assert Verifier(embedder, threshold=-1).compare(short, B).reasons == ()


def steady(name: str) -> Audio:
    samples = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    return Audio(samples, RATE, RATE, 1, 1.0, name)


@pytest.mark.parametrize("place", ["enrolment", "test"])
def test_no_decision_without_speech(embedder: SpeakerEmbedder, place: str) -> None:
    hiss = steady("hiss.wav")
    pair = ([A, hiss], B) if place == "enrolment" else ([A], hiss)
    decision = Verifier(embedder, threshold=-1).compare(*pair)
    assert decision.decision == "refuse"
    assert decision.score is None
    (reason,) = decision.reasons
    assert reason == "only 0 s of speech in hiss.wav: less than the 0.2 s needed for any decision"


def test_other_limits_of_speech(embedder: SpeakerEmbedder) -> None:
    assert Verifier(embedder, min_speech_s=2.5).compare(A, B).decision == "refuse"
    assert "the 2.5 s" in Verifier(embedder, advised_speech_s=2.5).compare(A, B).reasons[0]


def test_narrow_band_is_said(embedder: SpeakerEmbedder) -> None:
    phone = recording("phone.wav", hz=115, native_rate_hz=8000)
    (reason,) = Verifier(embedder).compare(A, phone).reasons
    assert "phone.wav was recorded at 8000 Hz" in reason


def test_the_same_recording_twice_is_said(embedder: SpeakerEmbedder) -> None:
    decision = Verifier(embedder).compare(A, dataclasses.replace(A, name="copy.wav"))
    assert decision.score == pytest.approx(1.0)
    assert decision.reasons == ("a.wav and copy.wav hold the same samples: that says nothing of the voice",)


def test_enrolments_of_two_voices_are_said(embedder: SpeakerEmbedder) -> None:
    verifier = Verifier(embedder, threshold=0.95)
    near = verifier.compare([A, recording("a2.wav", hz=112)], B)
    far = verifier.compare([A, recording("a2.wav", hz=112), C], B)
    assert near.reasons == ()
    assert any("c.wav scores" in reason and "same person" in reason for reason in far.reasons)


def test_synthetic_models_are_said(tmp_path: Path) -> None:
    decision = Verifier(changed(tmp_path, synthetic=True)).compare(A, B)
    assert decision.synthetic
    assert "synthetic" in decision.reasons[-1]


def test_no_enrolment(embedder: SpeakerEmbedder) -> None:
    with pytest.raises(ParvoxError, match="no enrolment"):
        Verifier(embedder).compare([], A)


def test_a_recording_too_short_for_the_model_is_named(tmp_path: Path) -> None:
    embedder = changed(tmp_path, min_samples=RATE)
    with pytest.raises(AudioError, match=r"short\.wav"):
        Verifier(embedder).compare(A, dataclasses.replace(A, samples=A.samples[8000:16000], name="short.wav"))


def test_files_of_other_formats_and_rates_give_nearly_the_same(
    model_path: Path, tmp_path: Path, embedder: SpeakerEmbedder
) -> None:
    import soundfile
    import soxr

    wanted = Verifier(embedder).compare(A, B).score
    soundfile.write(tmp_path / "a.wav", A.samples, RATE)
    up = soxr.resample(B.samples, RATE, 44100, quality="VHQ")
    for kind in ("flac", "wav", "ogg", "mp3"):
        soundfile.write(tmp_path / f"b.{kind}", np.stack([up, up], 1), 44100)
        decision = verify_files(model_path, [tmp_path / "a.wav"], tmp_path / f"b.{kind}")
        assert decision.score == pytest.approx(wanted, abs=1e-3 if kind in ("flac", "wav") else 0.05)
        assert decision.reasons == ()


def test_real_voices(real_corpus: Path, embedder: SpeakerEmbedder) -> None:
    """Even the tiny model ranks one speaker's sentences above other speakers' on most trials."""
    verifier = Verifier(embedder)
    folders = [folder for folder in sorted((real_corpus / "read-speech").iterdir()) if folder.is_dir()]
    pairs = [sorted(folder.glob("*.flac"))[:2] for folder in folders if len(list(folder.glob("*.flac"))) > 1][:16]
    assert len(pairs) == 16
    audio = [[read_audio(path) for path in pair] for pair in pairs]
    scores = np.array([[verifier.compare(one[0], other[1]).score for other in audio] for one in audio], float)
    target = np.diag(scores)
    other = scores[~np.eye(len(scores), dtype=bool)]
    assert np.mean(target[:, None] > other[None]) > 0.7
