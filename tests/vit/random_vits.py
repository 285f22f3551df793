"""Small random vision transformers in float64, random units to keep, and masking written out by hand."""

import numpy as np
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

import fedprune.vit  # noqa: F401 (declares torchvision's operators before timm is imported)
from fedprune.vit.base import Base, Preprocess
from fedprune.vit.inspect import read_shape
from fedprune.vit.shape import BlockKeep, Keep, Shape

VARIANTS = {
    "plain": {},
    "distilled": {"distilled": True},
    "layer scale, positions without class token": {"init_values": 0.5, "no_embed_class": True},
    "average pooling without class token": {"class_token": False, "global_pool": "avg"},
    "average pooling with class token": {"global_pool": "avg"},
    "registers": {"reg_tokens": 3},
    "registers, layer scale, average pooling": {"reg_tokens": 2, "init_values": 0.1, "global_pool": "avg"},
}


def random_vit(seed=0, embed_dim=12, depth=3, num_heads=2, num_classes=7, mlp_ratio=2.0, distilled=False, **options):
    torch.manual_seed(seed)
    build = VisionTransformerDistilled if distilled else VisionTransformer
    model = build(
        img_size=8,
        patch_size=4,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        num_classes=num_classes,
        mlp_ratio=mlp_ratio,
        **options,
    )
    model = model.double().eval().requires_grad_(False)
    for parameter in model.parameters():  # timm starts biases and tokens at zero, where a wrong index would not show
        parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def random_base(seed=0, **options):
    model = random_vit(seed, **options)
    return Base(model, read_shape(model), Preprocess(8, (0.5,) * 3, (0.5,) * 3), f"random {seed} {sorted(options)}")


def images(count=3, seed=1, size=8):
    return torch.randn(count, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_keep(shape: Shape, rng: np.random.Generator) -> Keep:
    """Draw units in all seven dimensions; about one branch in eight is gone, in one block of four heads differ."""

    def some(width, least=1):
        return np.sort(rng.choice(width, rng.integers(least, width + 1), replace=False))

    def rows(heads, width):
        count = rng.integers(1, width + 1)
        return np.array([np.sort(rng.choice(width, count, replace=False)) for _ in range(heads)]).reshape(heads, count)

    def ragged(heads, width):
        drawn = [some(width) for _ in range(heads)]
        widest = max(map(len, drawn), default=1)
        return np.array([np.pad(row, (0, widest - len(row)), constant_values=-1) for row in drawn]).reshape(heads, -1)

    blocks = []
    for index in some(len(shape.blocks)).tolist():
        block = shape.blocks[index]
        heads = some(block.heads) if rng.random() > 1 / 8 else np.arange(0)
        neurons = some(block.neurons) if rng.random() > 1 / 8 else np.arange(0)
        qk, v = rows(len(heads), block.qk), rows(len(heads), block.v)
        if rng.random() < 1 / 4 and len(heads):
            qk = v = ragged(len(heads), block.qk)
        blocks.append(BlockKeep(index, heads, qk, v, neurons))
    return Keep(some(shape.embed, 2), some(shape.classes), tuple(blocks))


def masked_logits(base: Base, keep: Keep, x: torch.Tensor) -> torch.Tensor:
    """Run the whole base with masks of zeros and ones; LayerNorm's statistics run over the kept dimensions.

    Written as formulas on full-size tensors, apart from all that surgery does.
    """
    model, shape = base.model, base.shape
    stream = mask(shape.embed, keep.embed)

    def norm(values, layer):
        mean = (values * stream).sum(-1, keepdim=True) / stream.sum()
        centred = (values - mean) * stream
        variance = (centred**2).sum(-1, keepdim=True) / stream.sum()
        return stream * (centred / torch.sqrt(variance + 1e-6) * layer.weight + layer.bias)

    def gain(values, scale):
        return values * scale.gamma if shape.layer_scale else values

    kept = {block.block: block for block in keep.blocks}
    values = stream * model._pos_embed(model.patch_embed(x))
    for index, block in enumerate(model.blocks):
        if index not in kept:
            continue
        units = kept[index]
        if len(units.heads):
            normed = norm(values, block.norm1)
            mixed = masked_attention(block.attn, normed, units, shape.blocks[index])
            values = values + stream * gain(mixed, block.ls1)
        if len(units.neurons):
            hidden = torch.nn.functional.gelu(block.mlp.fc1(norm(values, block.norm2)))
            hidden = hidden * mask(shape.blocks[index].neurons, units.neurons)
            values = values + stream * gain(block.mlp.fc2(hidden), block.ls2)
    rows = torch.as_tensor(keep.classes)
    if shape.distilled:
        values = norm(values, model.norm)
        return ((model.head(values[:, 0]) + model.head_dist(values[:, 1])) / 2)[:, rows]
    values = values if shape.fc_norm else norm(values, model.norm)
    pooled = values[:, 0] if shape.pool == "token" else values[:, shape.prefix_tokens :].mean(1)
    return model.head(norm(pooled, model.fc_norm) if shape.fc_norm else pooled)[:, rows]


def masked_attention(attention, normed, units, shape):
    batch, tokens, _ = normed.shape
    qkv = attention.qkv(normed).reshape(batch, tokens, 3, shape.heads, shape.qk)
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    heads = torch.zeros(shape.heads, dtype=torch.float64)
    heads[torch.as_tensor(units.heads)] = 1
    for_qk, for_v = (torch.zeros(shape.heads, 1, shape.qk, dtype=torch.float64) for _ in range(2))
    for row, head in enumerate(units.heads.tolist()):
        for_qk[head, 0, torch.as_tensor([unit for unit in units.qk[row] if unit >= 0])] = 1
        for_v[head, 0, torch.as_tensor([unit for unit in units.v[row] if unit >= 0])] = 1
    scores = (query * for_qk) @ (key * for_qk).transpose(-1, -2) * attention.scale
    mixed = scores.softmax(-1) @ (value * for_v) * heads[:, None, None]
    return attention.proj(mixed.transpose(1, 2).reshape(batch, tokens, -1))


def mask(width, kept):
    values = torch.zeros(width, dtype=torch.float64)
    values[torch.as_tensor(kept)] = 1
    return values
