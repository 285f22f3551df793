"""What is computed once: kept under a name that holds all that it follows from, and verified on every read."""

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fedprune.core.arithmetic import arithmetic
from fedprune.core.errors import DiskError
from fedprune.core.hashing import content_hash
from fedprune.core.memory import aligned
from fedprune.core.sealed import Damaged, read_sealed, write_sealed
from fedprune.core.text import describe

FORMAT = 1  # of what is kept; another number computes everything anew
FOUND = re.compile(r"([a-z]{1,20})/([0-9a-f]{40})")  # how arrays that were found elsewhere are named

_found: dict[str, Tensor] | None = None  # arrays by purpose and name, in a process that must not keep them itself
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
    kept = torch.from_numpy(np.array(values, order="C"))
    if _found is None:
        keep(_place(folder, purpose, name), name, {"values": kept})
    else:
        _found[f"{purpose}/{name}"] = kept
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


def only_read() -> None:
    """From now on this process keeps nothing itself; what `cached_array` computes waits for `take_found`."""
    global _found
    _found = {}


def take_found(limit: int) -> bytes:
    """Return the arrays that were computed since the last call, to be sent; nothing where they exceed `limit` bytes."""
    found = dict(_found or {})
    (_found or {}).clear()
    return save(found) if 0 < sum(values.nbytes for values in found.values()) < limit else b""


def keep_found(folder: Path, data: bytes) -> None:
    """Keep what another process has found in a folder of its own: whatever it holds, only its sender reads it."""
    if not data:
        return
    try:
        found = load(data)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        logger.warning("What was to be kept in %s cannot be read: %s", folder, describe(error))
        return
    for known in filter(None, map(FOUND.fullmatch, found)):
        purpose, name = known.groups()
        keep(_place(folder, purpose, name), name, {"values": found[known[0]]})


def _place(folder: Path, purpose: str, name: str) -> Path:
    return folder / purpose / f"{name[:24]}.safetensors"
