"""What a device and the server see of an image: features of the frozen base."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedprune.core.cache import cached_array
from fedprune.core.errors import ConfigError
from fedprune.core.progress import batches
from fedprune.data.images import ImageSet, IntArray
from fedprune.vit.base import Base, evaluating
from fedprune.vit.precision import autocast

FeatureArray = NDArray[np.float32]


def extract(
    base: Base,
    images: ImageSet,
    indices: IntArray,
    kind: str = "cls",
    batch_size: int = 64,
    precision: str = "fp32",
    device: str = "cpu",
) -> FeatureArray:
    """Compute features of the images at `indices`.

    Args:
        base: The frozen base.
        images: Where `indices` point into.
        indices: (n,)
        kind: `"cls"`, the class token after the final norm; `"mean"`, the mean patch token after the final norm; or
            `"block-3"`, the class token after block 3 (counted from 0), passed through the final norm. A base without
            a class token has the mean patch token in its place, which is what its head reads.
        batch_size: Images a forward pass.
        precision: `"fp32"` or `"bf16"`, as in `fedprune.vit.precision`.
        device: Where the base runs.

    Returns:
        (n, D)

    Raises:
        ConfigError: there is no such kind, or no such block.
    """
    block = _block(base, kind)
    model = evaluating(base.model, device)
    found = []
    with torch.inference_mode(), autocast(precision, base.shape.embed, device):
        for batch in batches(indices, batch_size, "features"):
            pixels = base.preprocess(images.read(batch)).to(device)
            found.append(_forward(model, pixels, kind, block).float().cpu().numpy())
    return np.concatenate(found) if found else np.empty((0, base.shape.embed), dtype=np.float32)


def cached_features(
    cache: Path, images_id: str, base: Base, images: ImageSet, kind: str, precision: str, device: str
) -> FeatureArray:
    """Return features of all `images`, as `extract` computes them, from the cache where they are there.

    Args:
        cache: Folder of the cache.
        images_id: Fingerprint of the images.
        base: The frozen base.
        images: Whose features.
        kind: As in `extract`.
        precision: As in `extract`.
        device: Where the base runs.
    """
    return cached_array(
        cache,
        "features",
        [images_id, base.fingerprint, precision, device, kind],
        lambda: extract(base, images, np.arange(len(images)), kind, precision=precision, device=device),
    )


def _block(base: Base, kind: str) -> int | None:
    if kind in ("cls", "mean"):
        return None
    match = re.fullmatch(r"block-(\d+)", kind)
    if match is None:
        raise ConfigError(f"There are no features {kind!r}. Choose cls, mean, or a block such as block-3.")
    block, depth = int(match[1]), len(base.shape.blocks)
    if block >= depth:
        raise ConfigError(f"The base has blocks 0 to {depth - 1}; features {kind!r} ask for another one.")
    return block


def _forward(model: Any, pixels: torch.Tensor, kind: str, block: int | None) -> torch.Tensor:
    prefix = int(model.num_prefix_tokens)
    if block is None:
        tokens = model.forward_features(pixels)
        first, patches = tokens[:, :1], tokens[:, prefix:]
    else:
        asked = {"indices": [block], "norm": True, "output_fmt": "NLC", "intermediates_only": True}
        found = model.forward_intermediates(pixels, return_prefix_tokens=prefix > 0, **asked)[0]
        patches, first = found if prefix else (found, None)
    token = patches.mean(dim=1) if kind == "mean" or not prefix else first[:, 0]
    return torch.as_tensor(model.fc_norm(token))  # the final norm of models that pool before it, else nothing
