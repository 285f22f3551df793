"""Content hashes of plain values, arrays and files: the names of cached things and the identity of runs."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def content_hash(*values: Any, length: int = 16) -> str:
    """Hash plain values, dataclasses and NumPy arrays; equal content gives an equal hash everywhere.

    Returns:
        The first `length` hexadecimal digits of a SHA-256.
    """
    digest = hashlib.sha256()
    for value in values:
        _update(digest, value)
    return digest.hexdigest()[:length]


def file_hash(path: Path, length: int = 16) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:length]


def _update(digest: Any, value: Any) -> None:
    if isinstance(value, np.ndarray):
        digest.update(f"array {value.dtype.str} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        _update(digest, {"type": type(value).__qualname__, **{name: getattr(value, name) for name in names}})
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)}\n".encode())
        for key in sorted(value, key=str):
            digest.update(f"{key}=".encode())
            _update(digest, value[key])
    elif isinstance(value, bytes):
        digest.update(f"bytes {len(value)}\n".encode() + value)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        digest.update(f"sequence {len(value)}\n".encode())
        for item in value:
            _update(digest, item)
    else:
        digest.update(json.dumps(value, default=str).encode() + b"\n")
