"""Is this the same voice? A score, a threshold, a decision, and what it rests on."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from parvox.audio import Audio, read_audio
from parvox.errors import ModelFileError, ParvoxError, nearest
from parvox.runtime.embedder import SpeakerEmbedder
from parvox.runtime.operating import DurationBand, OperatingPoint
from parvox.runtime.speech import find_speech

MIN_SPEECH_S = 0.2
ADVISED_SPEECH_S = 0.5
MAX_DURATION_S = 300.0


@dataclass(frozen=True)
class Heard:
    """A recording a decision rests on.

    Attributes:
        name: Its path, or what the caller calls it.
        role: Whose voice: the enrolled one, or the one to test.
        duration_s: How long it is.
        speech_s: How much of it is speech, by energy.
    """

    name: str
    role: Literal["enrolment", "test"]
    duration_s: float
    speech_s: float


@dataclass(frozen=True)
class Decision:
    """The answer to one comparison.

    Attributes:
        decision: "accept" (same voice), "reject", or "refuse" where there is too little speech for either.
        score: Cosine similarity, -1 to 1; None if refused.
        llr: The same as a log-likelihood ratio (natural logarithm), above zero where one voice is likelier than two;
            None if refused, or if the model file has no calibration.
        threshold: Scores at or above it are accepted.
        operating_point: The threshold's name in the model file; None for a threshold of the caller's.
        band: The lengths of speech that the threshold was measured on, such as "1 to 2 s"; None for all lengths.
        threshold_interval: Where the threshold would lie with other speakers (95 %); None if unknown.
        false_accept_rate: Share of non-target trials accepted where the threshold was measured; None if unknown.
        false_reject_rate: Share of target trials rejected there; None if unknown.
        source: The trials the rates were measured on, in words; None if unknown.
        recordings: What was heard, enrolment first.
        reason: Why this decision, in one sentence.
        reasons: What a refusal rests on, or why a decision should be taken with care; empty if there is nothing to say.
        model: Name of the model.
        precision: "fp32" or "int8".
        fingerprint: Of the model's weights.
        synthetic: Whether the model learned from synthetic voices only.
    """

    decision: Literal["accept", "reject", "refuse"]
    score: float | None
    llr: float | None
    threshold: float
    operating_point: str | None
    band: str | None
    threshold_interval: tuple[float, float] | None
    false_accept_rate: float | None
    false_reject_rate: float | None
    source: str | None
    recordings: tuple[Heard, ...]
    reason: str
    reasons: tuple[str, ...]
    model: str
    precision: str
    fingerprint: str
    synthetic: bool

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Bar:
    """What a score is held against.

    Attributes:
        threshold: Scores at or above it are accepted.
        point: Where it was measured; None for a threshold of the caller's.
        band: The lengths of speech it was measured on; None for all lengths.
        caution: What to mind of it; empty if nothing.
    """

    threshold: float
    point: OperatingPoint | None = None
    band: DurationBand | None = None
    caution: str = ""


class Verifier:
    """Compares voices with one model at one operating point.

    The score is the cosine between the test embedding and the mean of the length-normalised enrolment embeddings,
    after subtraction of the contract's embedding mean where it has one. Recordings are embedded whole; seconds of
    speech choose the threshold, where the model file has thresholds by length, and say what a decision rests on.

    Args:
        embedder: The model.
        operating_point: One of the model's thresholds; its default one unless given.
        threshold: A threshold of your own instead.
        min_speech_s: Recordings with less speech get no decision.
        advised_speech_s: Decisions that rest on less speech say so.

    Raises:
        ParvoxError: there is no such operating point, no threshold at all, or one too many.
    """

    def __init__(
        self,
        embedder: SpeakerEmbedder,
        *,
        operating_point: str | None = None,
        threshold: float | None = None,
        min_speech_s: float = MIN_SPEECH_S,
        advised_speech_s: float = ADVISED_SPEECH_S,
    ) -> None:
        contract = embedder.contract
        if threshold is not None and operating_point is not None:
            raise ParvoxError("a threshold and an operating point given: they exclude each other, give one")
        if threshold is not None and not (math.isfinite(threshold) and -1 <= threshold <= 1):
            raise ParvoxError(f"threshold {threshold} given: scores are cosines, -1 to 1 is expected")
        name = contract.default_threshold if operating_point is None and threshold is None else operating_point
        if name is not None and name not in contract.thresholds:
            known = nearest(name, contract.thresholds) if contract.thresholds else "it has none"
            if name in contract.unsupported:
                raise ModelFileError(f"{embedder.name}: no threshold {name}. {contract.unsupported[name]}")
            raise ModelFileError(f"{embedder.name}: unknown operating point {name!r}: {known}")
        if name is None and threshold is None:
            raise ModelFileError(
                f"{embedder.name}: no threshold in this model file: give one with --threshold, or have parvox "
                "calibrate choose some on recordings of known speakers"
            )
        self.embedder = embedder
        self.operating_point = name
        self._point = None if name is None else contract.thresholds[name]
        self.threshold = float(threshold) if self._point is None else self._point.threshold  # type: ignore[arg-type]
        self.min_speech_s = min_speech_s
        self.advised_speech_s = max(advised_speech_s, min_speech_s)

    def bar(self, enrol_s: float, test_s: float) -> Bar:
        """The threshold for so much speech: that of the shorter side's band, else that of all lengths.

        Args:
            enrol_s: Seconds of net speech of all enrolment recordings together.
            test_s: Seconds of net speech of the recording to test.
        """
        if self._point is None or self.operating_point is None:
            return Bar(self.threshold)
        shorter_s = min(enrol_s, test_s)
        band = next((each for each in self.embedder.contract.bands if each.holds(shorter_s)), None)
        if band is None:
            return Bar(self.threshold, self._point)
        if self.operating_point in band.thresholds:
            point = band.thresholds[self.operating_point]
            return Bar(point.threshold, point, band)
        why = band.unsupported.get(self.operating_point, "None was measured.").removeprefix("Unknown: ")
        caution = (
            f"no threshold {self.operating_point} of its own for {band.words} of speech ({why.rstrip('.')}): the one "
            "for all lengths is used, and its error rates may not hold here"
        )
        return Bar(self.threshold, self._point, None, caution)

    def normalised(self, recordings: Sequence[Audio]) -> NDArray[np.float64]:
        """(recordings, embedding_dim): embeddings less the contract's mean, scaled to length 1."""
        waveforms = [audio.samples for audio in recordings]
        embeddings = self.embedder.embed_batch(waveforms, [audio.name for audio in recordings]).astype(np.float64)
        if self.embedder.contract.mean is not None:
            embeddings -= np.asarray(self.embedder.contract.mean)
        return _unit(embeddings)

    def compare(self, enrolment: Audio | Sequence[Audio], test: Audio) -> Decision:
        """Decide whether `test` is the voice of `enrolment`.

        Args:
            enrolment: One or more recordings of the enrolled voice, at the contract's rate.
            test: The recording in question, at the contract's rate.

        Raises:
            AudioError: a recording is too short for the model.
        """
        enrolled = [enrolment] if isinstance(enrolment, Audio) else list(enrolment)
        if not enrolled:
            raise ParvoxError("no enrolment recording given: one or more is expected")
        for one, other in itertools.combinations(enrolled, 2):
            if np.array_equal(one.samples, other.samples):
                raise ParvoxError(
                    f"{one.name} and {other.name} given to enrol hold the same samples; each recording counts once: "
                    "leave one out"
                )
        heard = (*(_heard(audio, "enrolment") for audio in enrolled), _heard(test, "test"))
        nothing = [
            f"only {_shortly(each.speech_s)} s of speech in {each.name}: less than the {self.min_speech_s:g} s needed "
            "for any decision"
            for each in heard
            if each.speech_s < self.min_speech_s
        ]
        enrol_s, test_s = sum(each.speech_s for each in heard[:-1]), heard[-1].speech_s
        bar = self.bar(enrol_s, test_s)
        if nothing:
            return self._decision("refuse", bar, heard, "there is too little speech to decide", nothing)
        voices = self.normalised([*enrolled, test])
        score = float(np.clip(_unit(voices[:-1].mean(0)) @ voices[-1], -1, 1))
        reasons = self._cautions(enrolled, test, heard, voices[:-1], bar)
        llr, calibration = None, self.embedder.contract.calibration
        if calibration is not None:
            evidence = calibration.evidence(score, enrol_s, test_s)
            llr = evidence.llr
            reasons += [f"log-likelihood ratio: {evidence.note}"] if evidence.note else []
        accepted = score >= bar.threshold
        why = f"the score {score:.4f} is {'at or above' if accepted else 'below'} the threshold {bar.threshold:.4f}" + (
            f" for {bar.band.words} of speech" if bar.band else ""
        )
        return self._decision("accept" if accepted else "reject", bar, heard, why, reasons, score, llr)

    def _cautions(
        self, enrolled: list[Audio], test: Audio, heard: tuple[Heard, ...], voices: NDArray[np.float64], bar: Bar
    ) -> list[str]:
        reasons = [bar.caution] if bar.caution else []
        enrolled_s = sum(each.speech_s for each in heard[:-1])
        where = enrolled[0].name if len(enrolled) == 1 else f"the {len(enrolled)} enrolment recordings"
        for seconds, name in ((enrolled_s, where), (heard[-1].speech_s, test.name)):
            if seconds < self.advised_speech_s:
                reasons.append(
                    f"only {_shortly(seconds)} s of speech in {name}: less than the {self.advised_speech_s:g} s this "
                    "decision should rest on"
                )
        rate_hz = self.embedder.contract.sample_rate_hz
        for audio in {audio.name: audio for audio in (*enrolled, test)}.values():
            if audio.native_rate_hz < rate_hz:
                reasons.append(
                    f"{audio.name} was recorded at {audio.native_rate_hz} Hz and the model listens at {rate_hz} Hz: "
                    "narrow-band speech scores otherwise than the threshold expects"
                )
        for audio in enrolled:
            if np.array_equal(audio.samples, test.samples):
                reasons.append(f"{audio.name} and {test.name} hold the same samples: that says nothing of the voice")
        for index, audio in enumerate(enrolled if len(enrolled) > 1 else []):
            others = float(_unit(np.delete(voices, index, 0).mean(0)) @ voices[index])
            rest_s = sum(each.speech_s for each in heard[:-1]) - heard[index].speech_s
            if others < self.bar(rest_s, heard[index].speech_s).threshold:
                reasons.append(
                    f"{audio.name} scores {others:.2f} against the other enrolment recordings, below the threshold: "
                    "is it the same person?"
                )
        if self.embedder.contract.synthetic:
            reasons.append("the model learned from synthetic voices only: do not rely on it for real ones")
        return reasons

    def _decision(
        self,
        decision: Literal["accept", "reject", "refuse"],
        bar: Bar,
        heard: tuple[Heard, ...],
        reason: str,
        reasons: Sequence[str],
        score: float | None = None,
        llr: float | None = None,
    ) -> Decision:
        point, contract = bar.point, self.embedder.contract
        return Decision(
            decision=decision,
            score=score,
            llr=llr,
            threshold=bar.threshold,
            operating_point=self.operating_point,
            band=bar.band.words if bar.band else None,
            threshold_interval=point.interval if point else None,
            false_accept_rate=point.false_accept_rate if point else None,
            false_reject_rate=point.false_reject_rate if point else None,
            source=point.source if point else None,
            recordings=heard,
            reason=reason,
            reasons=tuple(reasons),
            model=contract.name,
            precision=contract.precision,
            fingerprint=contract.fingerprint,
            synthetic=contract.synthetic,
        )


