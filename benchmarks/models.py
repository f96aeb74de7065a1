"""What every model costs, beside other toolkits' networks measured in the same run.

    python benchmarks/models.py [--only bc_cmt resnet34] [--peers wespeaker=CHECKOUT 3dspeaker=CHECKOUT]

Parameters; multiply-accumulates for 1 s; milliseconds from a waveform of 1, 3 and 10 s to its embedding, features
included, on one core, in PyTorch and as exported, fp32 and int8; training utterances of 1 s a second, on all cores, in
fp32 and bf16. Weights are random: they change neither. Networks of other toolkits stand behind Parvox's front end and
go through its exporter.

Writes benchmarks/results/models.csv after each model and goes on where it stopped. Keep the machine quiet.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from parvox.cli.parsing import call
from parvox.errors import ParvoxError
from parvox.evaluation.environment import environment
from parvox.export.compact import compact_bands, compact_frontend, strip
from parvox.export.int8 import Quantiser
from parvox.export.onnx_graph import to_onnx
from parvox.export.speed import repeated_milliseconds, session_milliseconds
from parvox.losses.margin import AamSoftmaxSettings
from parvox.models import SpeakerModel
from parvox.models.catalogue import configurations
from parvox.models.cost import cost
from parvox.models.frontend import FbankSettings
from parvox.training.engine import keep_large_blocks
from parvox.training.module import make_optimizer
from peers import peers as peer_networks
from rows import Rows, markdown

RESULTS = Path(__file__).parent / "results" / "models.csv"
SECONDS = (1, 3, 10)
OURS = "parvox"
RATE_HZ = 16_000
BATCH, CROP_S, SPEAKERS = 64, 1.0, 1000


def benchmark(
    *,
    only: list[str] | None = None,
    peers: list[str] | None = None,
    largest_gmacs: float = 5.0,
    again: bool = False,
    out: Path = RESULTS,
) -> None:
    """Measure models and print the table.

    Args:
        only: Names of models, as parvox models lists them; all unless given.
        peers: Checkouts of other toolkits, as TOOLKIT=PATH.
        largest_gmacs: Models of more billions of multiply-accumulates for 1 s are left out.
        again: Measure those that are in the file already as well.
        out: CSV file to write.
    """
    subjects = [(OURS, name, _builder(made.settings())) for name, made in configurations()]
    subjects += list(peer_networks(peers or []))
    unknown = set(only or []) - {name for _, name, _ in subjects}
    if unknown:
        raise ParvoxError(f"--only: unknown {', '.join(sorted(unknown))}; parvox models lists what there is")
    rows = Rows(out, ("toolkit", "model"))
    chosen = [subject for subject in subjects if not only or subject[1] in only]
    for toolkit, name, build in tqdm(chosen, desc="models", disable=not sys.stderr.isatty()):
        if again or rows.find(toolkit=toolkit, model=name) is None:
            row = measure(build, largest_gmacs * 1e9)
            if row:
                versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
                rows.put({"toolkit": toolkit, "model": name, **row, **environment(), **versions})
                print(f"{toolkit} {name}: done", file=sys.stderr, flush=True)
    print(table(rows))


def measure(build: Callable[[], SpeakerModel], most_macs: float) -> dict[str, Any]:
    """All figures of one model; nothing if it is too big. What fails is left empty, and said in `note`."""
    torch.manual_seed(1)
    model = build().eval()
    costs = cost(model)
    if costs.macs > most_macs:
        return {}
    row: dict[str, Any] = {
        "parameters": costs.parameters,
        "macs_1s": costs.macs,
        "feature_macs_1s": costs.feature_macs,
        "embedding_dim": model.settings.embedding_dim,
    }
    graph: list[onnx.ModelProto] = []

    def fp32() -> dict[str, float]:
        graph.append(to_onnx(model))
        return fp32_speed(graph[0], model.settings.features)

    parts: dict[str, Callable[[], dict[str, float]]] = {
        "PyTorch": lambda: pytorch_speed(model),
        "export": fp32,
        "int8": lambda: int8_speed(graph[0], model.settings.features) if graph else {},
        "training": lambda: training_speed(model),
    }
    notes = []
    for part, work in parts.items():
        try:
            row |= work()
        except (ParvoxError, RuntimeError, ValueError) as error:
            notes.append(f"{part}: {' '.join(str(error).split())[:160]}")
    return row | {"note": "; ".join(notes)}


def pytorch_speed(model: SpeakerModel) -> dict[str, float]:
    """Milliseconds in PyTorch, on one core."""
    ready = model.for_inference()
    found = {}
    with one_core(), torch.inference_mode():
        for seconds in SECONDS:
            waveform = torch.from_numpy(_noise(1, seconds))
            found[f"pytorch_ms_{seconds}s"] = round(repeated_milliseconds(lambda w=waveform: ready(w)), 3)  # type: ignore[misc]
    return found


def fp32_speed(graph: onnx.ModelProto, features: FbankSettings) -> dict[str, float]:
    """Size of the exported file, and milliseconds on one core."""
    copied = onnx.load_model_from_string(graph.SerializeToString())
    return _file_speed("fp32", strip(compact_bands(compact_frontend(copied, features))).SerializeToString())


def int8_speed(graph: onnx.ModelProto, features: FbankSettings) -> dict[str, float]:
    """The same in int8."""
    clips = [_noise(1, 2, seed)[0] for seed in range(12)]
    quantiser = Quantiser(graph, features, clips[:8], clips[8:])
    return _file_speed("int8", quantiser.best("minmax").graph.SerializeToString())


def _file_speed(precision: str, data: bytes) -> dict[str, float]:
    found: dict[str, float] = {f"{precision}_bytes": len(data)}
    with one_core():
        for seconds in SECONDS:
            found[f"{precision}_ms_{seconds}s"] = round(session_milliseconds(data, seconds * RATE_HZ), 3)
    return found


def training_speed(model: SpeakerModel) -> dict[str, float]:
    """Utterances a second: features, both passes and the optimiser's step, a batch of crops at a time."""
    keep_large_blocks()
    waveforms = torch.from_numpy(_noise(BATCH, CROP_S))
    labels = torch.arange(BATCH) % SPEAKERS
    classifier = AamSoftmaxSettings().build(model.settings.embedding_dim, SPEAKERS)
    whole = nn.ModuleList([model, classifier]).train()
    optimizer = make_optimizer(whole, "adamw", 1e-3, 1e-4)
    found = {}
    for precision in ("fp32", "bf16"):

        def step(bf16: bool = precision == "bf16") -> None:
            with torch.no_grad():
                features, _ = model.extract_features(waveforms)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = classifier(model.embed_features(features).embedding, labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        found[f"train_{precision}_per_s"] = round(1000 * BATCH / repeated_milliseconds(step, least_s=4.0), 1)
    return found


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """One thread on one core, and afterwards as many as before."""
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)


