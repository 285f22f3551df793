"""What a device and the server see of an image: features of the frozen base."""

import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fedprune.core.errors import ConfigError
from fedprune.core.files import write_atomic
from fedprune.core.hashing import content_hash
from fedprune.data.images import ImageSet, IntArray
from fedprune.vit.base import Base, autocast

FeatureArray = NDArray[np.float32]


def extract(
    base: Base,
    images: ImageSet,
    indices: IntArray,
    kind: str = "cls",
    batch_size: int = 64,
    precision: str = "auto",
    device: str = "cpu",
) -> FeatureArray:
    """Compute features of the images at `indices`.

    Args:
        base: The frozen base.
        images: Where `indices` point into.
        indices: (n,)
        kind: `"cls"`, the class token after the final norm; `"mean"`, the mean patch token after the final norm; or
            `"layer-3"`, the class token after block 3 (counted from 0), passed through the final norm.
        batch_size: Images a forward pass.
        precision: `"bf16"`, `"fp32"` or `"auto"`, as in `fedprune.vit.base.autocast`.
        device: Where the base runs.

    Returns:
        (n, D)

    Raises:
        ConfigError: there is no such kind, or no such layer.
    """
    layer = _layer(base, kind)
    model = base.model.to(device)
    batches = []
    with torch.inference_mode(), autocast(precision, base.shape.embed, device):
        for start in range(0, len(indices), batch_size):
            pixels = base.preprocess(images.read(indices[start : start + batch_size])).to(device)
            batches.append(_forward(model, pixels, kind, layer).float().cpu().numpy())
    return np.concatenate(batches) if batches else np.empty((0, base.shape.embed), dtype=np.float32)


def cached_extract(
    base: Base,
    images: ImageSet,
    fingerprint: str,
    indices: IntArray,
    cache: Path,
    kind: str = "cls",
    batch_size: int = 64,
    precision: str = "auto",
    device: str = "cpu",
) -> FeatureArray:
    """Do what `extract` does, once for each content: later calls read the file that the first one wrote.

    Args:
        base: The frozen base.
        images: Where `indices` point into.
        fingerprint: Names the content of `images`, e.g. the data set's fingerprint and "train".
        indices: (n,)
        cache: Folder of the cached files; safe to delete.
        kind: As in `extract`.
        batch_size: As in `extract`.
        precision: As in `extract`.
        device: As in `extract`.
    """
    key = content_hash("features", 1, base.fingerprint, fingerprint, kind, precision, indices)
    path = cache / "features" / f"{key}.npy"
    if (known := _read(path, len(indices))) is not None:
        return known
    features = extract(base, images, indices, kind, batch_size, precision, device)
    digest = np.frombuffer(bytes.fromhex(content_hash(features, length=64)), dtype=np.uint8)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, features, allow_pickle=False)
            np.save(file, digest, allow_pickle=False)

    write_atomic(path, write)
    return features


def _read(path: Path, count: int) -> FeatureArray | None:
    """Return what stands in the cache, or None where it is absent, damaged or of another length."""
    try:
        with path.open("rb") as file:
            features, digest = np.load(file, allow_pickle=False), np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = len(features) == count and content_hash(features, length=64) == digest.tobytes().hex()
    return features if whole else None


def _layer(base: Base, kind: str) -> int | None:
    if kind in ("cls", "mean"):
        return None
    match = re.fullmatch(r"layer-(\d+)", kind)
    if match is None:
        raise ConfigError(f"There are no features {kind!r}. Choose cls, mean, or a layer such as layer-3.")
    layer, depth = int(match[1]), len(base.shape.blocks)
    if layer >= depth:
        raise ConfigError(f"The base has blocks 0 to {depth - 1}; features {kind!r} ask for another one.")
    return layer


def _forward(model: torch.nn.Module, pixels: torch.Tensor, kind: str, layer: int | None) -> torch.Tensor:
    if layer is not None:
        prefix = model.forward_intermediates(  # type: ignore[operator]
            pixels, indices=[layer], return_prefix_tokens=True, norm=True, intermediates_only=True
        )[0][1]
        return torch.as_tensor(prefix[:, 0])
    tokens = model.forward_features(pixels)  # type: ignore[operator]
    if kind == "cls":
        return torch.as_tensor(tokens[:, 0])
    return torch.as_tensor(tokens[:, int(model.num_prefix_tokens) :].mean(dim=1))  # type: ignore[arg-type]
