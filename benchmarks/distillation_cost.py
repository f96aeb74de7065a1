"""What a step of each distillation method costs, in time, memory and parameters, and how that grows with the classes.

    python benchmarks/distillation_cost.py [--methods label non_target] [--growth 1000 10000 100000 1000000]

Each round takes in turns a student's step by itself (forwards, speaker loss, backwards), the teacher's forward pass
(with its logits for methods that look at those) and the distillation step; the ratio is the median over the rounds of
the third by the sum of the first two, so that whatever slows the machine slows all three. It is to be at most 1.15. For
integrated gradients it is the step by the passes that `IntegratedSettings.passes` counts, at most 1.2. Optimizers, and
features, which all passes share, are left out. Memory is the most that a step holds beyond what lay there before it.

Models have random weights and hear noise: the ECAPA-TDNN of 256 channels teaches BC-CMT-Tiny; for attention maps the
teacher is BC-CMT-Base, for the distillation token both are encoders of self-attention with memory layers. The growth
is that of methods that look at logits, beside the student's own step.

Prints tables, and adds rows to benchmarks/results/distillation_cost.csv; those of other methods, classes and devices
stay.
"""

from __future__ import annotations

import contextlib
import ctypes
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from parvox.cli.parsing import call
from parvox.distillation import METHODS
from parvox.distillation.contract import MethodSettings, Side, View, looks_inside, reads_logits
from parvox.distillation.integrated import IntegratedSettings
from parvox.errors import ParvoxError, RecipeError
from parvox.evaluation.environment import environment
from parvox.losses import LOSSES
from parvox.losses.registry import SpeakerLoss
from parvox.models import ENCODERS, POOLINGS, ModelSettings, SpeakerModel
from parvox.training.engine import best_precision
from parvox.training.module import TrainedModule
from parvox.training.teachers import Inputs
from rows import Rows, markdown

RESULTS = Path(__file__).parent / "results" / "distillation_cost.csv"
LIMIT, INTEGRATED_LIMIT = 1.15, 1.2
KEY = ("method", "classes", "batch_size", "crop_s", "precision", "device")
_DIM = 192
_HEAD = ("method", "classes", "s a step", "s student + teacher", "ratio", "limit", "MB", "MB student alone", "added")


def benchmark(
    *,
    methods: list[str] | None = None,
    classes: int = 5994,
    growth: list[int] | None = None,
    batch_size: int = 32,
    crop_s: float = 1.0,
    rounds: int = 7,
    device: str = "cpu",
    out: Path = RESULTS,
) -> None:
    """Time steps of distillation methods, and weigh them.

    Args:
        methods: Which ones; all of them by default.
        classes: Speakers of the classifiers; 5994 are those of VoxCeleb2.
        growth: Numbers of speakers at which to look besides, for methods that look at logits.
        batch_size: Items a step.
        crop_s: Seconds of each.
        rounds: Of which the median counts.
        device: Where to compute.
        out: CSV file to add to.
    """
    names = methods or sorted(entry.name for entry in METHODS)
    settings = {name: METHODS[name].settings() for name in names}
    if rounds < 1 or batch_size < 2:
        raise RecipeError(f"rounds {rounds} and batch_size {batch_size} given; expected 1 and 2 or more")
    results, facts = Rows(out, KEY), environment()
    shown = []
    for name, method in settings.items():
        sizes = sorted({classes, *((growth or []) if reads_logits(method) else [])})
        for size in sizes:
            row = Bench(name, method, size, batch_size, crop_s, device).measure(rounds)
            results.put({**row, **facts})
            shown.append(_words(row))
            print(markdown(_HEAD, shown[-1:]).splitlines()[-1], flush=True)
    print(f"\n{markdown(_HEAD, shown)}\n")
    print(f"{batch_size} items of {crop_s} s on {device}; {facts['hardware']}, commit {facts['commit']}; {out}")


