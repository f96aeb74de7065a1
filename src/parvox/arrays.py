"""Arrays in NumPy's file format, from files that may be damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class DamagedArraysError(ValueError):
    """A file is no NumPy archive, or a damaged one."""


def read_arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    """All arrays of an .npz file, by name; Python objects are never unpickled.

    Raises:
        FileNotFoundError: it is missing.
        DamagedArraysError: it is something else, or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise
    except MemoryError:
        raise DamagedArraysError(f"{path}: arrays larger than the memory") from None
    except Exception as error:  # damaged bytes make zipfile, zlib and NumPy raise nearly anything
        raise DamagedArraysError(f"{path}: {error}") from error
