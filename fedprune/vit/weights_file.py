"""Pretrained weights in a safetensors file, under timm's names."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor, nn

from fedprune.core.errors import ModelError
from fedprune.core.memory import read_tensors

WRAPPERS = ("_orig_mod.", "module.")  # what torch.compile and DataParallel put before every name
DINOV2 = {"mask_token": None, "register_tokens": "reg_token"}  # its own names; timm's loading takes them
HEADS = {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors in `path`, without the prefixes of wrappers.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        tensors, _ = read_tensors(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read as a safetensors file: {error}. Fetch it again.") from error
    for wrapper in WRAPPERS * 2:
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    return tensors


def check_names(model: nn.Module, stored: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Refuse weights with other parameters than the model's; timm itself lets them pass where heads differ.

    Raises:
        ModelError: a name is missing or not known.
    """
    wanted = set(model.state_dict()) - HEADS
    there = {DINOV2.get(each, each) for each in stored} - HEADS - {None}
    odd = sorted(wanted - there) or sorted(str(each) for each in there - wanted)
    if odd:
        verb = "lack" if wanted - there else "have"
        raise ModelError(
            f"The weights in {path} belong to another architecture than {name!r}: they {verb} "
            f"{odd[0]!r}. Name the model that they belong to, or other weights."
        )


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, named without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
