"""The teacher's maps of a batch: computed, or cut from those of whole utterances that are kept on disk."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from parvox.data.whole import WholeUtterance, WholeUtterances
from parvox.distillation.attribution import evaluating, true_speaker_score
from parvox.distillation.contract import View
from parvox.distillation.map_cache import MapCache
from parvox.distillation.maps import MapSettings, normalised, saliency, segment_lengths
from parvox.losses.registry import SpeakerLoss
from parvox.models.speaker_model import SpeakerModel


class TeacherMaps:
    """Maps of what a teacher's score of the true speaker rests on.

    Maps on disk are those of clean whole utterances: their longest segments hear more than an item does, and no
    augmentation. Those computed are of the items themselves, as the teacher hears them.

    Args:
        model: The teacher.
        classifier: Its speaker head.
        settings: How maps are made.
    """

    def __init__(self, model: SpeakerModel, classifier: SpeakerLoss, settings: MapSettings) -> None:
        self._model, self._classifier, self._settings = model, classifier, settings
        self._cache: MapCache | None = None

    def keep(self, folder: Path, speech: WholeUtterances, corpus: str) -> MapCache:
        """Compute the maps of all utterances, as far as `folder` has not got them, and use them from now on.

        Args:
            folder: Where caches lie.
            speech: The utterances.
            corpus: Fingerprint of their corpus.

        Raises:
            OutputError: there is no room for them.
        """
        facts = {
            "teacher": checksum(self._model, self._classifier),
            "corpus": corpus,
            "maps": dataclasses.asdict(self._settings),
            "arithmetic": str(self._arithmetic()),
        }
        cache = MapCache(folder, facts, speech, self._model.settings.features)
        with torch.no_grad():
            cache.fill(self._of_whole)
        self._cache = cache
        return cache

    @torch.no_grad()
    def of(self, view: View) -> Tensor:
        """The maps of a batch, (batch, frames, bins), 0 or more.

        Args:
            view: The teacher's.
        """
        assert view.features is not None  # methods ask for it when they are built
        assert view.labels is not None
        if self._cache is None:
            return self.compute(view.features, view.labels)
        assert view.batch is not None
        maps = self._cache.read(view.batch.ids, view.batch.crops, view.features.shape[1])
        return maps.to(view.features.device, view.features.dtype)

    def compute(self, features: Tensor, labels: Tensor) -> Tensor:
        """The maps of features (batch, frames, bins) of the speakers `labels` (batch,), of the same shape."""
        score = true_speaker_score(self._model, self._classifier, labels, self._settings.target)
        with evaluating(self._model):
            return saliency(score, features, item_segments(self._settings, self._model, features), self._settings)

    def _of_whole(self, utterance: WholeUtterance) -> Tensor:
        """The map of a whole utterance, (frames, bins) from 0 to 1."""
        waveform = torch.from_numpy(utterance.waveform).to(self._device)
        if len(waveform) < self._model.min_samples:  # played over and over, as an item of it is
            waveform = waveform.repeat(-(-self._model.min_samples // len(waveform)))
        features, _ = self._model.extract_features(waveform.unsqueeze(0))
        maps = self.compute(features, torch.tensor([utterance.label], device=self._device))
        return normalised(maps, "minmax").squeeze(0)

    @property
    def _device(self) -> torch.device:
        return next(self._model.parameters()).device

    def _arithmetic(self) -> torch.dtype:
        kind = self._device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.get_default_dtype()


def item_segments(settings: MapSettings, model: SpeakerModel, features: Tensor) -> list[int]:
    """Frames of the segments that a model is shown of features (batch, frames, bins), for each duration."""
    frame_s = model.settings.features.frame_shift_ms / 1000
    return segment_lengths(settings.durations_s, frame_s, features.shape[1], model.encoder.min_frames)


def checksum(model: SpeakerModel, classifier: SpeakerLoss) -> str:
    """SHA-256 of a model's and its classifier's settings and weights."""
    digest = hashlib.sha256(repr(model.settings).encode())
    parts: tuple[nn.Module, ...] = (model, classifier)
    for part in parts:
        digest.update(f"{type(part).__name__} {getattr(part, 'settings', None)!r}".encode())
        for name, tensor in part.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
