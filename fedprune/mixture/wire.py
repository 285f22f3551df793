"""Named arrays as .npy bytes, and back from bytes that nobody vouches for.

NumPy's own reader evaluates the header as a Python literal and allocates what it asks for. This one accepts only the
one spelling that NumPy writes for plain little-endian numbers, and looks at the size before it touches the data.
"""

import io
import re

import numpy as np
from numpy.typing import NDArray

from fedprune.core.errors import ReportRejected
from fedprune.core.memory import aligned

_MAGIC = b"\x93NUMPY\x01\x00"
_SHAPE = r"(?:\d{1,9},|\d{1,9}(?:, \d{1,9}){1,2})?"
_HEADER = re.compile(
    rf"\{{'descr': '(<f2|<f4|<f8|<i8)', 'fortran_order': False, 'shape': \(({_SHAPE})\), \}} *\n".encode()
)
_MAX_HEADER = 256


def encode(array: NDArray[np.floating] | NDArray[np.int64]) -> bytes:
    """Write an array as .npy bytes, format version 1.0, without pickle."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def decode(name: str, data: bytes, max_values: int) -> NDArray[np.float64] | NDArray[np.int64]:
    """Read .npy bytes of a float or int64 array with at most `max_values` values and three dimensions.

    Memory stays below a small multiple of `8 * max_values`, whatever the bytes claim.

    Raises:
        ReportRejected: the bytes are anything else; the message starts with `name`.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ReportRejected(f"{name}: not bytes.")
    if len(data) > 8 * max_values + _MAX_HEADER:
        raise ReportRejected(f"{name}: {len(data)} bytes are more than {max_values} values need.")
    head = bytes(data[: 10 + _MAX_HEADER])
    if len(head) < 10 or head[:8] != _MAGIC:
        raise ReportRejected(f"{name}: not a .npy array of format 1.0.")
    length = int.from_bytes(head[8:10], "little")
    match = _HEADER.fullmatch(head[10 : 10 + length]) if length <= _MAX_HEADER else None
    if match is None:
        raise ReportRejected(f"{name}: the header does not describe a plain float or int64 array.")
    dtype = np.dtype(match[1].decode())
    shape = tuple(int(size) for size in match[2].split(b",") if size)
    values = int(np.prod(shape, dtype=object))
    if values > max_values:
        raise ReportRejected(f"{name}: shape {shape} holds more than {max_values} values.")
    if len(data) != 10 + length + values * dtype.itemsize:
        raise ReportRejected(f"{name}: the data does not fill shape {shape}.")
    array = np.frombuffer(data, dtype=dtype, count=values, offset=10 + length).reshape(shape)
    return aligned(array.astype(np.int64)) if dtype.kind == "i" else aligned(array.astype(np.float64))
