"""Where and how training runs: devices and precision, through Lightning Fabric."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import platform
import warnings
from typing import Any

import torch

from parvox.errors import RecipeError, TrainingError
from parvox.processors import available_processors
from parvox.training.settings import TrainingSettings

# What torchrun and whoever starts processes by hand, SLURM, and LSF set; without one of them processes would wait for
# each other for ever.
_LAUNCHERS = {"MASTER_ADDR", "SLURM_NTASKS", "LSB_JOBID"}
_FABRIC_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def best_precision(accelerator: str) -> str:
    """The precision that `auto` stands for: bf16 where the hardware is made for it, else fp32.

    Args:
        accelerator: "cpu", "cuda" or "mps".
    """
    if accelerator == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if accelerator == "cpu":
        return "bf16" if cpu_multiplies_bf16() else "fp32"
    return "fp32"


def cpu_multiplies_bf16() -> bool:
    """Whether the processor has instructions that multiply bf16 (AMX, or AVX512-BF16); emulation would be slower."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def keep_large_blocks() -> None:
    """Let the C library keep freed memory instead of handing it back after every layer.

    glibc maps each large tensor anew and unmaps it when it is freed; a training step on the processor then spends a
    tenth to a fifth of its time on page faults. Elsewhere than on glibc this does nothing.
    """
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        # A higher M_MMAP_THRESHOLD would not do: its limit is 32 MiB, and layers of a batch are larger.
        library.mallopt(mmap_max, 0)
        library.mallopt(trim_threshold, 2**31 - 1)


def make_fabric(settings: TrainingSettings, loggers: Any = None) -> tuple[Any, str]:
    """The engine of a run, and the precision it uses.

    Returns:
        A launched `lightning_fabric.Fabric`, and "fp32", "bf16" or "fp16".

    Raises:
        TrainingError: the accelerator or the number of devices is not there, or other machines cannot be found.
    """
    from lightning_fabric import Fabric

    if settings.nodes > 1 and not _LAUNCHERS & os.environ.keys():
        raise TrainingError(
            f"training.nodes: {settings.nodes} given, but nothing says where the other machines are; start the command "
            "on each with torchrun or by SLURM"
        )
    accelerator = settings.accelerator
    if accelerator == "auto":
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        accelerator = "cuda" if cuda else "mps" if mps else "cpu"
    if accelerator == "cpu":
        keep_large_blocks()
    precision = best_precision(accelerator) if settings.precision == "auto" else settings.precision
    devices = settings.devices
    if devices == "auto":
        devices = torch.cuda.device_count() if accelerator == "cuda" else 1
    if accelerator == "cpu" and devices > max(2, available_processors()):
        raise TrainingError(
            f"training.devices: {devices} given; expected at most {max(2, available_processors())}: each is a process, "
            "and more than there are processors only hinder each other"
        )
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", devices))  # torchrun decides
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it would announce the precision
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fabric = Fabric(
                accelerator=accelerator,
                devices=devices,
                num_nodes=settings.nodes,
                strategy="ddp" if accelerator == "cpu" and devices * settings.nodes > 1 else "auto",
                precision=_FABRIC_PRECISION[precision],  # type: ignore[arg-type]
                loggers=loggers,
            )
            fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"cannot train on {devices} × {accelerator}: {' '.join(str(error).split())}; set training.accelerator "
            "and training.devices to what this machine has"
        ) from error
    except Exception as error:  # Fabric's misconfiguration errors share no public base
        if type(error).__name__ != "MisconfigurationException":
            raise
        raise TrainingError(f"cannot train on {devices} × {accelerator}: {' '.join(str(error).split())}") from error
    return fabric, precision


def chosen_device(name: str | None) -> torch.device:
    """The device that a caller names, as PyTorch does; without a name a GPU if there is one.

    Raises:
        RecipeError: there is no such device here.
    """
    cuda = torch.cuda.is_available()
    try:
        device = torch.device(name or ("cuda" if cuda else "cpu"))
        there = {"cpu": True, "cuda": cuda and (device.index or 0) < torch.cuda.device_count()}
        if there.get(device.type, device.type == "mps" and torch.backends.mps.is_available()):
            return device
    except RuntimeError:  # no name of PyTorch's
        pass
    known = ["cpu", *(["cuda"] if cuda else []), *(["mps"] if torch.backends.mps.is_available() else [])]
    raise RecipeError(f"device: {name!r} given; this machine has {', '.join(known)}")


def hardware() -> str:
    """The machine in a few words: processor or GPU, cores, torch version."""
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            names = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
        processor = names[0] if names else processor
    except OSError:
        pass
    text = f"{processor}, {os.cpu_count()} cores"
    if torch.cuda.is_available():
        text += f", {torch.cuda.device_count()} × {torch.cuda.get_device_name()}"
    return f"{text}, torch {torch.__version__}"
