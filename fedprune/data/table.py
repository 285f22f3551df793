"""Tables of labelled images as the hub keeps them: read from local parquet files or from the hub itself.

Images stay in the pieces (chunks) in which they come: one array of all would overflow at 2 GiB.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.core.errors import DataError
from fedprune.data.images import IntArray
from fedprune.data.labels import Column, Labels, in_natural_order

ROWS = 1024  # of a piece


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are used; `group` holds coarse labels, each a natural sub-task, `client` owners."""

    image: str
    label: str
    group: str | None = None
    client: str | None = None

    @property
    def used(self) -> list[str]:
        """The columns that are read."""
        return [name for name in (self.image, self.label, self.group, self.client) if name is not None]


class Chunks(Sequence[bytes]):
    """Binary values in the arrays in which Arrow holds them; one becomes `bytes` when it is asked for."""

    def __init__(self, chunks: Sequence[Any]) -> None:
        self.chunks = [chunk for chunk in chunks if len(chunk)]
        self.ends = np.cumsum([len(chunk) for chunk in self.chunks])

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        chunk = int(np.searchsorted(self.ends, index, side="right"))
        value: bytes = self.chunks[chunk][index - int(self.ends[chunk])].as_py()
        return value


@dataclass(frozen=True)
class Table:
    """One split of a data set, images still encoded.

    Attributes:
        encoded: Bytes of each image.
        label: Class of each image.
        groups: Coarse class of each image, if there is such a column.
        where: What was read, for error sentences.
        clients: Name of each image's owner, if there is such a column.
    """

    encoded: Sequence[bytes]
    label: Column
    groups: Column | None
    where: str
    clients: NDArray[np.str_] | None = None

    def members(self, labels: IntArray) -> Mapping[str, tuple[int, ...]]:
        """Return the classes that stand in each coarse class, `labels` being the class of each image."""
        if self.groups is None:
            return {}
        values = self.groups.values
        titled: list[tuple[str, Any]]
        if values.dtype.kind == "U":
            titled = [(name, name) for name in in_natural_order([str(value) for value in values])]
        else:
            titles = self.groups.names or [str(key) for key in range(int(values.max()) + 1)]
            titled = [(title, key) for key, title in enumerate(titles)]
        found = {title: np.unique(labels[values == key]) for title, key in titled}
        return {title: tuple(classes.tolist()) for title, classes in found.items() if len(classes)}


def find_files(folder: Path, file: str) -> list[Path]:
    """Return the parquet file of that name, or the hub's parts of it (`train-00000-of-00012.parquet`, ...).

    Raises:
        DataError: there is none, or parts are missing.
    """
    if (folder / file).is_file():
        return [folder / file]
    stem = Path(file).stem
    for place in (folder, folder / "data"):
        found = {path.name: path for path in place.glob(f"{stem}-*-of-*.parquet")}
        counts = {int(match[1]) for name in found if (match := re.search(r"-of-(\d+)\.parquet$", name))}
        if not counts:
            continue
        digits = len(next(iter(found)).removesuffix(".parquet").rsplit("-of-", 1)[1])
        wanted = [f"{stem}-{part:0{digits}d}-of-{max(counts):0{digits}d}.parquet" for part in range(max(counts))]
        if lacking := [name for name in wanted if name not in found]:
            raise DataError(f"There is no file {place / lacking[0]}, a part of {file}. Fetch all parts.")
        return [found[name] for name in wanted]
    raise DataError(
        f"There is no file {folder / file}. Set data.root to the folder that holds it, or set FEDPRUNE_DATA to the "
        f"folder that holds the folder {folder.name!r}."
    )


def read_local(paths: Sequence[Path], columns: Columns) -> Table:
    """Read a parquet file, or all parts of one.

    Raises:
        DataError: a file is no parquet file, or a column is wrong.
    """
    return _table(*_read_files(paths, columns.used), columns, _where(paths))


def read_encoded(paths: Sequence[Path], column: str) -> Sequence[bytes]:
    """Read the images of parquet files alone, still encoded.

    Raises:
        DataError: a file is no parquet file, or the column is wrong.
    """
    table, _ = _read_files(paths, [column])
    return _images(table, column, _where(paths))


