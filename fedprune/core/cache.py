"""Arrays that are computed once: named by the content of what they follow from, verified when read."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np
from numpy.typing import NDArray

from fedprune.core.errors import DiskError
from fedprune.core.files import write_atomic
from fedprune.core.hashing import content_hash
from fedprune.core.memory import aligned

logger = logging.getLogger(__name__)


def cached_array(folder: Path, purpose: str, key: Any, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Return the array for `key` from `folder`, or compute and store it.

    Args:
        folder: The cache; safe to delete at any time.
        purpose: What the array is, part of the file's name, e.g. `"features"`.
        key: Everything that the array follows from; any value that `content_hash` takes.
        compute: Called without arguments where the cache has no sound copy.
    """
    path = folder / purpose / f"{content_hash(key, length=24)}.npz"
    stored = _read(path)
    if stored is not None:
        return stored
    values = compute()
    try:
        write_atomic(path, lambda temporary: _write(temporary, values))
    except DiskError as error:  # it will be computed again; a full disk is no reason to be without it now
        logger.warning("%s", error)
    return values


def _write(path: Path, values: NDArray[Any]) -> None:
    with path.open("wb") as file:
        np.savez(file, values=values, digest=np.array(content_hash(values)))


def _read(path: Path) -> NDArray[Any] | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            values: NDArray[Any] = aligned(file["values"])
            sound = str(file["digest"]) == content_hash(values)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, ZlibError):  # absent, truncated, foreign: compute
        return None
    return values if sound else None
