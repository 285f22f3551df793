"""Tables of labelled images as the hub keeps them: read from a local parquet file or from the hub itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedprune.core.errors import DataError
from fedprune.data.images import IntArray


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are used; `group` holds coarse labels, each a natural sub-task."""

    image: str
    label: str
    group: str | None = None


@dataclass(frozen=True)
class Table:
    """One split of a data set, images still encoded.

    Attributes:
        encoded: Bytes of each image.
        labels: Class of each image.
        groups: Coarse class of each image, if there is such a column.
        names: Class names, by column, where the table has them.
        where: What was read, for error sentences.
    """

    encoded: list[bytes]
    labels: IntArray
    groups: IntArray | None
    names: Mapping[str, tuple[str, ...]]
    where: str


def read_local(path: Path, columns: Columns) -> Table:
    """Read a parquet file.

    Raises:
        DataError: the file is missing or is no parquet file, or a column is wrong.
    """
    import pyarrow
    import pyarrow.parquet

    if not path.is_file():
        raise DataError(
            f"There is no file {path}. Set data.root to the folder that holds it, or set FEDPRUNE_DATA to the folder "
            f"that holds the folder {path.parent.name!r}."
        )
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as a parquet file: {error}. Fetch it again.") from error
    metadata = (table.schema.metadata or {}).get(b"huggingface")
    features = json.loads(metadata)["info"]["features"] if metadata else {}
    names = {column: tuple(values["names"]) for column, values in features.items() if "names" in values}
    return _table(table, names, columns, str(path))


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
    return _table(dataset.with_format("arrow")[:], names, columns, where)


def _table(table: Any, names: Mapping[str, tuple[str, ...]], columns: Columns, where: str) -> Table:
    for column in (columns.image, columns.label, columns.group):
        if column is not None and column not in table.column_names:
            raise DataError(f"{where} has no column {column!r}. It has: {', '.join(table.column_names)}.")
    if not table.num_rows:
        raise DataError(f"{where} holds no images. Choose a file with at least one row.")
    groups = None if columns.group is None else _integers(table, columns.group, where)
    return Table(_bytes(table, columns.image, where), _integers(table, columns.label, where), groups, names, where)


def _bytes(table: Any, column: str, where: str) -> list[bytes]:
    """Return the encoded images of a column, which holds bytes, or the hub's structures with a field `bytes`."""
    import pyarrow

    values = table.column(column).combine_chunks()
    if pyarrow.types.is_struct(values.type) and "bytes" in {field.name for field in values.type}:
        values = values.field("bytes")
    if not (pyarrow.types.is_binary(values.type) or pyarrow.types.is_large_binary(values.type)):
        raise DataError(f"The column {column!r} of {where} holds {values.type}, not encoded images. Name another.")
    if values.null_count:
        raise DataError(f"The column {column!r} of {where} has {values.null_count} rows without an image. Drop them.")
    encoded: list[bytes] = values.to_pylist()
    return encoded


def _integers(table: Any, column: str, where: str) -> IntArray:
    import pyarrow

    values = table.column(column).combine_chunks()
    if not pyarrow.types.is_integer(values.type) or values.null_count:
        raise DataError(f"The column {column!r} of {where} holds {values.type}, not an integer a row. Name another.")
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.int64)