def columns_of(path: Path) -> list[str]:
    """Return the names of a parquet file's columns.

    Raises:
        DataError: it is no parquet file.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        return list(pyarrow.parquet.read_schema(path).names)
    except (pyarrow.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def _read_files(paths: Sequence[Path], used: list[str]) -> tuple[Any, Mapping[str, tuple[str, ...]]]:
    """Return the used columns of all files as one table, and the class names that they tell."""
    import pyarrow
    import pyarrow.parquet

    batches: list[Any] = []
    names: dict[str, tuple[str, ...]] = {}
    try:
        for path in paths:
            with pyarrow.parquet.ParquetFile(path) as file:
                _require_columns(used, file.schema_arrow.names, str(path))
                names = names or _class_names(file.schema_arrow.metadata)
                batches += list(file.iter_batches(ROWS, columns=used))
        return pyarrow.Table.from_batches(batches) if batches else file.schema_arrow.empty_table(), names
    except (pyarrow.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read as a parquet file: {error}. Fetch it again.")


def _where(paths: Sequence[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and its other parts"


def read_hub(repository: str, split: str, columns: Columns) -> Table:
    """Read one split of a data set from the Hugging Face hub, or from its local cache.

    Raises:
        DataError: it cannot be fetched, or a column is wrong.
    """
    import datasets  # takes seconds to import, and only the hub needs it

    where = f"the split {split!r} of {repository!r} on the hub"
    try:
        dataset = datasets.load_dataset(repository, split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"Cannot load {where}: {type(error).__name__}. Check the network, or set data.root to a folder that holds "
            "the data set's parquet files."
        ) from error
    features = dataset.features
    names = {column: tuple(feature.names) for column, feature in features.items() if hasattr(feature, "names")}
    _require_columns(columns.used, dataset.column_names, where)
    return _table(dataset.select_columns(columns.used).with_format("arrow")[:], names, columns, where)


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Return the class names that the hub wrote beside the schema; what is not of its form has none."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: tuple(map(str, values["names"]))
            for column, values in features.items()
            if isinstance(values, dict) and isinstance(values.get("names"), list)
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _require_columns(used: Iterable[str], there: Iterable[str], where: str) -> None:
    for column in used:
        if column not in there:
            raise DataError(f"{where} has no column {column!r}. It has: {', '.join(there)}.")


def _table(table: Any, names: Mapping[str, tuple[str, ...]], columns: Columns, where: str) -> Table:
    if not table.num_rows:
        raise DataError(f"{where} holds no images. Choose a file with at least one row.")

    def column(name: str) -> Column:
        return Column(_labels(table, name, where), names.get(name, ()), where)

    groups = None if columns.group is None else column(columns.group)
    clients = None if columns.client is None else _labels(table, columns.client, where).astype(np.str_)
    return Table(_images(table, columns.image, where), column(columns.label), groups, where, clients)


def _images(table: Any, column: str, where: str) -> Chunks:
    """Return the encoded images of a column, which holds bytes, or the hub's structures with a field `bytes`."""
    import pyarrow
    import pyarrow.compute

    values = table.column(column)
    if pyarrow.types.is_struct(values.type) and "bytes" in {field.name for field in values.type}:
        values = pyarrow.compute.struct_field(values, "bytes")
    if not (pyarrow.types.is_binary(values.type) or pyarrow.types.is_large_binary(values.type)):
        raise DataError(f"The column {column!r} of {where} holds {values.type}, not encoded images. Name another.")
    if values.null_count:
        raise DataError(f"The column {column!r} of {where} has {values.null_count} rows without an image. Drop them.")
    return Chunks(values.chunks)


def _labels(table: Any, column: str, where: str) -> Labels:
    import pyarrow

    values = table.column(column)
    if pyarrow.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    text = pyarrow.types.is_string(values.type) or pyarrow.types.is_large_string(values.type)
    if not (text or pyarrow.types.is_integer(values.type)) or values.null_count:
        raise DataError(
            f"The column {column!r} of {where} holds {values.type}, not an integer a row or a name. Name another."
        )
    listed = values.to_pylist()
    return np.array(listed, np.str_) if text else np.array(listed, np.int64)
