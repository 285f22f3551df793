"""Small random vision transformers in float64 with enough patches to lose some."""

import torch

from fedprune.vit.base import Base, Preprocess
from fedprune.vit.base_file import create
from fedprune.vit.inspect import read_shape


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
