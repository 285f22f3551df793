"""Take from this process the right to write below some folders, by Linux' Landlock; nothing in it can undo that."""

import ctypes
import os
import stat
import struct
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system calls, of the same number on every architecture
PATH_BENEATH, VERSION, NO_NEW_PRIVILEGES = 1, 1, 38
# Bits of linux/landlock.h: write to files and cut them off; remove, make and move entries of folders.
WRITE_FILE, MOVE, TRUNCATE = 1 << 1, 1 << 13, 1 << 14
ENTRIES = sum(1 << bit for bit in range(4, 13)) | MOVE
MOVE_SINCE, TRUNCATE_SINCE = 2, 3  # versions of Landlock


def forbid_writing(folders: Iterable[Path], allowed: Iterable[Path] = ()) -> bool:
    """Forbid this process, and all that it starts, to write below `folders` and directly in the folders above them.

    To be called while the process has one thread: only that one and those that it starts are held.

    Args:
        folders: What may be read only.
        allowed: Files that may be written to all the same.

    Returns:
        Whether the system can do that.
    """
    version = _call(CREATE_RULESET, None, 0, VERSION) if sys.platform == "linux" else -1
    if version < 1:
        return False
    rights = WRITE_FILE | ENTRIES | TRUNCATE
    rights &= ~((MOVE if version < MOVE_SINCE else 0) | (TRUNCATE if version < TRUNCATE_SINCE else 0))
    ruleset = _call(CREATE_RULESET, struct.pack("=Q", rights), 8, 0)
    if ruleset < 0:
        return False
    try:
        protected = {path.resolve() for path in folders}
        for path in (*_beside(protected), *(path.resolve() for path in allowed)):
            _allow(ruleset, path, rights)
        library = ctypes.CDLL(None)
        held = library.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0 and _call(RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)
    tempfile.tempdir = None  # the folder of temporary files is looked for again, among those that are left
    return held


def _beside(protected: set[Path]) -> Iterator[Path]:
    """Yield everything that stands beside the folders and beside those above them: all that may be written to."""
    above = {parent for path in protected for parent in path.parents}
    for folder in above - protected:
        if any(parent in protected for parent in folder.parents):
            continue
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue
        for entry in entries:
            if not entry.is_symlink() and Path(entry.path) not in above | protected:
                yield Path(entry.path)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # gone since, or not to be seen
        return
    try:
        folder = stat.S_ISDIR(os.fstat(opened).st_mode)
        _call(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("=Qi", rights if folder else rights & ~ENTRIES, opened), 0)
    finally:
        os.close(opened)


def _call(number: int, *arguments: object) -> int:
    return int(ctypes.CDLL(None, use_errno=True).syscall(number, *arguments))
