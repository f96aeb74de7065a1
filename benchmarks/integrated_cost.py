"""What maps on disk save a step with integrated gradients, and when they are worth their making.

    python benchmarks/integrated_cost.py CORPUS [--batch_size 32] [--crop_s 1.0] [--device cpu]

CORPUS is a prepared corpus. Teacher (ECAPA-TDNN, 256 channels) and student (BC-CMT-Tiny) have random weights; one batch
is repeated. Each round takes the steps of all ways in turns; times are medians over the rounds, and so is a way's share
of the step that computes its maps. On processors they are seconds of all cores together, on a GPU by the clock.
Optimizers and features are left out. What a step costs beside its arithmetic minimum, distillation_cost.py tells.

Prints, and writes to benchmarks/results/integrated_cost.csv, seconds a step, the seconds to compute a map, the bytes
that it takes, and how many items of its utterance win the computation back.
"""

from __future__ import annotations

import csv
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from parvox.cli.parsing import call
from parvox.corpora.prepared import PreparedCorpus
from parvox.data import Batch, Batches, DataSettings
from parvox.data.whole import WholeUtterance, WholeUtterances
from parvox.distillation.contract import MethodSettings, Side, View
from parvox.distillation.integrated import IntegratedSettings
from parvox.distillation.mlld import MlldSettings
from parvox.errors import ParvoxError
from parvox.evaluation.environment import environment
from parvox.files import atomic_file
from parvox.losses import LOSSES
from parvox.losses.registry import SpeakerLoss
from parvox.models import ENCODERS, POOLINGS, ModelSettings, SpeakerModel
from parvox.progress import progress
from parvox.training.module import TrainedModule
from parvox.training.teachers import Inputs

HERE = Path(__file__).parent
COMPUTED, ON_DISK = "computed", "on disk"


def benchmark(
    corpus: Path,
    *,
    batch_size: int = 32,
    crop_s: float = 1.0,
    device: str = "cpu",
    rounds: int = 5,
    out: Path = HERE / "results" / "integrated_cost.csv",
) -> None:
    """Time steps with maps computed and on disk.

    Args:
        corpus: Prepared corpus.
        batch_size: Items a step.
        crop_s: Seconds of each.
        device: Where to compute.
        rounds: Of all steps.
        out: CSV file to write.
    """
    prepared = PreparedCorpus.load(corpus)
    batches = Batches(prepared, DataSettings(crop_s=crop_s, batch_size=batch_size, workers=0), seed=1)
    bench = Bench(batches, next(batches.epoch(0)).to(device))
    computed = IntegratedSettings()
    with tempfile.TemporaryDirectory() as folder:
        steps = {
            COMPUTED: bench.step(computed),
            "computed, one duration": bench.step(dataclasses.replace(computed, durations_s=(0.0,))),
            ON_DISK: bench.step(dataclasses.replace(computed, cache=folder)),
            "path, without maps": bench.step(dataclasses.replace(computed, reading="path")),
            "mlld, on the plain input alone": bench.step(MlldSettings()),
        }
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.safetensors")) / bench.mapped
        times = bench.in_turns(steps, rounds)
    rows: list[dict[str, Any]] = []
    for name, own in times.items():
        share = statistics.median(mine / whole for mine, whole in zip(own, times[COMPUTED], strict=True))
        rows.append({"maps": name, "seconds": statistics.median(own), "share": share})
        print(f"{name:<34} {rows[-1]['seconds']:8.3f} s a step, {share:.2f} of the step that computes its maps")
    saved = statistics.median(a - b for a, b in zip(times[COMPUTED], times[ON_DISK], strict=True)) / batch_size
    made = bench.map_seconds
    rows.append({"maps": ON_DISK, "map_seconds": made, "map_bytes": size, "items_to_win_back": made / saved})
    print(
        f"an item saves {saved:.3f} s; a map takes {size / 1000:.0f} kB and {made:.3f} s, which {made / saved:.1f} "
        "items of its utterance win back"
    )
    facts = environment()
    facts |= {"batch_size": str(batch_size), "crop_s": str(crop_s), "device": device}
    names = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_file(out, overwrite=True) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*names, *facts])
        writer.writeheader()
        writer.writerows({**row, **facts} for row in rows)
    print(f"{batch_size} items of {crop_s} s on {device}; {facts['hardware']}, commit {facts['commit']}; {out}")


