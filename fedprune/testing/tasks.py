"""Small random bases of every family, tasks on random images, and units to keep: what contracts are asked on."""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

import fedprune.vit  # noqa: F401  declares torchvision operators before timm is imported
from fedprune.data.images import ArrayImages, IntArray, Pixels
from fedprune.devices.budget import Budget
from fedprune.evidence.evidence import Evidence
from fedprune.pruning.method import PruningTask
from fedprune.vit.base import Base, Preprocess
from fedprune.vit.shape import BlockKeep, Keep, Shape

CLASSES = 6
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "layer_scale": {"init_values": 0.3, "no_embed_class": True},
    "distilled": {},
    "average": {"global_pool": "avg", "class_token": False},
    "average_with_class_token": {"global_pool": "avg"},
    "registers": {"reg_tokens": 2, "init_values": 0.5},
}


def random_base(
    family: str = "plain", *, seed: int = 0, twins: bool = False, dtype: torch.dtype = torch.float64, **sizes: Any
) -> Base:
    """Return a base of 3 blocks, 16 wide, with 2 heads of 8 and 32 neurons, all weights random.

    Args:
        family: One of `FAMILIES`.
        seed: Of the weights.
        twins: Whether neuron i + 16 of every block has the same inputs as neuron i.
        dtype: Of the weights.
        sizes: What differs from that: arguments of timm's VisionTransformer.
    """
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.vision_transformer import VisionTransformer

    build = VisionTransformerDistilled if family == "distilled" else VisionTransformer
    usual = {"img_size": 16, "patch_size": 8, "num_classes": CLASSES, "embed_dim": 16, "depth": 3, "num_heads": 2}
    model: Any = build(**{**usual, "mlp_ratio": 2, **FAMILIES[family], **sizes})
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=draw) * (value.shape[-1] ** -0.5 if value.ndim == 2 else 0.3)
            value.copy_(noise + (1 if name.endswith(("norm1.weight", "norm2.weight", "norm.weight")) else 0))
        if twins:
            for block in model.blocks:
                for part in (block.mlp.fc1.weight, block.mlp.fc1.bias):
                    part[16:] = part[:16]
    side = model.patch_embed.img_size[0]
    return Base.of(model.to(dtype), Preprocess(side, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))


@dataclass(frozen=True)
class WatchedImages(ArrayImages):
    """Images that remember which of them were read."""

    seen: set[int] = field(default_factory=set)

    def read(self, indices: IntArray) -> Pixels:
        """Return the images at `indices`."""
        self.seen.update(np.asarray(indices).tolist())
        return super().read(indices)


def task_of(
    base: Base,
    *,
    images: int = 16,
    size: int | None = None,
    classes: tuple[int, ...] | None = None,
    budget: Budget | None = None,
    cache: Path | None = None,
    seed: int = 0,
    beside: int = 0,
    relabelled: bool = False,
) -> PruningTask:
    """Return a task on random labelled images.

    Args:
        base: The base.
        images: Images of the pool.
        size: Images of the proxy set, drawn from the pool with repeats; as many as the pool has by default.
        classes: Those that the device tells.
        budget: No limit to speak of by default.
        cache: Folder of the evidence; by default one that goes when the evidence goes.
        seed: Of images, proxy set and task.
        beside: Images behind those of the pool, which a validation cut would be.
        relabelled: Whether every image has the next class's label: another task for whoever reads labels.
    """
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, (images, 16, 16, 3), dtype=np.uint8)
    labels = draw.integers(0, CLASSES, images)
    pool = np.arange(images)
    proxy = np.sort(draw.choice(pool, size or images))
    if beside:
        pixels = np.concatenate([pixels, draw.integers(0, 256, (beside, 16, 16, 3), dtype=np.uint8)])
        labels = np.concatenate([labels, draw.integers(0, CLASSES, beside)])
    if relabelled:
        labels = (labels + 1) % CLASSES
    photos = WatchedImages(pixels, labels)
    folder = TemporaryDirectory(prefix="fedprune-testing-")
    cache = cache or Path(folder.name)
    evidence = Evidence(base, photos, cache, images_id=f"random-{images}-{seed}", precision="fp32")
    weakref.finalize(evidence, folder.cleanup)
    return PruningTask(base, photos, proxy, pool, evidence, budget or Budget(params=10**9), classes, seed)


def half_of(shape: Shape, what: str) -> Keep:
    """Keep the first half of one dimension and all of the others."""
    keep = Keep.everything(shape)
    if what == "embed":
        return replace(keep, embed=keep.embed[: shape.embed // 2])
    if what == "blocks":
        return replace(keep, blocks=keep.blocks[::2])

    def halve(block: BlockKeep) -> BlockKeep:
        if what == "heads":
            return replace(block, heads=block.heads[:1], qk=block.qk[:1], v=block.v[:1])
        values = getattr(block, what)
        return replace(block, **{what: values[..., : values.shape[-1] // 2]})

    return replace(keep, blocks=tuple(halve(block) for block in keep.blocks))


def random_keep(shape: Shape, seed: int) -> Keep:
    """Draw units to keep in all seven dimensions; some branches and blocks are gone."""
    draw = np.random.default_rng(seed)

    def some(width: int, least: int = 1) -> IntArray:
        return np.sort(draw.choice(width, draw.integers(least, width + 1), replace=False))

    def rows(heads: int, width: int) -> IntArray:
        count = int(draw.integers(1, width + 1))
        chosen = [np.sort(draw.choice(width, count, replace=False)) for _ in range(heads)]
        return np.array(chosen, dtype=np.int64).reshape(heads, count)

    blocks = []
    for index in some(len(shape.blocks), 2).tolist():
        block = shape.blocks[index]
        heads = some(block.heads) if draw.random() > 1 / 6 else np.arange(0)
        neurons = some(block.neurons) if draw.random() > 1 / 6 else np.arange(0)
        blocks.append(BlockKeep(index, heads, rows(len(heads), block.qk), rows(len(heads), block.v), neurons))
    return Keep(some(shape.embed, 4), some(shape.classes, 2), tuple(blocks))
