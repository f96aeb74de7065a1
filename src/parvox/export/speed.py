"""How long a model file takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from parvox.export.session import embed, open_session
from parvox.runtime.model_file import read_model_file

_MOST_RUNS = 200


def milliseconds(path: Path, seconds: float = 3.0, threads: int = 1) -> float:
    """Milliseconds from waveform to embedding, features included: the median over at least half a second of runs.

    Args:
        path: A model file.
        seconds: Length of the waveform, noise at the level of speech.
        threads: Threads of the session; 1 is one core.

    Raises:
        ModelFileError: it is not a model file.
    """
    data, contract = read_model_file(path)
    return session_milliseconds(data, round(seconds * contract.sample_rate_hz), threads=threads)


def session_milliseconds(data: bytes, samples: int, *, threads: int = 1, least_s: float = 0.5) -> float:
    """The same for the bytes of an ONNX model and a waveform of so many samples.

    Args:
        data: A serialised model.
        samples: Length of the waveform.
        threads: Threads of the session.
        least_s: Keep running for so long; the first run, which allocates, does not count.
    """
    session = open_session(data, threads=threads)
    waveform = (0.1 * np.random.default_rng(0).standard_normal(samples)).astype(np.float32)
    return repeated_milliseconds(lambda: embed(session, [waveform]), least_s=least_s)


def repeated_milliseconds(work: Callable[[], object], *, least_s: float = 0.5) -> float:
    """Median milliseconds of doing something again and again.

    Args:
        work: What to do.
        least_s: For how long; the first time, which allocates, does not count, and five more are the least.
    """
    work()
    times: list[float] = []
    end = time.perf_counter() + least_s
    while len(times) < 5 or (time.perf_counter() < end and len(times) < _MOST_RUNS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times) * 1e3)
