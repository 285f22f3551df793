"""The model that is compressed: one of timm's by name, a file, or a module in memory."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from fedprune.core.errors import ModelError
from fedprune.core.memory import read_tensors
from fedprune.protocol.storage import StoredModel
from fedprune.vit.base import Base, Preprocess
from fedprune.vit.base_file import load_base
from fedprune.vit.base_glyphs import PACKAGED
from fedprune.vit.pretrained import Pretrained

SHIPPED = "glyphs"


def dense_model(model: str | Path | nn.Module, how: Pretrained) -> Base:
    """Return a dense model with all that is needed to cut it; a module in memory stays as it is.

    Args:
        model: A timm name; `glyphs`, the micro DeiT that the package ships; a safetensors file, which is a base, an
            edge model, or plain weights named after timm's model (`deit_tiny_patch16_224.mine.safetensors`); or a
            module.
        how: What else is set of weights, size, mean and standard deviation.

    Raises:
        ModelError: it cannot be had, or is none that can be cut.
    """
    if isinstance(model, nn.Module):
        return _in_memory(model, how)
    if str(model) == SHIPPED:
        return load_base(PACKAGED)
    if (path := Path(model).expanduser()).is_file():
        texts = _metadata(path)
        if "architecture" in texts:
            return load_base(path)
        if "fedprune" in texts:
            return _edge_model(path)
    loaded = how.fetch()
    return Base.of(loaded.model, loaded.preprocess)


def _metadata(path: Path) -> Mapping[str, str]:
    try:
        return read_tensors(path)[1]
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path} is no safetensors file. Save the model's weights as one (safetensors.torch.save_file), named "
            "after timm's model, for instance deit_tiny_patch16_224.mine.safetensors."
        ) from error


def _edge_model(path: Path) -> Base:
    stored = StoredModel.read(path)
    if stored.tokens:
        raise ModelError(f"{path} has a token reducer inside, which cannot be cut again. Compress the dense model.")
    return Base.of(stored.build().model, stored.preprocess)


def _in_memory(model: nn.Module, how: Pretrained) -> Base:
    own: Any = getattr(model, "pretrained_cfg", None) or {}
    mean, std = how.mean or own.get("mean"), how.std or own.get("std")
    if mean is None or std is None:
        raise ModelError(
            "The module does not say how its images are normalised. Add the settings base.mean=[...] and "
            "base.std=[...], three numbers each."
        )
    model = copy.deepcopy(model).float().cpu()
    side = getattr(getattr(model, "patch_embed", None), "img_size", None) or (0,)
    return Base.of(model, Preprocess(int(side[0]), tuple(mean), tuple(std)))
