"""A base in one safetensors file: timm's weights, with the architecture and preprocessing in its metadata."""

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from fedprune.core.errors import ModelError
from fedprune.core.files import write_atomic
from fedprune.core.memory import read_tensors
from fedprune.core.random import stream_seed
from fedprune.vit.base import Architecture, Base, BaseSource, Preprocess
from fedprune.vit.inspect import read_shape
from fedprune.vit.shape import Shape


def create(architecture: Architecture, seed: int = 0) -> nn.Module:
    """Create timm's model with random weights that follow from `seed`.

    Raises:
        ModelError: timm has no such model, or refuses the arguments.
    """
    arguments = dict(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "initial weights"))
        try:
            model: nn.Module = timm.create_model(arguments.pop("model"), pretrained=False, **arguments)
        except (RuntimeError, TypeError, AssertionError) as error:
            raise ModelError(f"timm cannot create the model {dict(architecture)}: {error}. Change its name.") from error
    return model


@cache
def expected_shape(source: BaseSource) -> Shape | None:
    """Return the shape of a source's base where its option alone tells it; no weights are loaded or made."""
    architecture = source.architecture()
    if architecture is None:
        return None
    try:
        with torch.device("meta"):
            return read_shape(create(architecture))
    except (ModelError, RuntimeError, NotImplementedError):
        return None


def save_base(path: Path, model: nn.Module, architecture: Architecture, preprocess: Preprocess, half: bool) -> None:
    """Write the model's weights (as float16 if `half`) with what is needed to rebuild it."""
    kind = torch.float16 if half else torch.float32
    tensors = {name: value.detach().to(kind).contiguous() for name, value in model.state_dict().items()}
    metadata = {"architecture": json.dumps(dict(architecture)), "preprocess": json.dumps(asdict(preprocess))}
    write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata))


def load_base(path: Path) -> Base:
    """Load what `save_base` wrote, in float32.

    Raises:
        ModelError: the file is missing, broken, or not a base.
    """
    try:
        tensors, metadata = read_tensors(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"Cannot read the base {path}: {error}. Delete it and make it again.") from error
    if not {"architecture", "preprocess"} <= set(metadata):
        raise ModelError(f"{path} holds weights without their architecture; name it as the weights of base=timm.")
    values = json.loads(metadata["preprocess"])
    preprocess = Preprocess(values["image_size"], tuple(values["mean"]), tuple(values["std"]))
    model = create(json.loads(metadata["architecture"]))
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise ModelError(f"The weights in {path} do not fit the architecture that it names. Make it again.") from error
    return Base.of(model, preprocess)
