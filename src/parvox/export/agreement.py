"""Does the exported graph give what PyTorch gives, alone and in padded batches?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from parvox.errors import ExportError
from parvox.export.calibrate import Clip
from parvox.export.session import cosine_distances, embed
from parvox.models import SpeakerModel
from parvox.progress import progress

MAX_COSINE_DISTANCE = 1e-4
"""Beyond this an export is refused."""
MAX_INT8_PADDING_DISTANCE = 2e-3
"""The same for an int8 graph's embeddings in a padded batch and alone. A sum over more frames rounds its last bit
otherwise, which tips single values to the neighbouring 8-bit number: some 1e-4 in all."""

_BATCH = 4


def check_against_pytorch(model: SpeakerModel, session: Any, clips: Sequence[Clip]) -> float:
    """Compare a graph with the model it was made from.

    Each clip is embedded by PyTorch alone, and by the graph alone and in a batch with others, padded. The shortest
    clip is also cut to the fewest samples that the model accepts.

    Args:
        model: In evaluation mode, on the CPU.
        session: Of the graph.
        clips: Waveforms (samples,) of real speech, of several lengths.

    Returns:
        The largest cosine distance.

    Raises:
        ExportError: it is above `MAX_COSINE_DISTANCE`, or the model's own embeddings are not finite.
    """
    clips = [clips[0][: model.min_samples], *clips]
    wanted = np.stack([_pytorch(model, clip) for clip in progress(clips, "checking against PyTorch", unit="clip")])
    if not np.isfinite(wanted).all():
        raise ExportError(
            "the model's own embedding of a real clip is not finite; its weights are broken: train it again"
        )
    alone = np.concatenate([embed(session, [clip]) for clip in clips])
    _refuse(model, "alone", cosine_distances(wanted, alone), clips)
    together = batched(session, clips)
    _refuse(model, "in a padded batch", cosine_distances(wanted, together), clips)
    return float(max(cosine_distances(wanted, alone).max(), cosine_distances(wanted, together).max()))


def check_padding(session: Any, clips: Sequence[Clip]) -> float:
    """Compare an int8 graph's embeddings of clips in padded batches with those of the same clips alone.

    Returns:
        The largest cosine distance.

    Raises:
        ExportError: it is above `MAX_INT8_PADDING_DISTANCE`.
    """
    alone = np.concatenate([embed(session, [clip]) for clip in clips])
    distances = cosine_distances(alone, batched(session, clips))
    if distances.max() > MAX_INT8_PADDING_DISTANCE:
        raise ExportError(
            f"int8 gives a clip another embedding in a padded batch than alone: cosine distance "
            f"{distances.max():.2g}, more than the {MAX_INT8_PADDING_DISTANCE:g} allowed; nothing was written: "
            "export fp32"
        )
    return float(distances.max())


def batched(session: Any, clips: Sequence[Clip]) -> NDArray[np.float32]:
    """Embeddings (clips, dim) of clips, run in batches that put short ones beside long ones."""
    rows = np.empty((len(clips), 0), np.float32)
    batches = max(1, len(clips) // _BATCH)
    for first in range(batches):
        chosen = list(range(first, len(clips), batches))
        found = embed(session, [clips[index] for index in chosen])
        if not rows.size:
            rows = np.empty((len(clips), found.shape[1]), np.float32)
        rows[chosen] = found
    return rows


def _pytorch(model: SpeakerModel, clip: Clip) -> NDArray[np.float32]:
    with torch.inference_mode():
        embedding: NDArray[np.float32] = model(torch.from_numpy(clip[None])).embedding[0].float().numpy()
    return embedding


def _refuse(model: SpeakerModel, how: str, distances: NDArray[np.float64], clips: Sequence[Clip]) -> None:
    worst = int(distances.argmax())
    if distances[worst] > MAX_COSINE_DISTANCE:
        seconds = len(clips[worst]) / model.settings.features.sample_rate_hz
        raise ExportError(
            f"PyTorch and the exported graph differ on a real clip of {seconds:.2f} s {how}: cosine distance "
            f"{distances[worst]:.2g}, more than the {MAX_COSINE_DISTANCE:g} allowed; nothing was written: an "
            "operation of this model does not survive export"
        )