def table(rows: Rows) -> str:
    """The figures, for a page."""
    lengths = " / ".join(f"{seconds}" for seconds in SECONDS)
    head = ["model", "parameters", "MACs, 1 s"]
    head += [f"{how}, ms for {lengths} s" for how in ("PyTorch", "fp32", "int8")]
    head += ["int8 file", "training fp32", "bf16"]

    def cell(row: dict[str, str], name: str, unit: str = "", scale: float = 1.0, digits: int = 1) -> str:
        return f"{float(row[name]) / scale:,.{digits}f}{unit}" if row.get(name) else "–"

    lines = []
    for row in rows.rows:
        name = f"`{row['model']}`" if row["toolkit"] == OURS else f"{row['model']} ({row['toolkit']})"
        times = [" / ".join(cell(row, f"{how}_ms_{s}s") for s in SECONDS) for how in ("pytorch", "fp32", "int8")]
        lines.append(
            [
                name,
                cell(row, "parameters", " M", 1e6, 2),
                cell(row, "macs_1s", " M", 1e6, 0),
                *times,
                cell(row, "int8_bytes", " kB", 1e3, 0),
                cell(row, "train_fp32_per_s", digits=0),
                cell(row, "train_bf16_per_s", digits=0),
            ]
        )
    facts = sorted({f"{row['hardware']}, commit {row['commit']}" for row in rows.rows})
    return "\n".join(
        [
            markdown(head, lines),
            "",
            f"Milliseconds on one core; training utterances of {CROP_S:g} s a second in batches of {BATCH}. "
            f"{'; '.join(facts)}",
        ]
    )


def _builder(settings: Any) -> Callable[[], SpeakerModel]:
    return lambda: SpeakerModel(settings)


def _noise(count: int, seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """(count, samples) at the level of speech."""
    noise = np.random.default_rng(seed).standard_normal((count, round(RATE_HZ * seconds)))
    return (0.1 * noise).astype(np.float32)


if __name__ == "__main__":
    try:
        started = time.monotonic()
        call(benchmark, sys.argv[1:], prog="benchmarks/models.py")
        print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    except ParvoxError as error:
        sys.exit(f"benchmarks/models.py: error: {error}")
