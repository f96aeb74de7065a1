"""Checkpoints: all that a resumed run needs, in one safetensors file, written to a temporary name and renamed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from parvox.errors import ModelFileError, OutputError
from parvox.files import atomic_file

_CHECKSUM = "checksum"


def save_tensors(path: Path, tensors: dict[str, Tensor], state: dict[str, Any] | None = None) -> None:
    """Write tensors, and plain data as JSON in the header, replacing what was there.

    Args:
        path: The file.
        tensors: By name.
        state: JSON-ready data.
    """
    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    # within the one entry, for the file would have several in any order
    text = json.dumps({**(state or {}), _CHECKSUM: _checksum(contiguous, state or {})})
    with atomic_file(path, overwrite=True) as temporary:
        try:
            save_file(contiguous, temporary, metadata={"state": text})
        except SafetensorError as error:  # its way of saying that the disk is full
            words = " ".join(str(error).split())
            raise OutputError(f"cannot write {path}: {words}; choose a folder that is writable and has room") from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_tensors` wrote.

    Raises:
        ModelFileError: the file is missing or damaged.
    """
    if not path.is_file():
        raise ModelFileError(f"{path} is missing; expected a safetensors file written by parvox train")
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {}).get("state", "{}"))
            if not isinstance(state, dict):
                raise ValueError("its state is no mapping")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            checksum = state.pop(_CHECKSUM, None)
            if checksum not in (None, _checksum(tensors, state)):
                raise ValueError("its checksum is another")
            return tensors, state
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path} is damaged or no safetensors file ({error}); restore it or train again"
        ) from error


def _checksum(tensors: dict[str, Tensor], state: dict[str, Any]) -> str:
    """SHA-256 of all that a file holds: flipped bits would be weights like others."""
    digest = hashlib.sha256(json.dumps(state).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter index and name, as tensors."""
    return {
        f"{index}/{name}": torch.as_tensor(value)
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
