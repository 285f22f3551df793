"""Named arrays as one safetensors blob, and back from bytes that nobody vouches for."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from fedprune.core.errors import ReportRejected
from fedprune.core.memory import aligned

MAX_HEADER = 1024  # bytes; a report's takes about 600
DTYPES = ("float16", "float32", "float64", "int64")


def encode(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Write arrays as one safetensors blob without metadata."""
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return save(contiguous)


def decode(blob: bytes, max_bytes: int) -> dict[str, NDArray[Any]]:
    """Read a blob that `encode` wrote; memory stays below a small multiple of `max_bytes`, whatever it claims.

    Lengths are checked before anything is parsed. A blob must be, byte for byte, what `encode` writes for the arrays
    that it holds: then no name comes twice, nothing hides between, behind or beside the arrays, and two blobs that
    hold the same are the same.

    Raises:
        ReportRejected: the bytes are anything else.
    """
    if not isinstance(blob, bytes):
        raise ReportRejected("upload: not bytes.")
    if len(blob) > max_bytes:
        raise ReportRejected(f"upload: {len(blob)} bytes are more than {max_bytes}.")
    if not 2 <= int.from_bytes(blob[:8], "little") <= MAX_HEADER or len(blob) < 10:
        raise ReportRejected(f"upload: no safetensors header of at most {MAX_HEADER} bytes.")
    try:
        arrays = load(blob)
    except Exception as error:  # the loader raises its own, NumPy's and KeyError for types that NumPy lacks
        raise ReportRejected("upload: not a whole safetensors blob.") from error
    for array in arrays.values():
        if array.dtype.name not in DTYPES:
            raise ReportRejected(f"upload: {array.dtype.name} is not one of {', '.join(DTYPES)}.")
    if encode(arrays) != blob:
        raise ReportRejected("upload: not the one way of writing what it holds.")
    # As float64 or int64, in memory of their own: bits must not depend on where in the blob an array stood.
    return {
        name: aligned(array.astype(np.int64 if array.dtype.kind == "i" else np.float64))
        for name, array in arrays.items()
    }
