"""Recovery `fold`: the exact least-squares predictions, on every cut, in float64."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import oas

from fedprune.data.glyphs import Glyphs
from fedprune.devices.budget import Budget
from fedprune.pruning.tap import Tap
from fedprune.pruning.uvc import UVC
from fedprune.recovery.fold import Fold
from fedprune.testing.tasks import FAMILIES, half_of, random_base, random_keep, task_of
from fedprune.vit.base import Base, predict
from fedprune.vit.base_file import load_base
from fedprune.vit.base_glyphs import PACKAGED
from fedprune.vit.logits import fold_logits
from fedprune.vit.lowrank import low_rank
from fedprune.vit.refit import Sums, shrinkage
from fedprune.vit.shape import Keep
from fedprune.vit.stream import mean_free, rotate
from fedprune.vit.surgery import EdgeModel, cut

EXACT = 1e-10
PIXELS = torch.randn(3, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def seen_by(layer: torch.nn.Module, base: Base, task: Any) -> torch.Tensor:
    """Return what a layer of the base reads on the proxy set, repeats as often, (images, tokens, inputs)."""
    seen = []
    handle = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    base.model(base.preprocess(task.images.read(task.proxy)).double())
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("family", ["plain", "layer_scale"])
@pytest.mark.parametrize(("what", "layer"), [("neurons", "mlp.fc2"), ("v", "attn.proj"), ("heads", "attn.proj")])
def test_a_writer_gets_the_ridge_regression_of_what_it_lost_on_what_it_keeps(
    family: str, what: str, layer: str
) -> None:
    base = random_base(family)
    task, keep = task_of(base, images=12), half_of(base.shape, what)
    edge = cut(base, keep)
    folded = Fold(ridge=0.05, shrinkage="constant", class_token=1.0).recover(edge, task)
    for index in range(3):
        source: Any = base.model.get_submodule(f"blocks.{index}.{layer}")
        mine: Any = folded.model.get_submodule(f"blocks.{index}.{layer}")
        branch = "1" if layer == "attn.proj" else "2"
        gain = getattr(base.model.blocks[index], f"ls{branch}")
        gamma = gain.gamma.numpy() if family == "layer_scale" else np.ones(16)
        block = keep.blocks[index]
        kept = block.neurons if what == "neurons" else np.ravel(block.heads[:, None] * 8 + block.v)
        z = seen_by(source, base, task).flatten(0, 1).numpy()
        gone = np.setdiff1d(np.arange(z.shape[1]), kept)
        centred, lost = z[:, kept] - z[:, kept].mean(0), z[:, gone] - z[:, gone].mean(0)
        penalty = np.sqrt(0.05 * np.trace(centred.T @ centred) / len(kept)) * np.eye(len(kept))
        rows = np.concatenate([centred, penalty]), np.concatenate([lost, np.zeros((len(kept), len(gone)))])
        b = np.linalg.lstsq(*rows, rcond=None)[0].T
        c = z[:, gone].mean(0) - b @ z[:, kept].mean(0)
        weight, bias = gamma[:, None] * source.weight.numpy(), gamma * source.bias.numpy()
        np.testing.assert_allclose(mine.weight.detach(), weight[:, kept] + weight[:, gone] @ b, atol=EXACT)
        np.testing.assert_allclose(mine.bias.detach(), bias + weight[:, gone] @ c, atol=EXACT)


def mixed(queries: Any, keys: Any, weights: Any, kept: Any, ridge: float) -> np.ndarray:
    """Return I + M as the product of what queries and keys are multiplied with."""
    batches = [(queries[:2], keys[:2], weights[:2]), (queries[2:], keys[2:], weights[2:])]
    for_query, for_key = fold_logits(batches, torch.tensor(kept), ridge)
    return (for_query.T @ for_key).numpy()


@given(st.integers(0, 10_000), st.floats(1e-4, 1))
@settings(max_examples=20, deadline=None)
def test_scores_are_the_minimum_of_the_stated_loss(seed: int, ridge: float) -> None:
    """Against one ordinary least squares over the entries of M: a row a pair of tokens, and penalty rows."""
    draw = torch.Generator().manual_seed(seed)
    queries, keys = (torch.randn(4, 6, 5, generator=draw, dtype=torch.float64) + 0.3 for _ in range(2))
    weights = torch.randint(1, 4, (4, 6), generator=draw).double()
    kept, gone = [0, 2, 3], [1, 4]
    pairs = np.einsum("bti,buj->btuij", queries[..., kept].numpy(), keys[..., kept].numpy()).reshape(-1, 9)
    lost = (queries[..., gone] @ keys[..., gone].mT).numpy().ravel()
    root = np.sqrt(weights.numpy())[:, :, None].repeat(6, 2).ravel()
    design, goal = pairs * root[:, None], lost * root
    penalty = np.sqrt(ridge * (design**2).sum() / 9) * np.eye(9)
    expected = np.linalg.lstsq(np.vstack([design, penalty]), np.concatenate([goal, np.zeros(9)]), rcond=None)[0]
    found = mixed(queries, keys, weights, kept, ridge)
    np.testing.assert_allclose(found, np.eye(3) + expected.reshape(3, 3), atol=1e-9)


def test_scores_of_one_dimension_by_hand() -> None:
    """q = (1, 2), k = (1, 3) at one token: the kept product 1 stands for 1 + 6."""
    queries, keys = (torch.tensor([[values]]).double() for values in ([1.0, 2.0], [1.0, 3.0]))
    for_query, for_key = fold_logits([(queries, keys, torch.ones(1, 1))], torch.tensor([0]), 1e-12)
    assert float(for_query * for_key) == pytest.approx(7, abs=1e-9)
    assert float(for_query) == pytest.approx(7**0.5, abs=1e-9)


def test_queries_that_are_zero_stay() -> None:
    for_query, for_key = fold_logits(
        [(torch.zeros(1, 2, 3), torch.ones(1, 2, 3), torch.ones(1, 2))], torch.tensor([0]), 0.1
    )
    assert torch.equal(for_query, torch.eye(1).double())
    assert torch.equal(for_key, torch.eye(1).double())


@pytest.mark.parametrize("coordinates", ["own", "singular", "rotated"])
def test_no_other_mixing_of_queries_and_keys_is_nearer_to_the_scores(coordinates: str) -> None:
    """On whole models, per head of the first block: the gradient of the squared differences by the mixing is zero."""
    base = random_base("plain")
    source = {"own": lambda: base, "singular": lambda: low_rank(base).base, "rotated": lambda: rotated(base)}[
        coordinates
    ]()
    task, keep = task_of(base, images=12), half_of(base.shape, "qk")
    folded = Fold(ridge=1e-12, class_token=1.0).recover(cut(source, keep), task)
    source_layer: Any = source.model.blocks[0].attn.qkv
    layer: Any = folded.model.get_submodule("blocks.0.attn.qkv")
    read = seen_by(source_layer, source, task)
    for head in range(2):
        wanted = [part[..., head * 8 : head * 8 + 8] for part in source_layer(read).split(16, dim=-1)[:2]]
        goal = wanted[0] @ wanted[1].mT
        # the kept rows of the base, and what the fold made of them
        q, k = (part[..., :4] for part in wanted)
        mine = [slice(at + head * 4, at + head * 4 + 4) for at in (0, 8)]
        if coordinates == "rotated":  # its stream is that of plain norms: compare with the mixing itself
            plain: Any = cut(source, keep).model.get_submodule("blocks.0.attn.qkv")
            mixers = [torch.linalg.lstsq(plain.weight[rows].T, layer.weight[rows].T).solution for rows in mine]
            found = [q @ mixers[0], k @ mixers[1]]
        else:
            found = [read @ layer.weight[rows].T + layer.bias[rows] for rows in mine]
        apart = found[0] @ found[1].mT - goal
        slope = torch.einsum("bti,btu,buj->ij", q, apart, k)
        assert slope.abs().max() < 1e-6 * torch.einsum("bti,btu,buj->ij", q, goal, k).abs().max()
        assert apart.square().sum() < (q @ k.mT - goal).square().sum()


def rotated(base: Base) -> Base:
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(15, 15)))[0]
    return rotate(base, mean_free(16).numpy() @ turn)


def dependent(base: Base) -> Base:
    """Give a base whose second half of every head's values are linear functions of the first, and twin neurons."""
    model: Any = copy.deepcopy(base.model)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for block in model.blocks:
            for part in (block.attn.qkv.weight, block.attn.qkv.bias):
                values = part[32:].unflatten(0, (2, 8))
                mixer = torch.randn(2, 4, 4, generator=draw).double()
                half = values[:, :4].flatten(2) if values.ndim > 2 else values[:, :4, None]
                values[:, 4:] = (mixer @ half).view_as(values[:, 4:])
            block.attn.qkv.bias[36:40] += 0.7  # constants are no linear function: c takes them over
    return Base.of(model, base.preprocess)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("turned", [False, True])