class Bench:
    """One method on one pair, one batch and one number of classes.

    Args:
        name: The method.
        settings: Its settings.
        classes: Speakers.
        batch_size: Items.
        crop_s: Seconds of each.
        device: Where.
    """

    def __init__(
        self, name: str, settings: MethodSettings, classes: int, batch_size: int, crop_s: float, device: str
    ) -> None:
        self.where = {"batch_size": batch_size, "crop_s": crop_s, "device": device}
        self.name, self.settings, self.device = name, settings, torch.device(device)
        self.precision = best_precision(self.device.type)
        torch.manual_seed(1)
        (self.teacher, self.taught), (student, head) = _pair(name, classes)
        for part in (self.teacher, self.taught):
            part.to(self.device).eval().requires_grad_(False)
        student.to(self.device)
        head.to(self.device)
        side = Side.of("the teacher", self.teacher, self.taught)
        self.alone = TrainedModule(student, head)
        self.module = TrainedModule(student, head, {name: settings}, side).to(self.device)
        if not looks_inside(settings):
            self.teacher = self.teacher.for_inference()
        rate = self.teacher.settings.features.sample_rate_hz
        waveforms = 0.1 * torch.randn(batch_size, round(crop_s * rate), device=self.device)
        labels = torch.randint(classes, (batch_size,), device=self.device)
        with torch.no_grad():
            features, _ = student.extract_features(waveforms)
        self.inputs = Inputs(waveforms, features, labels)
        self.classes = classes

    def measure(self, rounds: int) -> dict[str, Any]:
        """A row of the table."""
        integrated = isinstance(self.settings, IntegratedSettings)
        jobs = [self.student_step, self.teacher_forward, self.step, *([self.teacher_gradient] if integrated else [])]
        times = [[self._timed(job) for job in jobs] for _ in range(rounds + 1)][1:]  # the first warms up
        shares = [_minimum(each, self._passes()) for each in times]
        return {
            "method": self.name,
            "classes": self.classes,
            **self.where,
            "precision": self.precision,
            "seconds": statistics.median(each[2] for each in times),
            "student_and_teacher_seconds": statistics.median(shares),
            "ratio": statistics.median(each[2] / share for each, share in zip(times, shares, strict=True)),
            "limit": INTEGRATED_LIMIT if integrated else LIMIT,
            "peak_mb": self._peak(self.step) / 1e6,
            "student_peak_mb": self._peak(self.student_step) / 1e6,
            "parameters_added": self.module.added_parameters(),
            "rounds": rounds,
        }

    def student_step(self) -> None:
        """The student by itself."""
        with self._autocast():
            loss, _ = self.alone(self.inputs)
        loss.backward()
        self.module.zero_grad(set_to_none=True)

    @torch.no_grad()
    def teacher_forward(self) -> None:
        """The teacher by itself."""
        with self._autocast():
            view = self._view()
            if reads_logits(self.settings):
                view.logits(bool(getattr(self.settings, "margin", False)))

    def step(self) -> None:
        """Student, teacher and method."""
        with self._autocast():
            with torch.no_grad():
                view = self._view()
            loss, _ = self.module(self.inputs, view, 0.5)
        loss.backward()
        self.module.zero_grad(set_to_none=True)

    def teacher_gradient(self) -> None:
        """The teacher forwards, and backwards to its features alone."""
        features = self.inputs.features.clone().requires_grad_()
        with self._autocast():
            logits = self.taught.logits(self.teacher.embed_features(features).embedding)
            torch.autograd.grad(logits.softmax(1)[:, 0].sum(), features)

    def _view(self) -> View:
        return View.of(self.teacher, self.taught, self.inputs.features, self.inputs.labels)

    def _passes(self) -> tuple[float, float, float]:
        """Student steps, teacher forwards and teacher gradients that a step cannot do without."""
        if not isinstance(self.settings, IntegratedSettings):
            return 1.0, 1.0, 0.0
        passes = self.settings.passes(self.teacher, self.inputs.features)
        return passes.student, passes.teacher_forward - passes.teacher_backward, passes.teacher_backward

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
        return torch.autocast(self.device.type, kinds.get(self.precision), enabled=self.precision != "fp32")

    def _timed(self, job: Callable[[], None]) -> float:
        before = time.perf_counter()
        job()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - before

    def _peak(self, job: Callable[[], None]) -> float:
        """Bytes that a job holds at most beyond what was held before; NaN where the system does not tell."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self._timed(job)
            return float(torch.cuda.max_memory_allocated() - before)
        try:
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            before = _status("VmRSS")
            job()
            return float(_status("VmHWM") - before)
        except (OSError, AttributeError):
            return float("nan")


def _minimum(times: Sequence[float], passes: tuple[float, float, float]) -> float:
    student, forward, gradient = passes
    return student * times[0] + forward * times[1] + (gradient * times[3] if gradient else 0.0)


def _pair(method: str, classes: int) -> tuple[tuple[SpeakerModel, SpeakerLoss], tuple[SpeakerModel, SpeakerLoss]]:
    """Teacher and student that have what a method asks for."""
    if method == "attention_maps":
        return _made(classes, "bc_cmt", size="base"), _made(classes, "bc_cmt")
    if method == "distillation_token":
        token = "class_distillation_token"
        return _made(classes, "memory_attention"), _made(classes, "memory_attention", token)
    return _made(classes, "ecapa_tdnn", channels=256, frames_dim=768), _made(classes, "bc_cmt")


def _made(classes: int, encoder: str, pooling: str = "", **fields: Any) -> tuple[SpeakerModel, SpeakerLoss]:
    """A model with random weights and its speaker head, the margin in force."""
    settings = ENCODERS[encoder].settings(**fields)
    read_out = POOLINGS[pooling or settings.default_pooling].settings()
    model = SpeakerModel(ModelSettings(encoder=settings, pooling=read_out, embedding_dim=_DIM, head="linear"))
    head = LOSSES["aam_softmax"].settings().build(_DIM, classes)
    head.set_progress(1.0)
    return model, head


def _status(name: str) -> int:
    """A size of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _words(row: dict[str, Any]) -> list[str]:
    return [
        row["method"],
        f"{row['classes']:,}",
        f"{row['seconds']:.3f}",
        f"{row['student_and_teacher_seconds']:.3f}",
        f"{row['ratio']:.2f}",
        f"{row['limit']}",
        f"{row['peak_mb']:,.0f}",
        f"{row['student_peak_mb']:,.0f}",
        f"{row['parameters_added']:,}",
    ]


if __name__ == "__main__":
    try:
        call(benchmark, sys.argv[1:], prog="benchmarks/distillation_cost.py")
    except ParvoxError as error:
        sys.exit(f"error: {error}")
