"""Studies of token reducers that can be stopped and go on: a point that stands in the table is not measured again."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from filelock import FileLock

from fedprune.core.files import write_atomic
from fedprune.core.random import stream
from fedprune.core.registry import lookup
from fedprune.data.images import ImageSet, IntArray
from fedprune.tokens.measure import measure
from fedprune.tokens.reduced import ReducedModel, reduce
from fedprune.tokens.reducer import Reducer
from fedprune.vit.base import Base
from fedprune.vit.counts import count_macs

Row = dict[str, Any]
TRAINING_FREE = ("evit", "tome", "ats", "evo_vit", "ppt", "sait")
KEEPS: Mapping[str, tuple[float, ...]] = {
    "tome": (0.2, 0.5, 0.05),
    "evo_vit": (0.6, 0.8, 0.4),
    "sait": (0.6, 0.8, 0.4),
}
STAGED_KEEPS = (0.7, 0.9, 0.5)


class Table:
    """Rows of a CSV file, known by some of their columns; several processes may add to one file."""

    def __init__(self, path: Path, keys: tuple[str, ...]) -> None:
        self.path, self.keys = path, keys
        self.rows = self._read()

    def _read(self) -> list[Row]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def add(self, key: Row, compute: Callable[[], Row]) -> Row:
        """Return the row of `key`, computed and written where it is not there."""
        found = self.find(key)
        if found is not None:
            return found
        row = {**key, **compute()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")):
            self.rows = [*self._read(), row]
            write_atomic(self.path, self._write)
        return row

    def find(self, key: Row) -> Row | None:
        """Return the row of `key`, if it is there."""
        wanted = [str(key[name]) for name in self.keys]
        return next((row for row in self.rows if [str(row[name]) for name in self.keys] == wanted), None)

    def _write(self, path: Path) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def sample(images: ImageSet, count: int, seed: int = 0) -> IntArray:
    """Return `count` seeded indices of `images`, or all."""
    order = stream(seed, "token study").permutation(len(images))
    return np.sort(order[:count]).astype(np.int64)


def training_free() -> Iterator[tuple[str, Reducer, bool]]:
    """Yield name, reducer and whether counts are ragged, for every point of the study."""
    for name in TRAINING_FREE:
        for keep in KEEPS.get(name, STAGED_KEEPS):
            reducer = lookup("tokens", name)(keep=keep)
            yield name, reducer, False
            if name == "ats":
                yield f"{name} ragged", reducer, True


def accuracy_points(base: Base, images: ImageSet, count: int, table: Table, only: Sequence[str]) -> Iterator[Row]:
    """Measure the training-free reducers on `count` images, all or `only` some; yields each row when it is there."""
    indices = sample(images, count)
    reducers = [("base", lookup("tokens", "none")(), False), *training_free()]
    for title, reducer, ragged in reducers:
        if only and title.split()[0] not in only:
            continue
        model = reduce(base.model, base.shape, reducer).set_ragged(ragged)
        key = {"reducer": title, "keep": reducer.keep, "images": len(indices)}
        yield table.add(key, partial(point, base, model, images, indices))


def point(base: Base, model: ReducedModel, images: ImageSet, indices: IntArray) -> Row:
    """Measure one reduced model on `indices` of `images`."""
    begin = process_time()
    done = measure(model, base.preprocess, images, indices)
    macs, labels = float(done.macs.mean()), images.labels[indices]
    return {
        "mac_share": round(macs / count_macs(base.shape), 4),
        "gmacs": round(macs / 1e9, 4),
        "correct": int((done.logits.argmax(1) == labels).sum()),
        "accuracy": round(100 * done.accuracy(labels), 2),
        "cpu_seconds": round(process_time() - begin, 1),
    }
