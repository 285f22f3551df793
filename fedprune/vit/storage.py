"""Edge models as files and as arrays: safetensors with the shape inside, nothing that executes on loading.

A file's metadata holds one JSON text with the shape, the card and a SHA-256 over both and every tensor, so that a
truncated, edited or foreign file is refused.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fedprune.core.errors import ModelError
from fedprune.core.files import write_atomic
from fedprune.vit.assemble import assemble
from fedprune.vit.shape import Shape
from fedprune.vit.surgery import EdgeModel

FORMAT = "fedprune edge model 1"


@dataclass(frozen=True)
class EdgeFile:
    """What a file of an edge model holds: its shape, its card, its tensors by timm's names."""

    shape: Shape
    card: dict[str, Any]
    tensors: dict[str, Tensor]


def save_edge_model(path: Path, edge: EdgeModel, card: Mapping[str, Any] | None = None) -> None:
    """Write `edge` to a safetensors file; `card` adds provenance, accuracy and the like as plain JSON values."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in edge.model.state_dict().items()}
    full = {
        "classes": list(edge.classes),
        "preprocess": asdict(edge.preprocess),
        "notes": dict(edge.notes),
        **(card or {}),
    }
    contents: dict[str, Any] = {"format": FORMAT, "shape": json.loads(edge.shape.to_json()), "card": full}
    contents = json.loads(json.dumps(contents))  # as it will be read: tuples become lists
    contents["sha256"] = _digest(contents, tensors)
    metadata = {"fedprune": json.dumps(contents, sort_keys=True)}
    write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def read_edge_file(path: str | Path) -> EdgeFile:
    """Read and verify a file that `save_edge_model` wrote.

    Raises:
        ModelError: the file is missing, truncated, edited or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
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
    return EdgeFile(shape, contents["card"], tensors)


def load_edge_model(path: str | Path) -> nn.Module:
    """Load an edge model as a plain module in evaluation mode, bit-equal to the one that was saved.

    Raises:
        ModelError: the file is missing, truncated, edited or not one of ours.
    """
    file = read_edge_file(path)
    return assemble(file.shape, file.tensors)


def edge_arrays(edge: EdgeModel) -> dict[str, NDArray[Any]]:
    """Return the parameters of `edge` by timm's names: what travels in a message."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in edge.model.state_dict().items()}


def edge_from_arrays(shape: Shape, arrays: Mapping[str, NDArray[Any]]) -> nn.Module:
    """Rebuild the module of an edge model from `edge_arrays`; it owns copies of the arrays.

    Raises:
        ModelError: an array is missing, foreign, of another size or not floating.
    """
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.floating):
            raise ModelError(f"The array {name!r} holds {array.dtype} and should hold floating numbers.")
    return assemble(shape, {name: torch.tensor(array) for name, array in arrays.items()})


def _contents(path: str | Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    foreign = f"{path} is a safetensors file but not an edge model of fedprune"
    try:
        contents = json.loads(metadata["fedprune"])
    except (KeyError, ValueError) as error:
        raise ModelError(f"{foreign}. Files of edge models are written by `fedprune export`.") from error
    if not isinstance(contents, dict) or set(contents) != {"format", "shape", "card", "sha256"}:
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
