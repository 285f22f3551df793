"""The contract of a token reducer: one computation in two modes, counted exactly, on whole and on cut models."""

from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fedprune.protocol.storage import StoredModel
from fedprune.testing.contract import Check, asked, expect, it_is_an_option_of_its_kind
from fedprune.testing.tasks import FAMILIES, random_base, random_keep
from fedprune.tokens import attend
from fedprune.tokens.counts import count_reduced_macs, traced_macs
from fedprune.tokens.edge_model import reduced_edge
from fedprune.tokens.ltmp import LtmpStage
from fedprune.tokens.reduced import ReducedModel, reduce
from fedprune.tokens.reducer import Reducer
from fedprune.vit.base import Base
from fedprune.vit.counts import count_macs
from fedprune.vit.surgery import cut

SIDE = 24  # pixels, 36 patches
EXACT = 1e-12  # of float64 logits


def contract(reducer: Reducer) -> list[Check]:
    """Return the checks of a token reducer; it is asked at several strengths, whatever its own."""
    return [
        *asked(it_is_an_option_of_its_kind, kind=["tokens"], base=[Reducer]),
        *asked(masked_equals_gathered, family=FAMILIES, ragged=[False, True]),
        *asked(masked_equals_gathered_on_cut_models, family=FAMILIES, keep=[0.5], seed=[0], ragged=[False, True]),
        *asked(keep_ratio_one_is_the_base, family=FAMILIES),
        *asked(training_forward_equals_inference),
        *asked(macs_are_those_that_torch_counts, family=FAMILIES, keep=[0.5], seed=[0]),
        *asked(a_device_rebuilds_the_same_model, seed=range(3)),
    ]


def patched_base(family: str = "plain", seed: int = 0) -> Base:
    """Return a base in float64 of 6 blocks, 12 wide, with 36 patches, of which some can go."""
    return random_base(family, seed=seed, img_size=SIDE, patch_size=4, embed_dim=12, depth=6)


def pixels(count: int = 3, seed: int = 1) -> Tensor:
    """Return (count, 3, 24, 24) noise."""
    return torch.randn(count, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def stir(reduced: ReducedModel, seed: int = 0) -> ReducedModel:
    """Give learned stages parameters that decide something; return the model."""
    draw = torch.Generator().manual_seed(seed)
    for index, stage in sorted(reduced.at.items()):
        with torch.no_grad():
            if isinstance(stage, LtmpStage):  # thresholds are ordered
                stage.thresholds.copy_(torch.tensor([0.5, 0.8]) + 0.1 * torch.rand(2, generator=draw))
                stage.fix(2 - index % 2, 1 + index % 2)
                continue
            for parameter in stage.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, dtype=parameter.dtype, generator=draw))
    return reduced


def expect_equal_modes(reduced: ReducedModel, images: Tensor) -> Tensor:
    """Expect the same logits whether marked tokens are removed or masked; return them.

    Raises:
        AssertionError: they differ.
    """
    reduced.masked = False
    gathered = reduced(images)
    reduced.masked = True
    apart = float((gathered - reduced(images)).abs().max())
    reduced.masked = False
    expect(apart < EXACT, f"with marked tokens masked, logits are {apart:.2g} away from those with them removed.")
    return gathered  # type: ignore[no-any-return]


def on_a_cut_model(reducer: Reducer, family: str, keep: float, seed: int) -> ReducedModel:
    """Return the reducer in a model that has lost units in all seven dimensions, its parameters stirred."""
    base = patched_base(family, seed % 3)
    units = random_keep(base.shape, seed)
    edge = cut(base, units)
    return stir(reduce(edge.model, edge.shape, reducer.at(keep), base.shape, units), seed)


def masked_equals_gathered(reducer: Reducer, family: str, ragged: bool) -> None:
    """Training masks tokens and inference removes them; both are one computation."""
    base, reducer = patched_base(family), reducer.at(0.6)
    reduced = stir(reduce(base.model, base.shape, reducer))
    if ragged:
        reducer.calibrate(reduced, [pixels()])  # a random selector may let every token pass its threshold
    with torch.no_grad():
        gathered = expect_equal_modes(reduced.set_ragged(ragged), pixels())
        apart = float((gathered - base.model(pixels())).abs().max())
    expect(apart > 1e-6 or not reduced.at, "it puts stages into the model, and they reduce nothing.")


