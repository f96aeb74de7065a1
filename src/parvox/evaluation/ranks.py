"""Embedding shared out over processes: those that torchrun started, or some of our own on this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from parvox.corpora.shards import by_shard
from parvox.errors import ParvoxError, TrialError
from parvox.processors import end_with_parent

if TYPE_CHECKING:
    from pathlib import Path

    from lhotse.cut import Cut

    from parvox.evaluation.system import System

T = TypeVar("T")

_MOST_PER_TASK = 128
_TASKS_PER_PROCESS = 8  # so that none is long idle at the end


@dataclass(frozen=True, eq=False)
class Ranks:
    """This process among those that torchrun started.

    Attributes:
        fabric: The engine that training uses as well.
    """

    fabric: Any = field(repr=False)

    @classmethod
    def join(cls, device: str | None = None) -> Ranks | None:
        """Join the others; None where torchrun did not start this process, or started it alone.

        Args:
            device: Where models compute, as PyTorch names it; GPUs if there are any by default.

        Raises:
            TrainingError: the device is not there.
        """
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world < 2:
            return None
        from parvox.training.engine import make_fabric
        from parvox.training.settings import TrainingSettings

        here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        accelerator: Any = "auto" if device is None else device.partition(":")[0]
        fabric, _ = make_fabric(TrainingSettings(accelerator=accelerator, precision="fp32", nodes=world // here))
        return cls(fabric)

    @property
    def first(self) -> bool:
        """Whether this process is the one that scores, reports and writes."""
        return bool(self.fabric.is_global_zero)

    @property
    def device(self) -> str:
        """Where models compute in this process."""
        return str(self.fabric.device)

    def end_others(self) -> None:
        """Let the first process go on alone, once all are here.

        Raises:
            SystemExit: in every other process.
        """
        self.fabric.barrier()
        if not self.first:
            raise SystemExit(0)

    def share(self, cuts: Sequence[Cut]) -> list[Cut]:
        """What this process is to do: every n-th recording or shard, the longest first, so that all have as much."""
        mine = pieces(cuts)[self.fabric.global_rank :: self.fabric.world_size]
        return [cut for piece in mine for cut in piece]

    def tell(self, work: Callable[[], T]) -> T:
        """What the first process finds, told to all; see `together` for errors.

        Args:
            work: Done by the first process alone.
        """
        return self.gather(lambda: work() if self.first else None)[0]  # type: ignore[return-value]

    def gather(self, work: Callable[[], T]) -> list[T]:
        """What each process finds, given to all; see `together` for errors.

        Args:
            work: Done by every process.
        """
        import torch.distributed

        with self.together():
            found = work()
        everyone: list[Any] = [None] * self.fabric.world_size
        torch.distributed.all_gather_object(everyone, found)
        return everyone

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Do the block in every process; what goes wrong in one ends all of them.

        Raises:
            ParvoxError: in the first process, whichever it happened in.
            SystemExit: in the others, which need not say it again.
        """
        import torch.distributed

        problem: ParvoxError | None = None
        try:
            yield
        except ParvoxError as error:
            problem = error
        everyone: list[Any] = [None] * self.fabric.world_size
        torch.distributed.all_gather_object(everyone, problem)
        for each in everyone:
            if each is not None and self.first:
                raise each
            if each is not None:
                raise SystemExit(2)


def pieces(cuts: Iterable[Cut]) -> list[list[Cut]]:
    """What is best read in one go, the utterances of a shard or a recording of its own; the longest first."""
    shards = by_shard(cuts)
    found = [[cut] for cut in shards.pop("", [])] + list(shards.values())
    return sorted(found, key=lambda piece: (-sum(cut.num_samples for cut in piece), piece[0].id))


def embed_in_processes(
    system: System, cuts: Sequence[Cut], processes: int
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Embed utterances in several processes of this machine, each with the model opened anew.

    Args:
        system: The model.
        cuts: The utterances.
        processes: How many.

    Yields:
        Id and embedding (embedding_dim,), as they are done.

    Raises:
        ParvoxError: a recording cannot be used, or a process was ended from outside.
    """
    found = pieces(cuts)
    alone = [cut for piece in found for cut in piece if len(piece) == 1]
    size = max(1, min(_MOST_PER_TASK, -(-len(alone) // (_TASKS_PER_PROCESS * processes))))
    tasks = [piece for piece in found if len(piece) > 1]
    tasks += [alone[start : start + size] for start in range(0, len(alone), size)]
    opened = (system.path, system.threads, system.device, processes)
    pool = ProcessPoolExecutor(
        min(processes, len(tasks)), mp_context=get_context("spawn"), initializer=_open, initargs=opened
    )
    try:
        for done in as_completed([pool.submit(_embed_task, task) for task in tasks]):
            ids, matrix = done.result()
            yield from zip(ids, matrix, strict=True)
    except BrokenProcessPool as error:
        raise ParvoxError(
            f"{system.name}: a process that embedded has died, for lack of memory perhaps; choose fewer --processes"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def check_processes(processes: int) -> None:
    """Raise `TrialError` for a number of processes that cannot be."""
    if not 1 <= processes <= 1024:
        raise TrialError(f"processes {processes} given; expected 1 to 1024, such as one for each processor core")


_system: System | None = None  # of a process of `embed_in_processes`


def _open(path: Path, threads: int, device: str | None, processes: int) -> None:
    """Open the model once for each process."""
    global _system
    end_with_parent()
    import torch

    from parvox.evaluation.system import load_system

    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    _system = load_system(path, threads=threads, device=device)


def _embed_task(cuts: list[Cut]) -> tuple[list[str], NDArray[np.float32]]:
    from parvox.evaluation.embeddings import embed_directly

    assert _system is not None
    pairs = list(embed_directly(_system, cuts, workers=0))
    return [utterance for utterance, _ in pairs], np.stack([embedding for _, embedding in pairs])
