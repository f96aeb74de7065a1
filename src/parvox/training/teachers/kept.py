"""A teacher whose embeddings are kept on disk, so that several students pay for them once.

A run hears the same items whatever its student and methods are, as long as seed, corpus, data and augmentation stay:
items are drawn, cut and augmented by these alone. So what a teacher said of a batch is found again by what it heard.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from parvox import __version__
from parvox.distillation.contract import View
from parvox.errors import ModelFileError, OutputError
from parvox.files import atomic_file, output_errors
from parvox.training.teachers.contract import Inputs, Teacher

_NAME = "embedding"


class KeptTeacher(Teacher):
    """Another teacher, asked only for batches that it has not heard before.

    It shows embeddings, and what the classifier makes of them; never what is inside.

    Args:
        teacher: Who is asked; nothing but its embeddings may be wanted.
        folder: Where its embeddings lie, one file a batch. Many teachers and runs may share it.

    Raises:
        OutputError: the folder cannot be written, or has no room.
        ModelFileError: a file in it is damaged.
    """

    def __init__(self, teacher: Teacher, folder: Path) -> None:
        self._teacher, self._folder = teacher, Path(folder)
        self.side, self.sample_rate_hz, self.min_samples = teacher.side, teacher.sample_rate_hz, teacher.min_samples
        self.classifier, self.speakers = teacher.classifier, teacher.speakers
        self.checksum, self.told, self.note = teacher.checksum, teacher.told, teacher.note
        self._decided = hashlib.sha256(f"{__version__} {teacher.checksum} {teacher.told}".encode())

    def embed(self, waveforms: Tensor) -> Tensor:
        """See `Teacher.embed`; not kept."""
        return self._teacher.embed(waveforms)

    def show_embeddings_alone(self) -> None:
        """See `Teacher.show_embeddings_alone`."""
        self._teacher.show_embeddings_alone()
        self.side = self._teacher.side

    def view(self, inputs: Inputs) -> View:
        """See `Teacher.view`."""
        name = self._name(inputs)
        path = self._folder / name[:2] / f"{name}.safetensors"
        with output_errors(path):
            kept = path.is_file()
        if kept:
            embedding = self._read(path, len(inputs.waveforms)).to(inputs.waveforms.device)
        else:
            embedding = self._teacher.view(inputs).embedding
            if embedding.isfinite().all():  # if not, the training ends with a word on it
                self._write(path, embedding)
        return View(embedding, self.classifier, inputs.labels, batch=inputs.batch)

    def _name(self, inputs: Inputs) -> str:
        """What stands for all that decides the embeddings: the teacher, its arithmetic, and what it hears."""
        device = inputs.waveforms.device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        digest = self._decided.copy()
        digest.update(f"{device} {autocast}".encode())
        for heard in self._teacher.hears(inputs):
            digest.update(f"{tuple(heard.shape)} {heard.dtype}".encode())
            digest.update(heard.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:32]

    def _read(self, path: Path, rows: int) -> Tensor:
        try:
            with safe_open(path, framework="pt") as file:
                embedding: Tensor = file.get_tensor(_NAME)
        except (SafetensorError, OSError) as error:
            raise _damaged(path, str(error)) from error
        expected = (rows, self.side.embedding_dim)
        if tuple(embedding.shape) != expected or not embedding.isfinite().all():
            raise _damaged(path, f"{tuple(embedding.shape)} {embedding.dtype}, expected {expected} finite numbers")
        return embedding

    def _write(self, path: Path, embedding: Tensor) -> None:
        with atomic_file(path, overwrite=True) as temporary:
            try:
                save_file({_NAME: embedding.detach().cpu().contiguous()}, temporary)
            except SafetensorError as error:  # its way of saying that the disk is full
                raise OutputError(
                    f"cannot write {path}: {error}; choose a folder that is writable and has room"
                ) from error


def _damaged(path: Path, how: str) -> ModelFileError:
    return ModelFileError(f"{path} is damaged ({how}); delete it, and the teacher is asked anew")