def test_what_is_a_linear_function_of_what_is_kept_is_not_missed(family: str, turned: bool) -> None:
    base = dependent(random_base(family, twins=True))
    task, keep = task_of(base, images=24), half_of(base.shape, "neurons")
    blocks = tuple(
        replace(block, v=values.v) for block, values in zip(keep.blocks, half_of(base.shape, "v").blocks, strict=True)
    )
    keep = replace(keep, blocks=blocks)
    source = rotated(base) if turned else base
    wanted = base.model(PIXELS)
    edge = cut(source, keep)
    assert (edge.model(PIXELS) - wanted).abs().max() > 1e-2
    folded = Fold(ridge=1e-14, shrinkage="constant").recover(edge, task)
    torch.testing.assert_close(folded.model(PIXELS), wanted, atol=EXACT, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_cut_nothing_changed(family: str) -> None:
    base = random_base(family)
    edge = cut(base, Keep.everything(base.shape))
    folded = Fold().recover(edge, task_of(base))
    for name, value in edge.model.state_dict().items():
        assert torch.equal(value, folded.model.state_dict()[name])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("turned", [False, True])
def test_any_cut_in_all_dimensions_is_folded(family: str, seed: int, turned: bool) -> None:
    base = random_base(family)
    source = low_rank(rotated(base)).base if turned else base
    keep = random_keep(base.shape, seed)
    if turned:
        keep = replace(keep, embed=np.union1d(keep.embed, [15]))
    edge = cut(source, keep)
    folded = Fold().recover(edge, task_of(base))
    assert folded.shape == edge.shape
    assert torch.isfinite(folded.model(PIXELS)).all()
    changed = {
        name
        for name, value in edge.model.state_dict().items()
        if not torch.equal(value, folded.model.state_dict()[name])
    }
    assert changed
    assert not {name for name in changed if "head" in name or "norm" in name or "embed" in name or "token" in name}


def test_heads_of_different_widths_are_folded() -> None:
    task = task_of(random_base(dtype=torch.float32), images=16, budget=Budget(params=7000))
    edge = Tap().derive(task)
    assert any(block.widths for block in edge.shape.blocks)
    folded = Fold().recover(edge, task)
    changed = [
        name
        for name, value in edge.model.state_dict().items()
        if not torch.equal(value, folded.model.state_dict()[name])
    ]
    assert any("qkv" in name for name in changed)
    assert any("proj" in name for name in changed)


def test_trained_weights_are_left_alone() -> None:
    task = task_of(random_base(dtype=torch.float32), images=16, budget=Budget(params=6000))
    edge = UVC(epochs=1).derive(task)
    folded = Fold().recover(edge, task)
    for name, value in edge.model.state_dict().items():
        assert torch.equal(value, folded.model.state_dict()[name])


@pytest.mark.parametrize("size", [40, 400])
def test_shrinkage_is_that_of_scikit_learn(size: int) -> None:
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(size, 12, generator=draw).double() @ torch.diag(torch.linspace(0.5, 2, 12).double()) + 1
    sums = Sums(12, 0).add(values[None], values[None, :, :0], torch.ones(1, size))
    assert shrinkage(sums) == pytest.approx(oas(values.numpy())[1], rel=1e-9)


@pytest.mark.parametrize("wrong", [{"ridge": 0.0}, {"class_token": 0.0}, {"shrinkage": "lasso"}])
def test_wrong_options_are_refused_in_a_sentence(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Fold(**wrong)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def drawn() -> tuple[Base, Any]:
    return load_base(PACKAGED), Glyphs(train_per_class=2, test_per_class=1).load()


@pytest.mark.parametrize("what", ["neurons", "qk", "v", "embed"])
def test_a_trained_base_answers_more_like_itself(what: str, drawn: tuple[Base, Any]) -> None:
    base, images = drawn
    task = replace(task_of(random_base(dtype=torch.float32)), base=base, images=images.train, proxy=np.arange(128))
    edge = cut(base, half_of(base.shape, what))
    answers = answers_of(base, images)
    folded = Fold().recover(edge, task)
    before, after = (float((answers_of(model, images) == answers).mean()) for model in (edge, folded))
    assert after > before + 0.02, (before, after)


def answers_of(model: Base | EdgeModel, images: Any) -> Any:
    indices = np.arange(len(images.test))
    return predict(model.model, model.preprocess, images.test, indices).argmax(1)
