"""Blocks of columns of wide logits.

With many classes a (batch, classes) tensor is larger than a processor's cache, and each operation over all of it waits
for memory. What is done to one block after the other waits once.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

_IN_CACHE = 1 << 17  # numbers of a block: half a dozen such are at work at once


def blocks(logits: Tensor) -> Iterator[slice]:
    """Columns that are worked on together: as many as a processor's cache holds, all of them on other devices.

    Args:
        logits: (batch, classes).
    """
    batch, count = logits.shape
    width = max(1, _IN_CACHE // batch) if logits.device.type == "cpu" else count
    return (slice(start, start + width) for start in range(0, count, width))
