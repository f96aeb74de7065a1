"""A run folder while it is written: begun, saved to, gone on with, closed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch

from parvox.errors import ModelFileError, OutputError
from parvox.files import atomic_file, output_errors, parent_folders, refuse_overwrite, try_lock
from parvox.training import run as names
from parvox.training.checkpoint import load_tensors, optimizer_tensors, restore_optimizer, save_tensors
from parvox.training.checks import expect_same_recipe
from parvox.training.module import TrainedModule
from parvox.training.recipe import Recipe
from parvox.training.teachers.average import AverageTeacher

LOCK = ".lock"
BEFORE = ".before"  # the run that a new one is about to replace


@dataclass
class Progress:
    """Where a run stands: all that resuming needs beside the tensors."""

    step: int = 0
    seconds: float = 0.0
    best_eer: float = math.inf
    best_step: int = -1
    worse_evaluations: int = 0
    stopped_early: bool = False
    epoch_sums: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


class RunWriter:
    """Writes the folder of one run; of several processes, the first.

    Args:
        folder: The run folder.
        recipe: What is trained.
        fabric: The engine.
        module: All that is trained.
        optimizer: Its optimiser.
        average: The teacher that follows the model, if there is one.
        made_from: Checksums of what a resumed run must find unchanged, by what it is.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        fabric: Any,
        module: TrainedModule,
        optimizer: torch.optim.Optimizer,
        average: AverageTeacher | None,
        made_from: dict[str, str],
    ) -> None:
        self.folder, self._recipe, self._fabric = folder, recipe, fabric
        self._module, self._optimizer, self._average = module, optimizer, average
        self._made_from = made_from
        self._saved_at = time.monotonic()

    @contextlib.contextmanager
    def opened(self, resume: bool, overwrite: bool, speakers: dict[str, Any]) -> Iterator[None]:
        """Begin a run folder, or go on with the one that is there, while no other process writes to it.

        A run that fails before its first checkpoint leaves nothing, for there would be nothing to resume, or the run
        that it was to replace.

        Args:
            resume: Go on with a run that is there.
            overwrite: Replace a run that is there.
            speakers: What `speakers.json` is to hold.

        Raises:
            OutputError: there is something that may not be replaced, or the folder cannot be written.
        """
        out = self.folder
        going_on = resume and (out / names.RECIPE).exists()
        if not going_on:
            refuse_foreign(out)
            refuse_overwrite(out, overwrite or resume)
        with parent_folders(out):
            with output_errors(out):
                out.mkdir(exist_ok=True)
            lock = lock_run(out)
            try:
                if going_on:
                    expect_same_recipe(self._recipe, out)
                else:
                    set_aside(out)
                    _write_text(out / names.SPEAKERS, json.dumps(speakers, indent=1))
                    _write_text(out / names.RECIPE, self._recipe.to_yaml())
                if self._module.alongside:
                    self._module.alongside.begin(out, going_on)
                yield
            except BaseException:
                if not going_on and not (out / names.CHECKPOINT).exists():
                    bring_back(out)
                raise
            finally:
                if lock is not None:
                    (out / LOCK).unlink(missing_ok=True)
                    lock.close()

    def save_weights(self) -> None:
        """Write the weights, as the best so far."""
        if self._fabric.is_global_zero:
            save_tensors(self.folder / names.MODEL, self._module.model.state_dict())
            if self._module.classifier is not None:
                save_tensors(self.folder / names.CLASSIFIER, self._module.classifier.state_dict())

    def checkpoint_due(self) -> bool:
        """Whether the last checkpoint is as old as the recipe lets it become; all processes hear the same."""
        due = time.monotonic() - self._saved_at > 60 * self._recipe.training.checkpoint_minutes
        return bool(self._fabric.broadcast(due)) if self._fabric.world_size > 1 else due

    def checkpoint(self, progress: Progress) -> None:
        """Write all that resuming needs."""
        self._saved_at = time.monotonic()
        if not self._fabric.is_global_zero:
            return
        tensors = {f"module/{name}": tensor for name, tensor in self._module.state_dict().items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in optimizer_tensors(self._optimizer).items()}
        if self._average:
            tensors |= {f"average/{name}": tensor for name, tensor in self._average.tensors().items()}
        scaler = self._fabric.strategy.precision.state_dict()
        state = {"progress": dataclasses.asdict(progress), "scaler": scaler, "made_from": self._made_from}
        save_tensors(self.folder / names.CHECKPOINT, tensors, state)
        let_go(self.folder)

    def restore(self) -> Progress:
        """Go back to the checkpoint; where the run stood, or its beginning if there is none.

        Raises:
            ModelFileError: the checkpoint is damaged or another run's.
            OutputError: the corpus or the teacher has changed since.
        """
        path = self.folder / names.CHECKPOINT
        if not path.is_file():
            return Progress()
        tensors, state = load_tensors(path)
        try:
            before = dict(state.get("made_from", {}))
            changed = [what for what, checksum in self._made_from.items() if before.get(what, checksum) != checksum]
            progress = Progress(**state["progress"])
            self._fabric.strategy.precision.load_state_dict(state["scaler"])
            self._module.load_state_dict(_named(tensors, "module/"))
            restore_optimizer(self._optimizer, _named(tensors, "optimizer/"))
            if self._average:
                self._average.restore(_named(tensors, "average/"))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:  # PyTorch's of tensors that do not fit
            raise ModelFileError(
                f"{path} is no checkpoint of this run; train anew with --overwrite, or to another folder"
            ) from error
        if changed:
            raise OutputError(
                f"{self.folder} cannot be resumed: the {changed[0]} has changed since it was begun; restore it, or "
                "train anew with --overwrite"
            )
        return progress

    def close(self, summary: dict[str, Any]) -> None:
        """Say how the run went, which makes it a finished one.

        Args:
            summary: What `summary.json` is to hold; checksums of the weights are added.
        """
        weights = [names.MODEL] if self._module.classifier is None else [names.MODEL, names.CLASSIFIER]
        sums = {name: names.file_checksum(self.folder / name) for name in weights}
        _write_text(self.folder / names.SUMMARY, json.dumps({**summary, names.CHECKSUMS: sums}, indent=1))

    def drop_checkpoint(self) -> None:
        """Delete the checkpoint of a finished run."""
        with output_errors(self.folder):
            (self.folder / names.CHECKPOINT).unlink(missing_ok=True)


