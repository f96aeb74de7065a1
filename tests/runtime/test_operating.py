"""Scores as evidence, and which threshold a length of speech meets."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import tiny_model
from hypothesis import given
from hypothesis import strategies as st
from test_verify import A, B, recording

from parvox.cli.main import main
from parvox.errors import ModelFileError
from parvox.runtime.embedder import SpeakerEmbedder
from parvox.runtime.operating import DurationBand, LlrMap, OperatingPoint
from parvox.runtime.verify import Verifier

POINT = OperatingPoint(0.9, 0.02, 0.03, 120, 3400, "made-up trials of a test", (0.85, 0.93))
SHORT = dataclasses.replace(POINT, threshold=0.6, source="short ones")
BANDS = (
    DurationBand(0.0, 1.0, 9, 40, 400, {"eer": SHORT}, {}),
    DurationBand(1.0, 2.0, 9, 40, 400, {"eer": POINT}, {}),
    DurationBand(2.0, None, 2, 3, 4, {}, {"eer": "Unknown: 3 target and 4 impostor trials of 2 speakers."}),
)
MAP = LlrMap(
    {"score": 10.0, "log_shorter_s": 2.0, "log_longer_s": -1.0},
    -4.0,
    {"log_shorter_s": (math.log(0.5), math.log(4)), "log_longer_s": (math.log(1), math.log(8))},
    (-3.0, 5.0),
    "made-up trials",
)


@pytest.fixture
def embedder(tmp_path: Path) -> SpeakerEmbedder:
    (tmp_path / "m.onnx").write_bytes(
        tiny_model.model_file(
            thresholds={"eer": dataclasses.replace(POINT, threshold=0.7)},
            unsupported={"far_0.1pct": "Unknown: 780 pairs can speak of no rate below 0.38 %."},
            bands=BANDS,
            calibration=MAP,
        )
    )
    return SpeakerEmbedder.load(tmp_path / "m.onnx")


def test_a_ratio_by_hand() -> None:
    assert MAP.evidence(0.5, 2.0, 1.0).llr == pytest.approx(10 * 0.5 + 2 * math.log(1) - math.log(2) - 4)
    assert MAP.evidence(0.5, 1.0, 2.0) == MAP.evidence(0.5, 2.0, 1.0)
    assert MAP.evidence(0.5, 2.0, 1.0).note == ""


def test_what_was_never_seen_is_not_extrapolated() -> None:
    known = MAP.evidence(0.5, 0.5, 8.0)
    beyond = MAP.evidence(0.5, 0.1, 60.0)
    assert beyond.llr == known.llr
    assert "fitted on 0.5 to 4 s of speech on that side, asked about 0.1 s" in beyond.note
    assert "asked about 60 s" in beyond.note


@given(st.floats(-1, 1), st.floats(0.01, 300), st.floats(0.01, 300))
def test_no_more_is_claimed_than_the_speakers_show(score: float, enrol_s: float, test_s: float) -> None:
    found = MAP.evidence(score, enrol_s, test_s)
    assert -3 <= found.llr <= 5
    assert ("not claimed" in found.note) == (found.llr in (-3, 5))


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": {"log_shorter_s": 1.0}},
        {"weights": {"score": 1.0, "cohort": 1.0}, "ranges": {"cohort": (0, 1)}},
        {"weights": {"score": 1.0, "log_shorter_s": 1.0}, "ranges": {}},
    ],
)
def test_maps_that_cannot_be(changes: dict) -> None:
    with pytest.raises(ModelFileError, match="contract: calibration with weights for"):
        dataclasses.replace(MAP, **changes)


def test_the_shorter_side_chooses_the_threshold(embedder: SpeakerEmbedder) -> None:
    verifier = Verifier(embedder)
    for sides, threshold, band in (
        ((0.4, 30.0), 0.6, "less than 1 s"),
        ((1.0, 1.0), 0.9, "1 to 2 s"),
        ((30.0, 1.99), 0.9, "1 to 2 s"),
    ):
        bar = verifier.bar(*sides)
        assert bar.threshold == threshold
        assert bar.band is not None
        assert bar.band.words == band
        assert bar.caution == ""


def test_a_band_without_support_takes_the_threshold_of_all_and_says_so(embedder: SpeakerEmbedder) -> None:
    bar = Verifier(embedder).bar(2.0, 5.0)
    assert (bar.threshold, bar.band) == (0.7, None)
    assert "2 s and more of speech (3 target and 4 impostor trials of 2 speakers)" in bar.caution
    decision = Verifier(embedder).compare(recording("long.wav", 3.0), recording("longer.wav", 4.0))
    assert decision.reasons[0] == bar.caution


def test_decisions_say_band_ratio_and_reason(embedder: SpeakerEmbedder) -> None:
    decision = Verifier(embedder).compare(A, recording("short.wav", 0.7, hz=118))
    assert (decision.threshold, decision.band) == (0.6, "less than 1 s")
    assert decision.threshold_interval == (0.85, 0.93)
    assert decision.source == "short ones"
    assert decision.score is not None
    seconds = [heard.speech_s for heard in decision.recordings]
    assert decision.llr == MAP.evidence(decision.score, *seconds).llr
    assert decision.reason == (
        f"the score {decision.score:.4f} is at or above the threshold 0.6000 for less than 1 s of speech"
    )
    own = Verifier(embedder, threshold=0.99).compare(A, B)
    assert (own.threshold, own.band, own.operating_point) == (0.99, None, None)
    assert own.llr is not None


def test_what_the_data_could_not_support_is_refused_with_the_reason(embedder: SpeakerEmbedder) -> None:
    with pytest.raises(ModelFileError, match=r"no threshold far_0\.1pct\. Unknown: 780 pairs can speak of no rate"):
        Verifier(embedder, operating_point="far_0.1pct")


def test_info_and_verify_show_them(
    embedder: SpeakerEmbedder, tmp_path: Path, make_wav: object, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", embedder.name]) == 0
    shown = capfd.readouterr().out
    assert "1 to 2 s of speech" in shown
    assert "0.9000 [0.8500, 0.9300]" in shown
    assert "far_0.1pct" in shown
    assert "can speak of no rate below 0.38 %" in shown
    assert "log-likelihood ratio" in shown
    path = tmp_path / "v.wav"
    make_wav(path, seconds=2.0, kind="voice", seed=1)  # type: ignore[operator]
    main(["verify", embedder.name, str(path), str(path)])
    shown = capfd.readouterr().out
    assert "evidence   log-likelihood ratio +" in shown
    assert "times likelier from one voice than from two" in shown


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": -5.0},
        {"threshold": 1e308},
        {"false_accept_rate": 7.0},
        {"false_reject_rate": -3.0},
        {"false_accept_interval": (0.1, 1.5)},
        {"target_trials": -4},
        {"interval": (0.9, 0.1)},
    ],
)
def test_operating_points_that_cannot_be(changes: dict) -> None:
    with pytest.raises(ModelFileError, match="contract: "):
        dataclasses.replace(POINT, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": 1e308},
        {"weights": {"score": 1e300}, "ranges": {}},
        {"limits": (-1e9, 1e9)},
        {"ranges": {"log_shorter_s": (1e308, 1e308), "log_longer_s": (0, 1)}},
    ],
)
def test_maps_beyond_all_measure_are_refused(changes: dict) -> None:
    with pytest.raises(ModelFileError, match="contract: calibration with"):
        dataclasses.replace(MAP, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mean": (1e308,) * (2 * tiny_model.BANDS)}, "numbers beyond 1e"),
        ({"name": "x\nscore      1.0000\x1b[31m"}, "without control characters"),
        ({"sample_rate_hz": 10**9}, "1000 to 192000 is expected"),
    ],
)
def test_contracts_that_would_mislead_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        tiny_model.model_file(**changes)
