"""The two modules in which an edge model differs from timm's own vision transformer, and cheap ways to build them.

A block whose branch is gone holds None in that branch's place: no parameters, no work.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from timm.layers.layer_scale import LayerScale
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor, nn

NORM_EPSILON = 1e-6


class Linear(nn.Linear):
    """A Linear around (outputs, inputs) and (outputs,) tensors; nothing is initialised or copied."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = weight.shape
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)


def layer_norm(weight: Tensor, bias: Tensor) -> LayerNorm:
    """Wrap (width,) tensors as timm's LayerNorm."""
    layer = LayerNorm(len(weight), eps=NORM_EPSILON, affine=False)
    layer.elementwise_affine = True
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def layer_scale(gamma: Tensor) -> LayerScale:
    """Wrap a (width,) tensor as timm's LayerScale."""
    layer = LayerScale(len(gamma))
    layer.gamma = nn.Parameter(gamma)
    return layer


class Mlp(nn.Module):
    """An MLP with GELU around two Linears; state-dict keys are those of timm's."""

    def __init__(self, fc1: nn.Linear, fc2: nn.Linear) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = fc1, nn.GELU(), fc2

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., embed) to the same size."""
        return self.fc2(self.act(self.fc1(x)))  # type: ignore[no-any-return]


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """Return softmax(scale query key^T + mask) value by torch's fast kernels, which want equal widths.

    Zeros in queries and keys add nothing to a score, and zero value columns are cut off again, so padding the narrower
    side is exact. An exported graph does without it.

    Args:
        query: (batch, heads, tokens, qk)
        key: (batch, heads, tokens, qk)
        value: (batch, heads, tokens, v)
        scale: Softmax scale.
        mask: Boolean or added to the scores.
        causal: Whether a token sees only those before it.
    """
    width = value.shape[-1]
    exporting = torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()
    gap = 0 if exporting else query.shape[-1] - width
    if gap > 0:
        value = F.pad(value, (0, gap))
    elif gap < 0:
        query, key = F.pad(query, (0, -gap)), F.pad(key, (0, -gap))
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, scale=scale)
    return mixed[..., :width] if gap > 0 else mixed


class RaggedLinear(nn.Linear):
    """A Linear whose outputs are laid out in heads of one width: zeros fill up the heads that are narrower.

    The weights hold only what is there. A zero query or key dimension adds nothing to a score, a zero value nothing.
    """

    def __init__(self, layer: nn.Linear, slots: Tensor, width: int) -> None:
        """Take the weights of `layer`, and at which of `width` outputs each of its rows stands."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        source = torch.full((width,), len(slots))
        source[slots] = torch.arange(len(slots))
        self.register_buffer("source", source, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., width)."""
        return F.pad(super().forward(x), (0, 1)).index_select(-1, self.get_buffer("source"))


class Attention(nn.Module):
    """Multi-head self-attention whose query-key width and value width may differ, with an explicit scale.

    The softmax scale is the base's whatever the widths become: deriving it from a pruned width would change the
    function. State-dict keys are those of timm's attention; rows of `qkv` are all queries, all keys, all values,
    head by head. Where heads differ in width, weights are as narrow as the heads; only the product of queries, keys
    and values runs over heads filled up to the widest.

    Args:
        qkv: The projections of all heads.
        proj: What reads the heads.
        heads: Number of heads.
        qk: Query-key width, or that of the widest head.
        v: Value width, or that of the widest head.
        scale: Softmax scale.
        widths: Each head's own width, of queries, keys and values alike; empty where heads are equal.
    """

    def __init__(
        self, qkv: nn.Linear, proj: nn.Linear, heads: int, qk: int, v: int, scale: float, widths: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.num_heads, self.qk_dim, self.v_dim, self.scale, self.widths = heads, qk, v, scale, widths
        self.fused_attn = True
        self.qkv, self.proj = qkv, proj
        if widths:
            slots = torch.cat([head * qk + torch.arange(width) for head, width in enumerate(widths)])
            self.register_buffer("slots", slots, persistent=False)
            self.qkv = RaggedLinear(qkv, torch.cat([part * heads * qk + slots for part in range(3)]), 3 * heads * qk)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Attend over (batch, tokens, embed) and return the same size; the mask is boolean or added to the scores."""
        batch, tokens, _ = x.shape
        inner = self.num_heads * self.qk_dim
        query, key, value = (
            part.reshape(batch, tokens, self.num_heads, -1).transpose(1, 2)
            for part in self.qkv(x).split((inner, inner, self.num_heads * self.v_dim), dim=-1)
        )
        if self.fused_attn:
            mixed = fused_attention(query, key, value, self.scale, attn_mask, is_causal)
        else:
            mixed = self._explicit(query, key, value, attn_mask, is_causal)
        mixed = mixed.transpose(1, 2)
        mixed = joined(self, mixed.reshape(batch, tokens, self.num_heads * self.v_dim))
        return self.proj(mixed)  # type: ignore[no-any-return]

    def _explicit(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        scores = (query * self.scale) @ key.transpose(-2, -1)
        if causal:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        return scores.softmax(dim=-1) @ value


def joined(attention: nn.Module, mixed: Tensor) -> Tensor:
    """Return what `proj` reads of (batch, tokens, heads x widest) mixed values: no filled-up dimensions."""
    return mixed.index_select(-1, attention.get_buffer("slots")) if getattr(attention, "widths", ()) else mixed


@contextmanager
def explicit_attention(model: nn.Module) -> Iterator[None]:
    """Compute attention, timm's or ours, in single steps inside this context, and not by torch's fused kernel."""
    fused = [module for module in model.modules() if getattr(module, "fused_attn", False)]
    for module in fused:
        module.fused_attn = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in fused:
            module.fused_attn = True  # type: ignore[assignment]


class Block(TimmBlock):
    """timm's pre-norm block in which either branch may be gone."""

    def __init__(
        self,
        attention: tuple[nn.Module, Attention, nn.Module] | None,
        mlp: tuple[nn.Module, Mlp, nn.Module] | None,
    ) -> None:
        """Take each branch as (norm, body, layer scale), or None where it is gone."""
        nn.Module.__init__(self)
        for number, body, branch in ((1, "attn", attention), (2, "mlp", mlp)):
            names = (f"norm{number}", body, f"ls{number}")
            for name, module in zip(names, branch or (None, None, None), strict=True):
                self.register_module(name, module)
            self.register_module(f"drop_path{number}", nn.Identity())

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Run the branches that are there on (batch, tokens, embed)."""
        if self.attn is not None:
            x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal)))
        if self.mlp is not None:
            x = x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        return x
