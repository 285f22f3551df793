"""What is computed once: kept under a name that holds all that it follows from, and verified on every read."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedprune.core.arithmetic import arithmetic
from fedprune.core.errors import DiskError
from fedprune.core.hashing import content_hash
from fedprune.core.memory import aligned
from fedprune.core.sealed import Damaged, read_sealed, write_sealed

FORMAT = 1  # of what is kept; another number computes everything anew

logger = logging.getLogger(__name__)


def cache_key(key: Any) -> str:
    """Return the name of something computed: a hash of `key` and of all else that changes its last bits."""
    return content_hash(FORMAT, arithmetic(), key, length=40)


def cached_array(folder: Path, purpose: str, key: Any, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Return the array for `key` from `folder`, or compute and store it.

    Args:
        folder: The cache; safe to delete at any time.
        purpose: What the array is, part of the file's name, e.g. `"features"`.
        key: Everything that the array follows from; any value that `content_hash` takes.
        compute: Called without arguments where the cache has no sound copy.
    """
    name = cache_key(key)
    stored = read_kept(_place(folder, purpose, name), name)
    if stored is not None:
        return aligned(stored["values"].numpy())
    values = compute()
    keep(_place(folder, purpose, name), name, {"values": torch.from_numpy(np.array(values, order="C"))})
    return values


def read_kept(path: Path, name: str) -> dict[str, Tensor] | None:
    """Return the tensors that `keep` wrote under this name, or None where there are none that are sound."""
    try:
        return read_sealed(path, name)[0]
    except FileNotFoundError:
        return None
    except Damaged as error:
        logger.warning("%s It is computed again.", error)
        return None


def keep(path: Path, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors for `read_kept`; a disk that is full is no reason to be without them now."""
    try:
        write_sealed(path, tensors, name)
    except DiskError as error:
        logger.warning("%s", error)


def _place(folder: Path, purpose: str, name: str) -> Path:
    return folder / purpose / f"{name[:24]}.safetensors"