def _shortly(seconds: float) -> str:
    """Rounded down, so that what is less than a limit also looks so."""
    return f"{math.floor(100 * seconds) / 100:g}"


def verify_files(
    model: str | os.PathLike[str],
    enrolment: Sequence[str | os.PathLike[str]],
    test: str | os.PathLike[str],
    *,
    operating_point: str | None = None,
    threshold: float | None = None,
    max_duration_s: float = MAX_DURATION_S,
    cut: bool = False,
    threads: int = 1,
) -> Decision:
    """Compare recordings on disk.

    Args:
        model: A model file.
        enrolment: One or more recordings of the enrolled voice.
        test: The recording in question.
        operating_point: One of the model's thresholds; its default one unless given.
        threshold: A threshold of your own instead.
        max_duration_s: The longest recording allowed.
        cut: Use the beginning of longer recordings instead of refusing them.
        threads: Threads to compute with.

    Raises:
        ParvoxError: the model file, a recording or the threshold cannot be used; the message says why.
    """
    verifier = Verifier(SpeakerEmbedder.load(model, threads), operating_point=operating_point, threshold=threshold)
    *enrolled, tested = [
        read_recording(verifier.embedder, path, max_duration_s=max_duration_s, cut=cut)
        for path in (*map(Path, enrolment), Path(test))
    ]
    return verifier.compare(enrolled, tested)


def read_recording(embedder: SpeakerEmbedder, path: Path, *, max_duration_s: float, cut: bool) -> Audio:
    """Read a recording for a model: at its rate, long enough for it, and long enough to hold `MIN_SPEECH_S`.

    Raises:
        AudioError: it cannot be used.
    """
    contract = embedder.contract
    if not max_duration_s > 0:
        raise ParvoxError(f"max_duration_s {max_duration_s} given: more than 0 s is expected")
    return read_audio(
        path,
        contract.sample_rate_hz,
        max_duration_s=max_duration_s,
        min_duration_s=max(MIN_SPEECH_S, contract.min_samples / contract.sample_rate_hz),
        cut=cut,
    )


def _heard(audio: Audio, role: Literal["enrolment", "test"]) -> Heard:
    return Heard(audio.name, role, audio.duration_s, find_speech(audio.samples, audio.sample_rate_hz).seconds)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    units: NDArray[np.float64] = vectors / np.maximum(norms, 1e-12)
    return units
