"""Edge models taken apart, as they travel and as they lie in files: tensors and JSON, nothing that executes on loading.

A file is safetensors. Its metadata holds one JSON text with the shape, the card, a token reducer where there is one,
and a SHA-256 over these and every tensor, so that a truncated, edited or foreign file is refused.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from fedprune.core.errors import ModelError
from fedprune.core.files import write_atomic
from fedprune.core.memory import read_tensors
from fedprune.core.text import describe
from fedprune.protocol.row import TIMES
from fedprune.tokens.edge_model import PREFIX, rebuild
from fedprune.vit.assemble import assemble
from fedprune.vit.base import Preprocess
from fedprune.vit.shape import Shape
from fedprune.vit.surgery import EdgeModel

FORMAT = "fedprune edge model 1"


class Loaded(NamedTuple):
    """A module that runs, and the vision transformer inside it: the same where no token reducer is around it."""

    model: nn.Module
    backbone: nn.Module


@dataclass(frozen=True)
class StoredModel:
    """An edge model taken apart.

    Attributes:
        shape: Its shape.
        tensors: Its parameters by timm's names, those of a token reducer below `tokens.`.
        tokens: What the token reducer is rebuilt from beside its tensors; empty without one.
        card: Classes, preprocessing, provenance and the like as plain JSON values.
    """

    shape: Shape
    tensors: Mapping[str, Tensor]
    tokens: str = ""
    card: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, edge: EdgeModel, card: Mapping[str, Any] | None = None) -> "StoredModel":
        """Take `edge` apart; `card` adds provenance, accuracy and the like.

        What was measured in seconds stays in the run's record, so that equal runs write equal files.
        """
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in edge.tensors.items()}
        told = edge.card()
        notes = {name: value for name, value in told["notes"].items() if not name.endswith(TIMES)}
        return cls(edge.shape, tensors, edge.tokens, {**told, "notes": notes, **(card or {})})

    @classmethod
    def received(cls, shape: Shape, arrays: Mapping[str, NDArray[Any]], tokens: str) -> "StoredModel":
        """Take over what came as named arrays; they are copied.

        Raises:
            ModelError: an array does not hold floating numbers.
        """
        for name, array in arrays.items():
            if not np.issubdtype(array.dtype, np.floating):
                raise ModelError(f"The array {name!r} holds {array.dtype} and should hold floating numbers.")
        return cls(shape, {name: torch.tensor(array) for name, array in arrays.items()}, tokens)

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        return sum(values.nbytes for values in self.tensors.values())

    @property
    def preprocess(self) -> Preprocess:
        """What turns image bytes into its input, as its card says."""
        values = self.card["preprocess"]
        return Preprocess(values["image_size"], tuple(values["mean"]), tuple(values["std"]))

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The tensors as arrays, to be sent."""
        return {name: tensor.numpy() for name, tensor in self.tensors.items()}

    def build(self) -> Loaded:
        """Put the model together again, bit-equal to the one that was taken apart, in evaluation mode.

        A token reducer is inside it, each image keeping the same number of tokens; a reducer of your own must be in a
        file that `FEDPRUNE_PLUGINS` names.

        Raises:
            FedpruneError: tensors, shape and reducer do not belong together, or nobody knows the reducer.
        """
        backbone = assemble(
            self.shape, {name: values for name, values in self.tensors.items() if not name.startswith(PREFIX)}
        )
        return Loaded(rebuild(backbone, self.shape, self.tensors, self.tokens), backbone)

    def write(self, path: Path) -> None:
        """Write a safetensors file."""
        contents: dict[str, Any] = {"format": FORMAT, "shape": json.loads(self.shape.to_json()), "card": self.card}
        if self.tokens:
            contents["tokens"] = self.tokens
        contents = json.loads(json.dumps(contents))  # as it will be read: tuples become lists
        contents["sha256"] = _digest(contents, self.tensors)
        metadata = {"fedprune": json.dumps(contents, sort_keys=True)}
        write_atomic(path, lambda temporary: save_file(dict(self.tensors), temporary, metadata=metadata))

    @classmethod
    def read(cls, path: str | Path) -> "StoredModel":
        """Read and verify a file that `write` wrote.

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
        except ModelError as error:
            raise ModelError(f"{path} holds a shape that this version cannot read. Export it again.") from error
        for name, tensor in tensors.items():
            if not tensor.is_floating_point() or not tensor.isfinite().all():
                raise ModelError(f"{path}: {describe(name)} does not hold finite floating numbers. Export it again.")
        return cls(shape, tensors, contents.get("tokens", ""), contents["card"])


def save_edge_model(path: Path, edge: EdgeModel, card: Mapping[str, Any] | None = None) -> None:
    """Write `edge` to a file; `card` adds provenance, accuracy and the like as plain JSON values."""
    StoredModel.of(edge, card).write(path)


def load_edge_model(path: str | Path) -> nn.Module:
    """Load an edge model's file as a plain module; see `StoredModel.read` and `StoredModel.build`."""
    return StoredModel.read(path).build().model


def _contents(path: str | Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    foreign = f"{path} is a safetensors file but not an edge model of fedprune"
    try:
        contents = json.loads(metadata["fedprune"])
    except (KeyError, ValueError, RecursionError) as error:
        raise ModelError(f"{foreign}. Files of edge models are written by `fedprune export`.") from error
    if not isinstance(contents, dict) or set(contents) - {"tokens"} != {"format", "shape", "card", "sha256"}:
        raise ModelError(f"{foreign}: its metadata lacks the shape, the card or the checksum.")
    if contents["format"] != FORMAT:
        raise ModelError(f"{path} has the format {describe(contents['format'])}; this version reads {FORMAT!r}.")
    if not _is_card(contents["card"]) or not isinstance(contents.get("tokens", ""), str):
        raise ModelError(f"{foreign}: its card lacks the classes, the preprocessing or the notes.")
    return contents


def _is_card(card: Any) -> bool:
    """Say whether a file's card holds what `EdgeModel.card` tells, each of its kind."""
    if not isinstance(card, dict) or not isinstance(card.get("notes"), dict):
        return False
    classes, preprocess = card.get("classes"), card.get("preprocess")
    if not isinstance(classes, list) or not all(type(each) is int and each >= 0 for each in classes):
        return False
    return isinstance(preprocess, dict) and preprocess.keys() == {"image_size", "mean", "std"}


def _digest(contents: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(contents, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
