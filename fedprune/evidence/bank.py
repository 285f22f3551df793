"""The score bank: rows of numbers by image, on disk, appended as more images are needed.

A bank is a folder of segments. A segment is one NumPy file, memory-mapped, written once and never changed; its name
is a hash of its folder's name and of its bytes, checked when the segment is opened, and again whenever the file has
been touched since. Rows are float16 times a power of two of their own:
a row's largest value sits near the top of float16's range, so 9 decades below it still have full precision.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedprune.core.errors import ModelError
from fedprune.core.files import write_atomic
from fedprune.core.hashing import content_hash, file_hash
from fedprune.data.images import IntArray

logger = logging.getLogger(__name__)

_TOP = 15  # rows are scaled to lie below 2^15; float16 ends at 65504


class Bank:
    """Rows of one family of numbers, by image index.

    Args:
        folder: Named after all that the rows follow from; safe to delete while no process runs.
        width: Numbers in a row.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self._folder, self._width = folder, width
        self._segments: dict[str, NDArray[np.void]] = {}
        self._stamps: dict[str, tuple[int, ...]] = {}
        self._places: dict[int, tuple[str, int]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return what goes along to another process, the rows as plain arrays: they can then be shared in memory."""
        segments = {name: segment.view(np.ndarray) for name, segment in self._segments.items()}
        return {**vars(self), "_segments": segments}

    def missing(self, indices: IntArray) -> IntArray:
        """Return the distinct `indices` that have no row yet, ascending."""
        self._refresh()
        return np.array([index for index in np.unique(indices).tolist() if index not in self._places], dtype=np.int64)

    def append(self, indices: IntArray, rows: NDArray[np.floating]) -> None:
        """Store the rows (len(indices), width) of new images as one more segment.

        Raises:
            ModelError: a number is not finite.
        """
        if not np.isfinite(rows).all():
            raise ModelError("The base gives scores that are not finite. Use precision fp32, or check its weights.")
        segment = np.empty(len(indices), self._layout())
        exponents = np.frexp(np.abs(rows).max(1))[1] - _TOP
        segment["index"], segment["exponent"] = indices, exponents
        segment["row"] = np.ldexp(rows, -exponents[:, None])

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.save(file, segment)

        unnamed = self._folder / f"new-{indices[0]}-{len(indices)}.npy"
        write_atomic(unnamed, write)
        unnamed.replace(self._folder / f"{self._name(unnamed)}.npy")
        self._refresh()

    def read(self, indices: IntArray) -> NDArray[np.float32]:
        """Return the rows of `indices` (len(indices), width); all must be there."""
        rows = torch.empty(len(indices), self._width)
        places = [self._places[index] for index in indices.tolist()]
        for name in dict.fromkeys(name for name, _ in places):
            mine = np.array([at for at, place in enumerate(places) if place[0] == name])
            stored = self._segments[name][np.array([places[at][1] for at in mine])]
            # torch does each step three to ten times as fast as NumPy; the product with a power of two is exact
            halves, powers = torch.from_numpy(stored["row"]), np.ldexp(np.float32(1), stored["exponent"])
            rows[torch.from_numpy(mine)] = halves.float().mul_(torch.from_numpy(powers)[:, None])
        read: NDArray[np.float32] = rows.numpy()
        return read

    def _layout(self) -> np.dtype[np.void]:
        return np.dtype([("index", np.int64), ("exponent", np.int32), ("row", np.float16, (self._width,))])

    def _refresh(self) -> None:
        """Open segments that appeared since the last look; in name order, so that all processes see the same."""
        for path in sorted(self._folder.glob("[0-9a-f]*.npy")):
            stamp = _stamp(path)
            if stamp is not None and self._stamps.get(path.stem) == stamp:
                continue
            self._forget(path.stem)
            segment = self._open(path)
            if segment is None:
                logger.warning("The score bank's segment %s is damaged; its rows are computed again.", path)
                path.unlink(missing_ok=True)
                continue
            self._segments[path.stem], self._stamps[path.stem] = segment, stamp or ()
            for row, index in enumerate(segment["index"].tolist()):
                self._places.setdefault(index, (path.stem, row))

    def _forget(self, name: str) -> None:
        """Leave a segment that has been touched."""
        if self._segments.pop(name, None) is not None:
            self._places = {index: place for index, place in self._places.items() if place[0] != name}

    def _open(self, path: Path) -> NDArray[np.void] | None:
        try:
            if self._name(path) != path.stem:
                return None
            segment: NDArray[np.void] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            return None
        return segment if segment.dtype == self._layout() else None

    def _name(self, path: Path) -> str:
        return content_hash(self._folder.name, file_hash(path, length=64), length=32)


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Return what changes whenever a file is touched; no program can set the last of it."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
