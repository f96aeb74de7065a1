"""From a prepared corpus to batches of waveforms."""

from parvox.data.augmentation import Augmenter
from parvox.data.batch import Batch
from parvox.data.batches import Batches
from parvox.data.settings import AugmentationSettings, DataSettings
from parvox.data.utterances import UtteranceBatch, iterate_utterances

__all__ = [
    "AugmentationSettings",
    "Augmenter",
    "Batch",
    "Batches",
    "DataSettings",
    "UtteranceBatch",
    "iterate_utterances",
]
