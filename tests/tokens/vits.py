"""Small random vision transformers in float64 with enough patches to lose some, whole or cut."""

import numpy as np
import torch

from fedprune.vit.base import Base, Preprocess
from fedprune.vit.base_file import create
from fedprune.vit.inspect import read_shape
from fedprune.vit.shape import BlockKeep, Keep, Shape

VARIANTS = {
    "plain": {},
    "distilled": {"distilled": True},
    "average": {"class_token": False, "global_pool": "avg"},
    "average with class token": {"global_pool": "avg"},
    "registers and layer scale": {"reg_tokens": 2, "init_values": 0.5},
}


def random_base(seed=0, depth=6, distilled=False, side=24, **options) -> Base:
    """A base of 36 patches, 12 wide, 2 heads of 6, 24 neurons."""
    name = "deit_tiny_distilled_patch16_224" if distilled else "vit_tiny_patch16_224"
    settings = {"embed_dim": 12, "num_heads": 2, "num_classes": 7, "mlp_ratio": 2.0} | options
    model = create({"model": name, "img_size": side, "patch_size": 4, "depth": depth, **settings}, seed)
    torch.manual_seed(seed)
    model = model.double().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return Base(model, read_shape(model), Preprocess(side, (0.5,) * 3, (0.5,) * 3), f"random {seed} {sorted(options)}")


def images(count=3, seed=1, side=24):
    return torch.randn(count, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_keep(shape: Shape, seed: int) -> Keep:
    """Draw units in all seven dimensions, branches and blocks included."""
    rng = np.random.default_rng(seed)

    def some(width, least=1):
        return np.sort(rng.choice(width, rng.integers(least, width + 1), replace=False))

    def rows(heads, width):
        count = rng.integers(1, width + 1)
        return np.array([np.sort(rng.choice(width, count, replace=False)) for _ in range(heads)]).reshape(heads, count)

    blocks = []
    for index in some(len(shape.blocks), 2).tolist():
        block = shape.blocks[index]
        heads = some(block.heads) if rng.random() > 1 / 6 else np.arange(0)
        neurons = some(block.neurons) if rng.random() > 1 / 6 else np.arange(0)
        blocks.append(BlockKeep(index, heads, rows(len(heads), block.qk), rows(len(heads), block.v), neurons))
    return Keep(some(shape.embed, 4), some(shape.classes, 2), tuple(blocks))
