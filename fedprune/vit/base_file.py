"""A base in one safetensors file: timm's weights, with the architecture and preprocessing in its metadata."""

import json
import re
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from fedprune.core.errors import ModelError
from fedprune.core.random import stream_seed
from fedprune.core.sealed import read_sealed, write_sealed
from fedprune.core.text import describe
from fedprune.vit.base import Architecture, Base, BaseSource, Preprocess
from fedprune.vit.inspect import read_shape
from fedprune.vit.shape import Shape

NAME = re.compile(r"[a-z0-9_]{1,64}(\.[a-z0-9_]{1,64})?")
LARGEST = {
    "num_classes": 100_000, "img_size": 2048, "patch_size": 256, "embed_dim": 8192, "depth": 128, "num_heads": 128,
}  # fmt: skip


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


def save_base(
    path: Path, model: nn.Module, architecture: Architecture, preprocess: Preprocess, half: bool, key: str = ""
) -> None:
    """Write the model's weights (as float16 if `half`) with what is needed to rebuild it, sealed for `key`."""
    kind = torch.float16 if half else torch.float32
    tensors = {name: value.detach().to(kind) for name, value in model.state_dict().items()}
    texts = {"architecture": json.dumps(dict(architecture)), "preprocess": json.dumps(asdict(preprocess))}
    write_sealed(path, tensors, key, texts)


def load_base(path: Path, key: str = "") -> Base:
    """Load what `save_base` wrote for `key`, in float32.

    Raises:
        ModelError: the file is missing, damaged, another one's, or not a base.
    """
    try:
        tensors, texts = read_sealed(path, key)
    except FileNotFoundError as error:
        raise ModelError(f"There is no base {path}. Make it, or name another file.") from error
    if not {"architecture", "preprocess"} <= set(texts):
        raise ModelError(f"{path} holds weights without their architecture; name it as the weights of base=timm.")
    try:
        architecture = _read_architecture(json.loads(texts["architecture"]))
        preprocess = _read_preprocess(json.loads(texts["preprocess"]))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelError(f"{path} does not describe a base: {describe(error)}. Make it again.") from error
    with torch.device("meta"):  # no memory before the weights are known to fit
        sizes = {name: tensor.shape for name, tensor in create(architecture).state_dict().items()}
    if sizes != {name: tensor.shape for name, tensor in tensors.items()}:
        raise ModelError(f"The weights in {path} do not fit the architecture that it names. Make it again.")
    model = create(architecture)
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return Base.of(model, preprocess)


def _read_architecture(values: Any) -> Architecture:
    """Let through a name that timm itself knows and sizes in range: whatever else a file says may load code or files.

    Raises:
        ValueError: it says anything else.
    """
    if not isinstance(values, dict) or not isinstance(name := values.get("model"), str) or not NAME.fullmatch(name):
        raise ValueError("it names no model of timm")
    if not timm.is_model(name.split(".")[0]):
        raise ValueError(f"timm has no model {name}")
    for key, value in values.items():
        if key != "model" and (key not in LARGEST or type(value) is not int or not 1 <= value <= LARGEST[key]):
            raise ValueError(f"{describe(key)} is not a size of a model, or out of range")
    return values


def _read_preprocess(values: Any) -> Preprocess:
    """Read side, mean and standard deviation.

    Raises:
        ValueError: one is missing or out of range.
    """
    side, mean, std = values["image_size"], tuple(values["mean"]), tuple(values["std"])
    numbers = [*mean, *std]
    if type(side) is not int or not 1 <= side <= LARGEST["img_size"] or len(mean) != 3 or len(std) != 3:
        raise ValueError("its images have no side, or not three channels")
    if any(type(number) not in (int, float) or not abs(number) <= 1e3 for number in numbers) or min(std) <= 0:
        raise ValueError("mean or standard deviation is out of range")
    return Preprocess(side, mean, std)
