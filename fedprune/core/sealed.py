"""Sealed files: tensors and text with a hash over both and over the key that they were written for.

A file that was cut off, damaged, edited, or put in another one's place does not fit its hash and is never used. The
hash tells damage, not intent: who may write the file can write the hash as well.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from fedprune.core.errors import ModelError
from fedprune.core.files import write_atomic
from fedprune.core.hashing import content_hash
from fedprune.core.memory import read_tensors
from fedprune.core.text import describe

SEAL = "seal"


class Damaged(ModelError):
    """A file whose content is not what was written there."""


def write_sealed(
    path: Path, tensors: Mapping[str, Tensor], key: str = "", texts: Mapping[str, str] | None = None
) -> None:
    """Write tensors and texts as safetensors, sealed.

    Args:
        path: The file.
        tensors: By name.
        key: What they were computed from, in words or as a hash; who reads the file must name the same.
        texts: Metadata.

    Raises:
        DiskError: the file cannot be written.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = {**(texts or {}), SEAL: _seal(key, plain, texts or {})}
    write_atomic(path, lambda temporary: save_file(plain, temporary, metadata))


def read_sealed(path: Path, key: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `write_sealed` wrote for `key`.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: the content is not what was written for `key`.
    """
    try:
        tensors, texts = read_tensors(path)
    except FileNotFoundError:
        raise
    except (OSError, SafetensorError, ValueError) as error:
        raise Damaged(f"{path} cannot be read: {describe(error)}. Delete it and make it again.") from error
    if texts.pop(SEAL, None) != _seal(key, tensors, texts):
        raise Damaged(f"{path} has been changed since it was written, or is another file's. Make it again.")
    return tensors, texts


def _seal(key: str, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    content = {name: [str(value.dtype), list(value.shape), _bytes(value)] for name, value in tensors.items()}
    return content_hash(key, dict(texts), content, length=64)


def _bytes(tensor: Tensor) -> object:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
