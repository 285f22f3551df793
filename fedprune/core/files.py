"""Files that are whole or absent: written beside their place, synced, then renamed over it."""

import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from fedprune.core.errors import DataError, DiskError
from fedprune.core.text import describe

MAX_JSON = 64 * 2**20  # bytes
LITTER = re.compile(r"\..+\.[a-z0-9_]{8}(\.[^.]+)?")  # what `write_atomic` names its temporary files


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file in `path`'s folder, then put it in place in one step.

    Raises:
        DiskError: the folder cannot be written to, or the disk is full; what stood at `path` still does.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    except OSError as error:
        raise DiskError(f"Cannot write {path}: {error.strerror}. Choose another folder.") from error
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        _sync(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync(path.parent)
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
        why = getattr(error, "strerror", None) or describe(error)
        raise DiskError(f"Cannot write {path}: {why}. Free space or choose another folder.") from error
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path: Path, line: bytes) -> int:
    """Add a line to the end of a file, on the disk when this returns, and say where in the file it begins.

    A line that an earlier writer left unfinished is ended first, so that it spoils no other.

    Raises:
        DiskError: the file cannot be written to, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            torn = file.read(1) not in (b"", b"\n")
            file.write(b"\n" * torn + line + b"\n")
        _sync(path)
        if end == 0:
            _sync(path.parent)
    except OSError as error:
        raise DiskError(f"Cannot write {path}: {error.strerror}. Free space or choose another folder.") from error
    return end + torn


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a file of at most `limit` bytes.

    Raises:
        OSError: there is no such file, or it cannot be read.
        DataError: it is larger.
    """
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise DataError(f"{path} is larger than {limit} bytes. It is not a file of ours.")
    return data


def read_json(path: Path, limit: int = MAX_JSON) -> Any:
    """Read a JSON file that may hold anything.

    Raises:
        OSError: there is no such file, or it cannot be read.
        DataError: it is larger than `limit` bytes, no JSON, or nested too deeply.
    """
    try:
        return json.loads(read_bytes(path, limit))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {describe(error)}.") from error


def remove_litter(folder: Path) -> None:
    """Remove the temporary files of writers that were killed, below a folder that nobody else writes to now."""
    for path in folder.rglob(".*"):
        if LITTER.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a binary file atomically."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomic(path, write)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def thousand_of(folder: Path, number: int) -> Path:
    """Return where below `folder` a device's own file lies: of the first thousand there, of each further one apart."""
    return folder if number < 1000 else folder / f"{number // 1000}000"


def shipped(name: str) -> Path:
    """Return the folder `name` that comes with fedprune: in an installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / name
    return installed if installed.is_dir() else package.parent / name


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
