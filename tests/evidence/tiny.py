"""Tiny transformers and noise images."""

from typing import Any

import numpy as np
import torch

from fedprune.data.images import ArrayImages
from fedprune.vit.base import Base, Preprocess

torch.set_num_threads(1)

VARIANTS = {
    "class token": {},
    "average pooling": {"global_pool": "avg", "class_token": False},
    "layer scale": {"init_values": 0.3},
    "distilled": {"distilled": True},
}


def make_model(seed: int = 0, distilled: bool = False, **options: Any) -> Any:
    """Build a tiny vision transformer in which no parameter is trivial."""
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.vision_transformer import VisionTransformer

    kind = VisionTransformerDistilled if distilled else VisionTransformer
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 7}
    model = kind(**{**sizes, "mlp_ratio": 2.0, **options})
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        one = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.data = one + 0.25 * torch.randn(parameter.shape, generator=generator)
    return model.eval().requires_grad_(False)


def make_base(seed: int = 0, **options: Any) -> Base:
    model = make_model(seed, **options)
    size = model.patch_embed.img_size[0]
    return Base.of(model, Preprocess(size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))


def make_images(count: int = 40, size: int = 16, classes: int = 7, seed: int = 0) -> ArrayImages:
    generator = np.random.default_rng(seed)
    return ArrayImages(
        generator.integers(0, 256, (count, size, size, 3), dtype=np.uint8), generator.integers(0, classes, count)
    )
