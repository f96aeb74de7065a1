"""Tiny corpora of written files, as Lhotse cuts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

RATE = 16000


def write_cut(path: Path, samples: np.ndarray, speaker: str | None = None, subtype: str = "PCM_16") -> MonoCut:
    """Write samples to a file named after the utterance and describe it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE, subtype=subtype)
    recording = Recording.from_file(path)
    spoken = [SupervisionSegment(path.stem, path.stem, 0, recording.duration, speaker=speaker)] if speaker else []
    return MonoCut(path.stem, 0, recording.duration, 0, supervisions=spoken, recording=recording)


@dataclass
class MadeCorpus:
    """Stands in for a prepared corpus."""

    train: list[MonoCut]
    noises: list[MonoCut] = field(default_factory=list)
    rooms: list[MonoCut] = field(default_factory=list)

    def cuts(self, split: str, *, lazy: bool = False) -> CutSet:
        assert split == "train"
        return CutSet.from_cuts(self.train)

    def noise(self) -> CutSet | None:
        return CutSet.from_cuts(self.noises) if self.noises else None

    def rirs(self) -> CutSet | None:
        return CutSet.from_cuts(self.rooms) if self.rooms else None
