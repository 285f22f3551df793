"""Features of the frozen base: nothing to train, and the device has it anyway."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedprune.core.errors import ConfigError
from fedprune.core.hashing import content_hash
from fedprune.core.progress import batches
from fedprune.core.registry import register
from fedprune.data.images import ImageSet, IntArray
from fedprune.data.public import PublicImages
from fedprune.mixture.features import Extractor, FeatureArray, Features
from fedprune.vit.base import Base, evaluating
from fedprune.vit.precision import autocast


@register("features", "base")
@dataclass(frozen=True)
class BaseFeatures(Features):
    """Features of the frozen base itself: nothing is trained, and the device has it anyway.

    Attributes:
        kind: `cls`, the class token after the final norm; `mean`, the mean patch token after the final norm; or
            `block-3`, the class token after block 3 (counted from 0), passed through the final norm. A base without a
            class token has the mean patch token in its place, which is what its head reads.
    """

    kind: str = "cls"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"cls|mean|block-\d+", self.kind):
            raise ValueError(f"kind is {self.kind!r}; choose cls, mean, or a block such as block-3.")

    def extractor(self, base: Base, public: PublicImages, cache: Path) -> Extractor:
        """Return the base."""
        return BaseExtractor(base, self.kind)


@dataclass(frozen=True)
class BaseExtractor(Extractor):
    """The base as an extractor; see `BaseFeatures` for `kind`."""

    base: Base
    kind: str = "cls"

    @property
    def fingerprint(self) -> str:
        """That of the base and of which features."""
        return content_hash(self.base.fingerprint, self.kind)

    def extract(
        self, images: ImageSet, indices: IntArray, precision: str = "fp32", device: str = "cpu"
    ) -> FeatureArray:
        """Return the base's features (n, D).

        Raises:
            ConfigError: the base has no such block.
        """
        return extract(self.base, images, indices, self.kind, precision=precision, device=device)


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
        kind: As in `BaseFeatures`.
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
