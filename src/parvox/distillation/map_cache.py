"""Maps of whole utterances on disk, computed once for a teacher and cut like the items of a batch.

A cache is a folder of shards, under a name that stands for all that decides its maps. Shards are written whole or not
at all, each by whoever claims it first, so that an interrupted computation goes on where it was and several processes
share the work. What lies there is data: safetensors, float16.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from parvox.data.batch import Crop
from parvox.data.whole import WholeUtterance, WholeUtterances
from parvox.errors import ModelFileError, OutputError
from parvox.files import atomic_file, output_errors, try_lock
from parvox.models.frontend import FbankSettings
from parvox.progress import progress

FACTS = "maps.json"
_SHARD = 64  # utterances
_MOST_OPEN = 64  # shards
_WAIT_S = 0.5


class MapCache:
    """The maps of a corpus's training utterances at every speed, as far as they are computed.

    Args:
        parent: Where caches lie, each in a folder of its own.
        facts: All that decides the maps, JSON-ready: with any other teacher, setting or corpus it is another cache.
        speech: The utterances.
        features: The front end whose features are mapped.

    Attributes:
        folder: Of this cache.
    """

    def __init__(self, parent: Path, facts: dict[str, Any], speech: WholeUtterances, features: FbankSettings) -> None:
        names = list(speech.names())
        listed = hashlib.sha256(json.dumps(names).encode()).hexdigest()
        text = json.dumps({"format": 1, **facts, "utterances": len(names), "names": listed}, indent=1, sort_keys=True)
        self.folder = Path(parent) / hashlib.sha256(text.encode()).hexdigest()[:16]
        self._speech, self._features = speech, features
        self._numbers = {name: number for number, name in enumerate(names)}
        self._opened: OrderedDict[int, tuple[Any, np.ndarray]] = OrderedDict()
        with output_errors(self.folder):
            known = (self.folder / FACTS).is_file()
        if not known:
            with atomic_file(self.folder / FACTS, overwrite=True) as temporary:
                temporary.write_text(text, encoding="utf-8")

    def __len__(self) -> int:
        return len(self._speech)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes on disk."""
        return sum(path.stat().st_size for path in map(self._path, range(self._shards)) if path.is_file())

    def fill(self, make: Callable[[WholeUtterance], Tensor]) -> None:
        """Compute what is missing, together with other processes that do the same.

        Args:
            make: From an utterance to its map, (frames, bins) from 0 to 1.

        Raises:
            OutputError: there is no room, or the folder cannot be written.
        """
        missing = self._missing()
        self._expect_room(len(missing))
        while missing:
            worked = False
            for shard in progress(missing, "maps", unit="shard"):
                worked = self._fill_shard(shard, make) or worked
            missing = self._missing()
            if missing and not worked:
                time.sleep(_WAIT_S)  # others are at all that is left

    def read(self, ids: Sequence[str], crops: Sequence[Crop], frames: int) -> Tensor:
        """The maps of items, cut from those of their utterances where the items are cut.

        A frame of an item takes the nearest frame of its utterance; the two lie at most half a frame shift apart.

        Args:
            ids: Utterance of each item.
            crops: Which part of it the item is.
            frames: Of each item.

        Returns:
            (batch, frames, bins) float32.

        Raises:
            ModelFileError: a shard is gone or damaged.
        """
        cut = [self._cut(name, crop, frames) for name, crop in zip(ids, crops, strict=True)]
        return torch.from_numpy(np.stack(cut).astype(np.float32))

    def _cut(self, name: str, crop: Crop, frames: int) -> np.ndarray:
        shard, row = divmod(self._numbers[name, crop.speed], _SHARD)
        file, ends = self._shard(shard)
        first, end = int(ends[row]), int(ends[row + 1])
        shift = self._features.frame_shift
        starts = (crop.start + shift * np.arange(frames)) % crop.samples  # a short utterance starts over
        places = np.minimum(np.rint(starts / shift).astype(np.int64), end - first - 1)
        low, high = int(places.min()), int(places.max()) + 1
        part: np.ndarray = file.get_slice("maps")[first + low : first + high]
        wanted: np.ndarray = part[places - low]
        if not np.isfinite(wanted).all():
            raise self._damaged(self._path(shard), "values that are no numbers")
        return wanted

    def _shard(self, shard: int) -> tuple[Any, np.ndarray]:
        """A shard's file, and where in it each utterance begins, ended by its length."""
        if shard not in self._opened:
            path = self._path(shard)
            try:
                file = safe_open(path, framework="np")
                bounds, (frames, bins) = file.get_tensor("bounds"), file.get_slice("maps").get_shape()
            except (SafetensorError, OSError, ValueError) as error:
                raise self._damaged(path, str(error)) from error
            utterances = min(len(self) - shard * _SHARD, _SHARD)
            ends = bounds.tolist() if bounds.ndim == 1 else []
            rising = all(isinstance(end, int) and end > start for start, end in itertools.pairwise(ends))
            if len(ends) != utterances + 1 or not rising or (ends[0], ends[-1]) != (0, frames):
                raise self._damaged(path, f"other bounds than those of {utterances} utterances in {frames} frames")
            if bins != self._features.bins:
                raise self._damaged(path, f"{bins} bins instead of {self._features.bins}")
            self._opened[shard] = file, bounds
            if len(self._opened) > _MOST_OPEN:
                self._opened.popitem(last=False)
        self._opened.move_to_end(shard)
        return self._opened[shard]

    def _damaged(self, path: Path, how: str) -> ModelFileError:
        return ModelFileError(
            f"{path} is gone or damaged ({how}); delete {self.folder}, and the maps are computed anew"
        )

    def _fill_shard(self, shard: int, make: Callable[[WholeUtterance], Tensor]) -> bool:
        """Compute a shard, unless it is there or another process is at it."""
        path = self._path(shard)
        with _claimed(path.with_suffix(".lock")) as mine:
            if not mine or path.is_file():
                return False
            numbers = range(shard * _SHARD, min(len(self), (shard + 1) * _SHARD))
            maps = [make(self._speech[number]).cpu().numpy().astype(np.float16) for number in numbers]
            bounds = np.cumsum([0, *(len(each) for each in maps)])
            with atomic_file(path, overwrite=True) as temporary:
                try:
                    save_file({"maps": np.concatenate(maps), "bounds": bounds}, temporary)
                except SafetensorError as error:  # its way of saying that the disk is full
                    raise OutputError(
                        f"cannot write {path}: {error}; choose a folder that is writable and has room"
                    ) from error
        return True

    def _expect_room(self, missing: int) -> None:
        """Refuse before hours of work what cannot be kept."""
        settings = self._features
        per_second = 1000 / settings.frame_shift_ms * settings.bins * np.dtype(np.float16).itemsize
        needed = self._speech.seconds * per_second * missing / max(1, self._shards)
        with output_errors(self.folder):
            free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise OutputError(
                f"{self.folder}: the maps need about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; choose "
                "another folder, or compute maps as they are needed: leave distillation.integrated.cache empty"
            )

    @property
    def _shards(self) -> int:
        return -(-len(self) // _SHARD)

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:06d}.safetensors"

    def _missing(self) -> list[int]:
        return [shard for shard in range(self._shards) if not self._path(shard).is_file()]


@contextlib.contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Whether this process has a piece of work to itself, for the length of the block."""
    try:
        lock = try_lock(path)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
        if lock is not None:
            lock.close()
