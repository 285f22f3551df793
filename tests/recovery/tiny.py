"""Random bases of every family, small enough that a test takes a moment, and tasks on random images."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

import fedprune.vit  # noqa: F401  declares torchvision operators before timm is imported
from fedprune.data.images import ArrayImages
from fedprune.devices.budget import Budget
from fedprune.evidence.evidence import Evidence
from fedprune.pruning.method import PruningTask
from fedprune.vit.base import Base, Preprocess
from fedprune.vit.shape import Keep, Shape

CLASSES = 6
KINDS = ("plain", "layer_scale", "distilled", "average")


def random_base(kind: str = "plain", *, seed: int = 0, twins: bool = False, dtype: torch.dtype = torch.float64) -> Base:
    """Return a base of 3 blocks, 16 wide, with 2 heads of 8 and 32 neurons, all weights random.

    With `twins`, neuron i + 16 of every block has the same inputs as neuron i.
    """
    options = {
        "plain": {},
        "layer_scale": {"init_values": 0.3, "no_embed_class": True},
        "distilled": {},
        "average": {"global_pool": "avg", "class_token": False},
    }[kind]
    build = VisionTransformerDistilled if kind == "distilled" else VisionTransformer
    model = build(
        img_size=16, patch_size=8, num_classes=CLASSES, embed_dim=16, depth=3, num_heads=2, mlp_ratio=2, **options
    )
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=draw) * (value.shape[-1] ** -0.5 if value.ndim == 2 else 0.3)
            value.copy_(noise + (1 if name.endswith(("norm1.weight", "norm2.weight", "norm.weight")) else 0))
        if twins:
            for block in model.blocks:
                for part in (block.mlp.fc1.weight, block.mlp.fc1.bias):
                    part[16:] = part[:16]
    return Base.of(model.to(dtype), Preprocess(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))


def task_of(
    base: Base,
    *,
    images: int = 16,
    size: int | None = None,
    classes: tuple[int, ...] | None = None,
    budget: Budget | None = None,
    cache: Path | None = None,
    seed: int = 0,
) -> PruningTask:
    """Return a task on random labelled images: the pool is all of them, the proxy set `size` draws from it."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, (images, 16, 16, 3), dtype=np.uint8)
    labels = draw.integers(0, CLASSES, images)
    photos = ArrayImages(pixels, labels)
    pool = np.arange(images)
    proxy = np.sort(draw.choice(pool, size or images))
    cache = cache or Path(tempfile.mkdtemp(prefix="fedprune-tests-"))
    evidence = Evidence(base, photos, cache, images_id=f"random-{images}-{seed}", precision="fp32")
    return PruningTask(base, photos, proxy, pool, evidence, budget or Budget(params=10**9), classes, seed)


def half_of(shape: Shape, what: str) -> Keep:
    """Keep the first half of one dimension and all of the others."""
    keep = Keep.everything(shape)
    if what == "embed":
        return replace(keep, embed=keep.embed[: shape.embed // 2])
    if what == "blocks":
        return replace(keep, blocks=(keep.blocks[0], keep.blocks[2]))

    def halve(block):
        if what == "heads":
            return replace(block, heads=block.heads[:1], qk=block.qk[:1], v=block.v[:1])
        values = getattr(block, what)
        return replace(block, **{what: values[..., : values.shape[-1] // 2]})

    return replace(keep, blocks=tuple(halve(block) for block in keep.blocks))
