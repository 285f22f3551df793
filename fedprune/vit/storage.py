"""Edge models as files: safetensors with the shape inside, nothing that executes on loading.

A file's metadata holds one JSON text with the shape, the card, a token reducer where there is one, and a SHA-256 over
these and every tensor, so that a truncated, edited or foreign file is refused. `protocol.storage` turns edge models
into such files and back.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from fedprune.core.errors import ModelError
from fedprune.core.files import write_atomic
from fedprune.core.memory import read_tensors
from fedprune.vit.shape import Shape

FORMAT = "fedprune edge model 1"


@dataclass(frozen=True)
class EdgeFile:
    """What a file of an edge model holds.

    Attributes:
        shape: Its shape.
        card: Provenance, accuracy and the like as plain JSON values.
        tensors: Its parameters by timm's names, those of a token reducer as they travel (`tokens.wire`).
        tokens: The token reducer's specification; empty without one.
    """

    shape: Shape
    card: dict[str, Any]
    tensors: dict[str, Tensor]
    tokens: str = ""


def write_edge_file(path: Path, file: EdgeFile) -> None:
    """Write a safetensors file."""
    contents: dict[str, Any] = {"format": FORMAT, "shape": json.loads(file.shape.to_json()), "card": file.card}
    if file.tokens:
        contents["tokens"] = file.tokens
    contents = json.loads(json.dumps(contents))  # as it will be read: tuples become lists
    contents["sha256"] = _digest(contents, file.tensors)
    metadata = {"fedprune": json.dumps(contents, sort_keys=True)}
    write_atomic(path, lambda temporary: save_file(file.tensors, temporary, metadata=metadata))


def read_edge_file(path: str | Path) -> EdgeFile:
    """Read and verify a file that `write_edge_file` wrote.

    Raises:
        ModelError: the file is missing, truncated, edited or not one of ours.
    """
    try:
        tensors, metadata = read_tensors(path)
    except FileNotFoundError as error:
        raise ModelError(f"There is no file {path}.") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is not a whole safetensors file: {error}. Fetch or export it again.") from error
    contents = _contents(path, metadata)
    if contents.pop("sha256") != _digest(contents, tensors):
        raise ModelError(f"{path} has been changed since it was written: its checksum differs. Export it again.")
    try:
        shape = Shape.from_json(json.dumps(contents["shape"]))
    except (TypeError, KeyError, ValueError) as error:
        raise ModelError(f"{path} holds a shape that this version cannot read. Export it again.") from error
    return EdgeFile(shape, contents["card"], tensors, contents.get("tokens", ""))


def _contents(path: str | Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    foreign = f"{path} is a safetensors file but not an edge model of fedprune"
    try:
        contents = json.loads(metadata["fedprune"])
    except (KeyError, ValueError) as error:
        raise ModelError(f"{foreign}. Files of edge models are written by `fedprune export`.") from error
    if not isinstance(contents, dict) or set(contents) - {"tokens"} != {"format", "shape", "card", "sha256"}:
        raise ModelError(f"{foreign}: its metadata lacks the shape, the card or the checksum.")
    if contents["format"] != FORMAT:
        raise ModelError(f"{path} has the format {contents['format']!r}; this version reads {FORMAT!r}.")
    return contents


def _digest(contents: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(contents, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