def masked_equals_gathered_on_cut_models(reducer: Reducer, family: str, keep: float, seed: int, ragged: bool) -> None:
    """Stages follow an edge model that has lost dimensions, heads and whole blocks."""
    with torch.no_grad():
        expect_equal_modes(on_a_cut_model(reducer, family, keep, seed).set_ragged(ragged), pixels(2, seed))


def keep_ratio_one_is_the_base(reducer: Reducer, family: str) -> None:
    """At full strength nothing is reduced, and nothing is counted."""
    base = patched_base(family)
    reduced = reduce(base.model, base.shape, reducer.at(1.0))
    with torch.no_grad():
        apart = float((reduced(pixels()) - base.model(pixels())).abs().max())
    expect(apart < EXACT, f"with keep=1 logits are {apart:.2g} away from those of the base.")
    counted, whole = count_reduced_macs(reduced), count_macs(base.shape)
    expect(counted == whole, f"with keep=1 it counts {counted} MACs, and the base has {whole}.")


def training_forward_equals_inference(reducer: Reducer) -> None:
    """With stages in training mode, without noise, the differentiable path decides as ragged inference does."""
    base, reducer = patched_base(), reducer.at(0.6)
    reduced = stir(reduce(base.model, base.shape, reducer)).set_ragged(True)
    gathered = reduced(pixels())
    reduced.masked = True
    reduced.stages.train()
    trained = reduced(pixels())
    apart = float((gathered - trained).detach().abs().max())
    expect(apart < EXACT, f"in training mode logits are {apart:.2g} away from those of inference.")
    if not reducer.trained:
        return
    trained.sum().backward()
    gradients = [parameter.grad for parameter in reduced.stages.parameters() if parameter.grad is not None]
    finite = all(bool(gradient.isfinite().all()) for gradient in gradients)
    expect(finite, "a gradient of its parameters is not finite.")
    moved = any(bool(gradient.abs().max() > 0) for gradient in gradients)
    expect(moved, "it says that it is trained, and its parameters get no gradient.")


def macs_are_those_that_torch_counts(reducer: Reducer, family: str, keep: float, seed: int) -> None:
    """Matrix products of one image, the reducer's own among them, to the last one."""
    reduced = on_a_cut_model(reducer, family, keep, seed)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), patch.object(attend, "fused_attention", explicit_attention), counter:
        done = reduced.run(pixels(1, seed))
    counted, seen = count_reduced_macs(reduced), counter.get_total_flops() // 2
    expect(
        counted == seen, f"it counts {counted} MACs, and torch sees {seen}: see `macs_before` and its like of a Stage."
    )
    traced = traced_macs(reduced, done.trace).tolist()
    expect(traced == [counted], f"it counts {counted} MACs, and the tokens that were there cost {traced}.")


def a_device_rebuilds_the_same_model(reducer: Reducer, seed: int) -> None:
    """The model travels as arrays, a shape and the reducer's fields."""
    base = patched_base()
    edge = reduced_edge(cut(base, random_keep(base.shape, seed)), reducer.at(0.6), base.shape)
    stir(edge.model)
    stored = StoredModel.of(edge)
    built: Any = StoredModel.received(stored.shape, stored.arrays, stored.tokens).build().model
    same = torch.equal(built(pixels()), edge.model(pixels()))
    expect(same, "what a device rebuilds gives other logits; all that decides must be a field or a tensor of a Stage.")


def explicit_attention(query: Tensor, key: Tensor, value: Tensor, scale: float, bias: Tensor | None) -> Tensor:
    """Return what the fused kernel computes, in products that torch counts."""
    scores = query * scale @ key.transpose(-1, -2)
    return (scores if bias is None else scores + bias).softmax(-1) @ value