class Bench:
    """A pair of models and one batch.

    Args:
        batches: Where it comes from.
        batch: On the device.

    Attributes:
        mapped: Utterances whose maps were computed to be kept.
        map_seconds: That each of them took.
    """

    def __init__(self, batches: Batches, batch: Batch) -> None:
        self.batch = batch
        self.spoken = Spoken(batches.whole, set(batch.ids))
        self.mapped, self.map_seconds = len(self.spoken), 0.0
        device = batch.waveforms.device
        torch.manual_seed(1)
        self.teacher, self.classifier = made("ecapa_tdnn", batches.classes, channels=256, frames_dim=768)
        self.teacher.to(device).eval().requires_grad_(False)
        self.classifier.to(device).eval().requires_grad_(False)
        self.student, self.head = made("bc_cmt", batches.classes)
        self.student.to(device)
        self.head.to(device)
        self.features, _ = self.teacher.extract_features(batch.waveforms)
        self.inputs = Inputs(batch.waveforms, self.features, batch.labels, batch)

    def step(self, settings: MethodSettings) -> Callable[[], None]:
        """A method's step; maps that it keeps are computed here."""
        side = Side.of("the teacher", self.teacher, self.classifier)
        module = TrainedModule(self.student, self.head, {"method": settings}, side)
        (method,) = module.distillation_methods()
        before = self.now()
        if method.prepare(self.spoken, "benchmark"):
            self.map_seconds = (self.now() - before) / self.mapped

        def step() -> None:
            with torch.no_grad():
                view = View.of(self.teacher, self.classifier, self.features, self.batch.labels, self.batch)
            loss, _ = module(self.inputs, view, 0.5)
            loss.backward()
            module.zero_grad()

        return step

    def now(self) -> float:
        """Seconds of the processors, which nobody else's work adds to; on a GPU, by the clock."""
        if not self.features.is_cuda:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def in_turns(self, steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
        """Seconds of each step in each round, after one to warm up."""
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in progress(range(rounds + 1), "rounds"):
            for name, step in steps.items():
                before = self.now()
                step()
                times[name].append(self.now() - before)
        return {name: own[1:] for name, own in times.items()}


class Spoken(WholeUtterances):
    """Some of the whole utterances."""

    def __init__(self, whole: WholeUtterances, names: set[str]) -> None:
        self._whole = whole
        self._numbers = [number for number, (name, _) in enumerate(whole.names()) if name in names]

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: int) -> WholeUtterance:
        return self._whole[self._numbers[number]]

    def names(self) -> Iterator[tuple[str, float]]:
        """Id and speed of each."""
        names = list(self._whole.names())
        return (names[number] for number in self._numbers)

    @property
    def seconds(self) -> float:
        """More than they take."""
        return self._whole.seconds


def made(encoder: str, classes: int, **fields: Any) -> tuple[SpeakerModel, SpeakerLoss]:
    """A model with random weights and its speaker head."""
    settings = ENCODERS[encoder].settings(**fields)
    pooling = POOLINGS[settings.default_pooling].settings()
    model = SpeakerModel(
        ModelSettings(encoder=settings, pooling=pooling, embedding_dim=256, head=settings.default_head)
    )
    return model, LOSSES["aam_softmax"].settings().build(256, classes)


if __name__ == "__main__":
    try:
        call(benchmark, sys.argv[1:], prog="benchmarks/integrated_cost.py")
    except ParvoxError as error:
        sys.exit(f"error: {error}")
