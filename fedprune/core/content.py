"""Hashes of files by content, cheap the second time: what has not been touched since is not read again."""

import hashlib
import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from fedprune.core.errors import DataError

AT_REST = 2_000_000_000  # nanoseconds; a file touched later than this before it was read may change unseen


def file_hashes(paths: Sequence[Path], index: Path | None = None) -> list[str]:
    """Return the SHA-256 of each file's bytes, shortened to 32 hexadecimal digits.

    A file whose device, inode, size, time of change and time of status change are those of an earlier call is not
    read again. (The last of these cannot be set by a program, so that even a file whose time of change was put back is
    noticed.) Without a place to remember, every file is read.

    Args:
        paths: The files.
        index: Database that remembers; by default one in the user's cache folder.

    Raises:
        DataError: a file cannot be read.
    """
    try:
        with closing(_open(index or default_index())) as database, database:
            return [_hash(path, database) for path in paths]
    except sqlite3.Error:  # locked for long, damaged, or on a disk that is full: read everything
        return [_hash(path, None) for path in paths]


def _hash(path: Path, database: sqlite3.Connection | None) -> str:
    name = os.path.abspath(path)
    stamp = _stamp(path)
    if database is not None:
        known = database.execute("SELECT hash FROM files WHERE path = ? AND stamp = ?", (name, stamp)).fetchone()
        if known is not None:
            return str(known[0])
    begin = time.time_ns()
    try:
        with path.open("rb") as file:
            value = hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Restore it or take it out.") from error
    touched = max(int(part) for part in stamp.split()[-2:])
    if database is not None and begin - touched > AT_REST and _stamp(path) == stamp:
        database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (name, stamp, value))
    return value


def _stamp(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Restore it or take it out.") from error
    return f"{stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _open(index: Path) -> sqlite3.Connection:
    with suppress(OSError):
        index.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(index, timeout=30)
    database.execute("CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, stamp TEXT, hash TEXT)")
    return database


def default_index() -> Path:
    """Return the database that remembers hashes where no other is named."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedprune" / "files.sqlite"