def lock_run(folder: Path) -> IO[bytes] | None:
    """Make sure that no other process writes a run folder, until what is returned is closed or this process ends.

    Returns:
        None where the system has no such locks.

    Raises:
        OutputError: another process is at it.
    """
    try:
        return try_lock(folder / LOCK)
    except BlockingIOError as error:
        raise OutputError(f"{folder} is being written by another process; wait for it, or choose another") from error


def refuse_foreign(folder: Path) -> None:
    """Raise `OutputError` if a folder holds anything but a run."""
    if not folder.exists():
        return
    foreign = not folder.is_dir()
    if not foreign and not (folder / names.RECIPE).is_file():
        foreign = bool({path.name for path in folder.iterdir()} - {LOCK, BEFORE})
    if foreign:
        raise OutputError(f"{folder} exists and is no run folder, so it is not replaced: choose another name")


def set_aside(folder: Path) -> None:
    """Make room for a new run: what an earlier one left waits in `BEFORE` until the new one is worth as much.

    Raises:
        OutputError: the folder is not empty and no run.
    """
    refuse_foreign(folder)
    aside = folder / BEFORE
    with output_errors(folder):
        begun = any((folder / name).is_file() for name in (names.CHECKPOINT, names.SUMMARY))
        if begun:
            shutil.rmtree(aside, ignore_errors=True)
        own = [path for path in folder.iterdir() if path.name not in (LOCK, BEFORE)]
        if aside.is_dir():  # a run that had only begun to replace another: that one is kept
            _remove(own)
        elif own:
            aside.mkdir()
            for path in own:
                path.rename(aside / path.name)


def bring_back(folder: Path) -> None:
    """Take away a new run, and put back what was set aside for it."""
    aside = folder / BEFORE
    if not aside.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        return
    _remove([path for path in folder.iterdir() if path.name not in (LOCK, BEFORE)])
    for path in aside.iterdir():
        path.rename(folder / path.name)
    aside.rmdir()


def let_go(folder: Path) -> None:
    """Delete what was set aside."""
    shutil.rmtree(folder / BEFORE, ignore_errors=True)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _named(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _write_text(path: Path, text: str) -> None:
    with atomic_file(path, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
