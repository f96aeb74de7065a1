"""What a step with integrated gradients costs beside its arithmetic minimum, and what maps on disk save.

    python benchmarks/integrated_cost.py CORPUS [--batch_size 32] [--crop_s 1.0] [--device cpu]

CORPUS is a prepared corpus. Teacher (ECAPA-TDNN, 256 channels) and student (BC-CMT-Tiny) have random weights; one batch
is repeated. The minimum is what `IntegratedSettings.passes` counts, with each pass timed by itself in the same run: the
teacher forwards, forwards and backwards to its features, the student forwards and backwards. Prints, and writes to
benchmarks/results/integrated_cost.csv, seconds a step, the minimum and their ratio; for maps on disk also the seconds
to compute one, and after how many items of training that is won back.
"""

from __future__ import annotations

import csv
import dataclasses
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
from parvox.training.module import TrainedModule
from parvox.training.teachers import Inputs

HERE = Path(__file__).parent


def benchmark(
    corpus: Path,
    *,
    batch_size: int = 32,
    crop_s: float = 1.0,
    device: str = "cpu",
    repeats: int = 3,
    out: Path = HERE / "results" / "integrated_cost.csv",
) -> None:
    """Time steps with integrated gradients.

    Args:
        corpus: Prepared corpus.
        batch_size: Items a step.
        crop_s: Seconds of each.
        device: Where to compute.
        repeats: Of each timing; the fastest counts.
        out: CSV file to write.
    """
    prepared = PreparedCorpus.load(corpus)
    batches = Batches(prepared, DataSettings(crop_s=crop_s, batch_size=batch_size, workers=0), seed=1)
    bench = Bench(batches, next(batches.epoch(0)).to(device), repeats)
    rows = []
    for name, settings in methods().items():
        rows.append(bench.step(name, settings))
        print("{method:<44} {seconds:7.3f} s a step, minimum {minimum:7.3f}, ratio {ratio:.2f}".format(**rows[-1]))
    with tempfile.TemporaryDirectory() as folder:
        rows.append(bench.step("mask, maps on disk", IntegratedSettings(cache=folder)))
    computed = next(row for row in rows if row["method"] == "mask")
    kept = rows[-1]
    kept["items_to_win_back"] = bench.map_seconds / ((computed["seconds"] - kept["seconds"]) / batch_size)
    print("{method:<44} {seconds:7.3f} s a step, minimum {minimum:7.3f}, ratio {ratio:.2f}".format(**kept))
    print(
        f"a map on disk takes {bench.map_seconds:.2f} s to compute, which {kept['items_to_win_back']:.1f} items of its "
        f"utterance win back; it takes {bench.map_bytes / 1000:.0f} kB"
    )
    facts = environment()
    names = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_file(out, overwrite=True) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*names, *facts])
        writer.writeheader()
        writer.writerows({**row, **facts} for row in rows)
    print(f"{batch_size} items of {crop_s} s on {device}; {facts['hardware']}, commit {facts['commit']}; {out}")


def methods() -> dict[str, MethodSettings]:
    """What is timed besides maps on disk."""
    settings = IntegratedSettings()
    return {
        "mlld": MlldSettings(),
        "path": dataclasses.replace(settings, reading="path"),
        "mask": settings,
        "mask, one duration": dataclasses.replace(settings, durations_s=(0.0,)),
        "mask, 20 steps": dataclasses.replace(settings, steps=20),
    }


class Bench:
    """A pair of models and one batch.

    Args:
        batches: Where it comes from.
        batch: On the device.
        repeats: Of each timing.
    """

    def __init__(self, batches: Batches, batch: Batch, repeats: int) -> None:
        assert batch.labels is not None
        self.batches, self.batch, self.repeats = batches, batch, repeats
        self.map_seconds = self.map_bytes = 0.0
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

    def step(self, name: str, settings: MethodSettings) -> dict[str, Any]:
        """Time a method's step and the passes that it cannot do without."""
        side = Side.of("the teacher", self.teacher, self.classifier)
        module = TrainedModule(self.student, self.head, {name: settings}, side)
        (method,) = module.distillation_methods()
        spoken = Spoken(self.batches.whole, set(self.batch.ids))
        before = time.perf_counter()
        if method.prepare(spoken, "benchmark"):
            self.map_seconds = (time.perf_counter() - before) / len(spoken)
            cache = getattr(settings, "cache")  # noqa: B009
            self.map_bytes = sum(path.stat().st_size for path in Path(cache).rglob("*.safetensors")) / len(spoken)

        def whole() -> None:
            with torch.no_grad():
                view = View.of(self.teacher, self.classifier, self.features, self.batch.labels, self.batch)
            loss, _ = module(self.inputs, view, 0.5)
            loss.backward()
            module.zero_grad()

        taken, forward, gradient, student = self.fastest(whole, self._forward, self._gradient, self._student)
        passes = settings.passes(self.teacher, self.features) if isinstance(settings, IntegratedSettings) else None
        minimum = forward + student
        if passes is not None:
            minimum = (
                (passes.teacher_forward - passes.teacher_backward) * forward
                + passes.teacher_backward * gradient
                + passes.student * student
            )
        return {"method": name, "seconds": taken, "minimum": minimum, "ratio": taken / minimum}

    def fastest(self, *jobs: Callable[[], None]) -> Iterator[float]:
        """Each job's fastest time, the jobs taken in turns so that whatever slows the machine slows all of them."""
        times: list[list[float]] = [[] for _ in jobs]
        for _ in range(self.repeats + 1):  # the first warms up
            for job, own in zip(jobs, times, strict=True):
                before = time.perf_counter()
                job()
                if self.features.is_cuda:
                    torch.cuda.synchronize()
                own.append(time.perf_counter() - before)
        return (min(own[1:]) for own in times)

    @torch.no_grad()
    def _forward(self) -> None:
        self.classifier.logits(self.teacher.embed_features(self.features).embedding)

    def _gradient(self) -> None:
        x = self.features.clone().requires_grad_()
        logits = self.classifier.logits(self.teacher.embed_features(x).embedding)
        torch.autograd.grad(logits.softmax(1)[:, 0].sum(), x)

    def _student(self) -> None:
        output = self.student.embed_features(self.features)
        assert self.batch.labels is not None
        self.head(output.embedding, self.batch.labels).backward()
        self.student.zero_grad()
        self.head.zero_grad()


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
