"""`devices.parquet`: a row a device, written plainly, and read within limits whatever the file holds."""

import dataclasses
import math
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedprune.core.errors import DataError
from fedprune.core.files import write_atomic
from fedprune.core.text import describe
from fedprune.experiment.summary import ACCURACIES
from fedprune.protocol.row import DeviceRow

GROUP = 4096  # rows
MAX_CELLS = 20_000_000
MAX_TEXT = 256 * 2**20  # bytes of all text, once each row has its own
KINDS = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
STATUSES = ("ok", "refused", "rejected", "failed")


def write_devices(path: Path, rows: Collection[DeviceRow]) -> None:
    """Write rows, which are gone over twice, group by group, so that no more than one group of them is in memory.

    Not compressed, so that what is read is never larger than the file.

    Args:
        path: The file.
        rows: In rising order of their devices.

    Raises:
        DiskError: the file cannot be written.
    """
    schema = _schema(rows)

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema, compression="none") as file:
            left = iter(rows)
            while part := [row.to_dict() for row in islice(left, GROUP)]:
                file.write_table(pa.Table.from_pylist(part, schema))

    write_atomic(path, write)


def _schema(rows: Collection[DeviceRow]) -> pa.Schema:
    """Return each column with the kind of its values; whole numbers with gaps are floats."""
    kinds: dict[str, Counter[type | None]] = {}
    for row in rows:
        for name, value in row.to_dict().items():
            kind = next((kind for kind in KINDS if isinstance(value, kind)), None)
            kinds.setdefault(name, Counter())[kind] += 1
    return pa.schema([(name, _kind(found, len(rows))) for name, found in kinds.items()])


def _kind(found: Counter[type | None], rows: int) -> pa.DataType:
    there = {kind for kind in found if kind is not None}
    if not there:
        return pa.null()
    if len(there) > 1 or (there == {int} and found[int] < rows):
        return pa.float64()
    return KINDS[there.pop()]


def read_devices(path: Path) -> pd.DataFrame:
    """Read and check what `write_devices` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the file is damaged, larger than any run's, or its rows are none of devices.
    """
    try:
        with pq.ParquetFile(path) as file:
            _check_size(file.metadata, file.schema_arrow)
            texts = [field.name for field in file.schema_arrow if _is_text(field.type)]
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            table = file.read().replace_schema_metadata(None)
        if sum(_text_size(table[name]) for name in texts) > MAX_TEXT:
            raise ValueError("its text is too long")
        frame = table.cast(pa.schema([(f.name, pa.string() if f.name in texts else f.type) for f in table.schema]))
        devices: pd.DataFrame = frame.to_pandas()
        _check_rows(devices)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError, pa.ArrowException) as error:
        raise DataError(f"{path} is damaged: {describe(error)}. Delete the folder and run again.") from error
    return devices


def plain_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what is there of a row as plain values, the same for a row in memory and one that was read from a file.

    A file keeps whole numbers as floats in a column where some are missing.
    """
    return {
        str(name): value for name, value in ((name, _plain(value)) for name, value in row.items()) if value is not None
    }


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if value is None or value is pd.NA or value != value:
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def _check_size(metadata: Any, schema: Any) -> None:
    """Refuse what would be much larger in memory than it is in the file, before any of it is decoded.

    Raises:
        ValueError: it is.
    """
    if metadata.num_rows * metadata.num_columns > MAX_CELLS:
        raise ValueError(f"it has {metadata.num_rows} rows of {metadata.num_columns} columns")
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            if metadata.row_group(group).column(column).compression != "UNCOMPRESSED":
                raise ValueError("it is compressed, which no run's is")
    kinds = pa.types
    for field in schema:
        known = (kinds.is_integer, kinds.is_floating, kinds.is_boolean, kinds.is_null, _is_text)
        if not any(is_kind(field.type) for is_kind in known):
            raise ValueError(f"the column {describe(field.name)} holds neither numbers nor text")


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _text_size(column: Any) -> int:
    """Return the bytes of a column of dictionary-coded text, every row's own."""
    sizes = [pc.sum(pc.take(pc.binary_length(part.dictionary), part.indices)).as_py() for part in column.chunks]
    return sum(size or 0 for size in sizes)


def _check_rows(devices: pd.DataFrame) -> None:
    """Refuse rows that no run writes.

    Raises:
        ValueError: a value is missing, of another kind, or out of range.
    """
    rows = [plain_row(row) for row in devices.to_dict("records")]
    for row in rows:
        for field in dataclasses.fields(DeviceRow):
            if field.name != "extra" and (problem := _problem(str(field.type), row.get(field.name))):
                raise ValueError(f"{field.name} is {problem}")
        if row["status"] not in STATUSES:
            raise ValueError(f"there is no status {describe(row['status'])}")
        for name in ACCURACIES:
            if not 0 <= row.get(f"{name}_correct", 0) <= row.get("test_images", math.inf):
                raise ValueError(f"device {row['device']} has {name}_correct outside its test images")
    if not rows or len({row["device"] for row in rows}) != len(rows):
        raise ValueError("it has no row, or two rows of one device")


def _problem(kind: str, value: Any) -> str:
    """Say what is wrong with a field's value; nothing where all is well."""
    if value is None:
        return "" if "None" in kind else "missing"
    if "str" in kind:
        return "" if isinstance(value, str) else "no text"
    if isinstance(value, bool) or not isinstance(value, int if "int" in kind else int | float):
        return "no number of its kind"
    return "" if 0 <= value < math.inf else "out of range"
