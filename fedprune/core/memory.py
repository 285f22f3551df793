"""Bytes from a file or a message, brought into memory of their own before any arithmetic sees them.

What safetensors, `numpy.load` and `numpy.frombuffer` hand out begins wherever its bytes happen to stand; a fresh
tensor begins at a multiple of 64. Kernels for AVX2 round differently by where memory begins, so that one model, stored
and read again, would give other last bits than before.
"""

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load
from torch import Tensor

Value = TypeVar("Value", bound=np.generic)


def aligned(array: NDArray[Value]) -> NDArray[Value]:
    """Return a C-ordered copy of `array` that begins at a multiple of 64 bytes, as every fresh tensor does."""
    memory = torch.empty(array.nbytes, dtype=torch.uint8).numpy()
    copy: NDArray[Value] = memory.view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, each in memory of its own, and the file's metadata.

    Raises:
        OSError: there is no such file, or it cannot be read.
        SafetensorError: it is not a whole safetensors file.
    """
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return tensors, file.metadata() or {}


def load_tensors(data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a safetensors blob, each in memory of its own.

    Raises:
        SafetensorError: it is not a whole safetensors blob.
    """
    return {name: tensor.clone() for name, tensor in load(data).items()}
