import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.data.glyphs import Glyphs
from fedprune.devices.budget import Budget
from fedprune.pruning.method import Method
from fedprune.pruning.uvc import UVC
from fedprune.pruning.wdpruning import WDPruning
from fedprune.recovery import least_squares
from fedprune.recovery.least_squares import LAYERS, LeastSquares
from fedprune.testing.tasks import half_of, random_base, task_of
from fedprune.vit.base import Base
from fedprune.vit.base_file import load_base
from fedprune.vit.base_glyphs import PACKAGED
from fedprune.vit.lowrank import low_rank, low_rank_within
from fedprune.vit.precision import autocast
from fedprune.vit.refit import PULLS, Sums, ridge_for, solve, solve_by_leave_one_out
from fedprune.vit.shape import Keep
from fedprune.vit.stream import kept_stream, mean_free, rotate
from fedprune.vit.surgery import cut

EXACT = 1e-10


def sums_of(inputs: list[torch.Tensor], wanted: list[torch.Tensor], counts: list[torch.Tensor]) -> Sums:
    sums = Sums(inputs[0].shape[-1], wanted[0].shape[-1])
    for batch in zip(inputs, wanted, counts, strict=True):
        sums.add(*batch)
    return sums


@given(st.integers(0, 10_000), st.floats(1e-4, 10))
@settings(max_examples=20, deadline=None)
def test_solve_is_the_minimum_of_the_stated_loss(seed: int, ridge: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight, bias = (torch.randn(size, generator=draw, dtype=torch.float64) for size in ((3, 5), (3,)))
    inputs = [torch.randn(2, 4, 5, generator=draw, dtype=torch.float64) + 2 for _ in range(2)]
    wanted = [torch.randn(2, 4, 3, generator=draw, dtype=torch.float64) for _ in range(2)]
    counts = [torch.randint(1, 4, (2, 4), generator=draw) for _ in range(2)]
    new, shift = solve(weight, bias, sums_of(inputs, wanted, counts), ridge)

    # The same problem as one ordinary least squares: repeated rows, penalty rows, centred columns.
    repeats = torch.cat(counts).flatten()
    z = torch.cat(inputs).flatten(0, 1).repeat_interleave(repeats, 0).numpy()
    t = torch.cat(wanted).flatten(0, 1).repeat_interleave(repeats, 0).numpy()
    centred, goal = z - z.mean(0), t - t.mean(0)
    penalty = np.sqrt(ridge * np.trace(centred.T @ centred) / 5) * np.eye(5)
    rows = np.concatenate([centred, penalty]), np.concatenate([goal, penalty @ weight.numpy().T])
    expected = np.linalg.lstsq(*rows, rcond=None)[0].T
    np.testing.assert_allclose(new.numpy(), expected, atol=EXACT)
    np.testing.assert_allclose(shift.numpy(), t.mean(0) - expected @ z.mean(0), atol=EXACT)


def test_sums_in_single_precision_of_small_integers_are_exact() -> None:
    """Wider than a strip of the scatter, so that what is mirrored is looked at too."""
    draw = torch.Generator().manual_seed(0)
    inputs, wanted = ([torch.randint(-4, 5, (2, 5, width), generator=draw) for _ in range(3)] for width in (300, 7))
    counts = [torch.randint(1, 9, (2, 5), generator=draw) for _ in range(3)]
    sums = sums_of([values.float() for values in inputs], [values.float() for values in wanted], counts)
    z, t, count = (torch.cat(parts).flatten(0, 1).double() for parts in (inputs, wanted, counts))
    mean, mean_wanted = count @ z / count.sum(), count @ t / count.sum()
    torch.testing.assert_close(sums.scatter, (z - mean).T @ ((z - mean) * count[:, None]), rtol=0, atol=EXACT)
    torch.testing.assert_close(sums.cross, (z - mean).T @ ((t - mean_wanted) * count[:, None]), rtol=0, atol=EXACT)
    assert torch.equal(sums.mean, mean)
    assert torch.equal(sums.mean_wanted, mean_wanted)


@pytest.mark.parametrize("cut_away", ["neurons", "v", "embed"])
def test_single_precision_refits_a_trained_base_as_double_precision_does(cut_away: str) -> None:
    images = Glyphs(train_per_class=1, test_per_class=1).load().train
    base = load_base(PACKAGED)
    exact = replace(base, model=copy.deepcopy(base.model).double())
    keep = half_of(base.shape, cut_away)
    task = replace(task_of(random_base(dtype=torch.float32)), base=base, images=images, proxy=np.arange(64))
    found, wanted = (
        LeastSquares().recover(cut(each, keep), replace(task, base=each)).model.state_dict() for each in (base, exact)
    )
    for name, value in wanted.items():
        assert (found[name] - value).norm() <= 2e-3 * value.norm(), name


def test_targets_behind_a_linear_layer_are_as_good_as_its_outputs() -> None:
    draw = torch.Generator().manual_seed(0)
    weight, bias, outer, shift = (torch.randn(size, generator=draw).double() for size in ((6, 5), (6,), (6, 3), (6,)))
    inputs, behind = ([torch.randn(2, 4, width, generator=draw).double() for _ in range(2)] for width in (5, 3))
    counts = [torch.randint(1, 4, (2, 4), generator=draw) for _ in range(2)]
    outputs = [values @ outer.T + shift for values in behind]
    expected = solve(weight, bias, sums_of(inputs, outputs, counts), 0.1)
    found = solve(weight, bias, sums_of(inputs, behind, counts), 0.1, (outer, shift))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=EXACT)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_leave_one_out_is_what_refits_without_each_image_answer(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(4, 3, generator=draw).double(), torch.randn(4, generator=draw).double()
    inputs, wanted = torch.randn(12, 3, generator=draw).double() + 1, 3 * torch.randn(12, 4, generator=draw).double()
    counts = torch.randint(1, 4, (12,), generator=draw).double()

    def refit(pull: float, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = counts @ inputs / counts.sum()
        penalty = pull * ((inputs - mean).square().sum(1) @ counts) / 3  # that of all images, whoever is left out
        z, t, w = inputs[which], wanted[which], counts[which]
        design = torch.cat((z, torch.ones(len(z), 1).double()), 1)
        square = design.T @ (design * w[:, None]) + torch.diag(torch.tensor([penalty, penalty, penalty, 0.0]).double())
        change = torch.linalg.solve(square, design.T @ ((t - z @ weight.T - bias) * w[:, None]))
        return weight + change[:3].T, bias + change[3]

    def divergence(pull: float) -> float:
        total = 0.0
        for image in range(12):
            new, shift = (weight, bias) if pull == np.inf else refit(pull, torch.arange(12) != image)
            answers, logits = wanted[image].log_softmax(0), new @ inputs[image] + shift
            total += float(counts[image] * (answers.exp() * (answers - logits.log_softmax(0))).sum())
        return total

    new, shift, pull = solve_by_leave_one_out(weight, bias, inputs, wanted, counts)
    found = [divergence(each) for each in (np.inf, *PULLS)]
    assert pull == (np.inf, *PULLS)[int(np.argmin(found))]
    expected = (weight, bias) if pull == np.inf else refit(pull, torch.arange(12))
    for one, other in zip((new, shift), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_the_head_is_refitted_where_images_suffice_and_left_alone_where_they_do_not() -> None:
    draw = torch.Generator().manual_seed(0)
    weight, bias, truth = (torch.randn(size, generator=draw).double() for size in ((4, 20), (4,), (4, 20)))
    many, few = (torch.randn(count, 20, generator=draw).double() for count in (400, 12))

    def noisy(inputs: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
        return inputs @ of.T + bias + 2 * torch.randn(len(inputs), 4, generator=draw).double()

    moved, _, pull = solve_by_leave_one_out(weight, bias, many, noisy(many, truth), torch.ones(400))
    assert pull <= 0.1
    assert (moved - truth).norm() < 0.3 * (weight - truth).norm()
    _, _, pull = solve_by_leave_one_out(weight, bias, few, noisy(few, weight), torch.ones(12))
    assert pull >= 1
    only = solve_by_leave_one_out(weight, bias, few[:1], noisy(few[:1], truth), torch.ones(1))
    assert torch.equal(only[0], weight)


def test_one_constant_input_leaves_the_weights_and_moves_the_bias() -> None:
    weight, bias = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    inputs, wanted = [torch.ones(1, 3, 2, dtype=torch.float64)], [torch.full((1, 3, 2), 5.0, dtype=torch.float64)]
    new, shift = solve(weight, bias, sums_of(inputs, wanted, [torch.ones(1, 3)]), 1e-2)
    assert torch.equal(new, weight)
    assert torch.equal(shift, torch.full((2,), 4.0, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_image_many_times_is_one_constant_input(dtype: torch.dtype) -> None:
    """Rounding leaves a scatter of one input that is not quite zero, and not positive either."""
    for seed in range(50):
        draw = torch.Generator().manual_seed(seed)
        weight, bias = torch.randn(6, 16, generator=draw).double(), torch.randn(6, generator=draw).double()
        inputs, wanted = (torch.randn(1, 1, size, generator=draw).to(dtype) for size in (16, 6))
        many = [[values.expand(1, 16, -1)] for values in (inputs, wanted)]
        new, shift = solve(weight, bias, sums_of(*many, [torch.ones(1, 16)]), 0.1)
        assert torch.equal(new, weight)
        torch.testing.assert_close(new @ inputs[0, 0].double() + shift, wanted[0, 0].double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "layer_scale", "distilled", "average"])
@pytest.mark.parametrize("order", ["sequential", "parallel"])
def test_nothing_cut_nothing_changed(kind: str, order: str) -> None:
    base = random_base(kind)
    task = task_of(base)
    whole = cut(base, Keep.everything(base.shape))
    recovered = LeastSquares(order=order).recover(whole, task)
    pixels = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(recovered.model(pixels), base.model(pixels), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["plain", "layer_scale", "distilled", "average"])
def test_nothing_cut_nothing_changed_where_the_stream_is_rotated(kind: str) -> None:
    base = random_base(kind)
    source = low_rank(rotated(base)).base
    recovered = LeastSquares().recover(cut(source, Keep.everything(source.shape)), task_of(base))
    pixels = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(recovered.model(pixels), base.model(pixels), rtol=0, atol=1e-9)


def test_a_rotated_stream_comes_closer_to_the_base() -> None:
    base = random_base("plain")
    task, source = task_of(base, images=32), rotated(base)
    edge = cut(source, replace(Keep.everything(source.shape), embed=np.array([0, 2, 4, 6, 8, 10, 15])))
    recovered = LeastSquares().recover(edge, task)
    names = {f"{layer}.weight" for layer in ("attn.qkv", "mlp.fc1", "attn.proj", "mlp.fc2")}
    values = recovered.model.state_dict()
    changed = {name for name, value in edge.model.state_dict().items() if not torch.equal(value, values[name])}
    assert {f"blocks.{index}.{name}" for index in range(3) for name in names} | {"head.weight"} <= changed
    pixels = base.preprocess(task.images.read(np.unique(task.proxy))).double()
    wanted, before, after = (_last_stream(model, pixels) for model in (source.model, edge.model, recovered.model))
    wanted = kept_stream(source, wanted, edge.keep.embed)
    assert (after - wanted).square().mean() < 0.8 * (before - wanted).square().mean()


def rotated(base: Base) -> Base:
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(15, 15)))[0]
    return rotate(base, mean_free(16).numpy() @ turn)


@pytest.mark.parametrize("kind", ["plain", "layer_scale", "distilled", "average"])
def test_redundant_neurons_can_all_go(kind: str) -> None:
    """Neurons that repeat others add nothing that the refit cannot give to those that stay: exact in the limit."""
    base = random_base(kind, twins=True)
    keep = half_of(base.shape, "neurons")
    task = task_of(base, images=24)
    pixels = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    wanted = base.model(pixels)
    lost = (cut(base, keep).model(pixels) - wanted).abs().max()
    found = LeastSquares(ridge=1e-10).recover(cut(base, keep), task).model(pixels)
    assert lost > 1e-2
    assert (found - wanted).abs().max() < 1e-5 * lost


@pytest.mark.parametrize("order", ["sequential", "parallel"])
@pytest.mark.parametrize("cut_away", ["neurons", "v", "qk", "heads", "embed", "blocks"])
def test_the_stream_comes_closer_to_the_base(cut_away: str, order: str) -> None:
    base = random_base("plain")
    task = task_of(base, images=32)
    edge = cut(base, half_of(base.shape, cut_away))
    recovered = LeastSquares(order=order).recover(edge, task)
    pixels = base.preprocess(task.images.read(np.unique(task.proxy))).double()
    wanted = base.model.forward_features(pixels)[..., torch.from_numpy(edge.keep.embed)]
    if cut_away == "embed":  # the last norm runs over other dimensions: compare before it
        wanted, before, after = (_last_stream(model, pixels) for model in (base.model, edge.model, recovered.model))
        wanted = wanted[..., torch.from_numpy(edge.keep.embed)]
    else:
        before, after = edge.model.forward_features(pixels), recovered.model.forward_features(pixels)
    assert (after - wanted).square().mean() < 0.8 * (before - wanted).square().mean()


def _last_stream(model: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    seen = []
    handle = model.get_submodule("blocks").register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(pixels)
    handle.remove()
    return seen[0]


def test_the_edge_model_and_the_base_stay_as_they_are_and_repeats_give_equal_bits() -> None:
    base = random_base("plain")
    task = task_of(base)
    edge = cut(base, half_of(base.shape, "neurons"))
    before, base_before = copy.deepcopy(edge.model.state_dict()), copy.deepcopy(base.model.state_dict())
    first, second = (LeastSquares().recover(edge, task) for _ in range(2))
    for name, value in edge.model.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(first.model.state_dict()[name], second.model.state_dict()[name])
    for name, value in base.model.state_dict().items():
        assert torch.equal(value, base_before[name])
    assert first.shape == edge.shape
    assert first.notes["recovery_images"] == len(np.unique(task.proxy))


def test_shrinkage_is_a_ridge_of_each_layers_own() -> None:
    """The first layer refitted is that of the ridge that its own inputs ask for; `ridge` is the least."""
    base = random_base("plain")
    task = task_of(base, images=2)
    edge = cut(base, half_of(base.shape, "neurons"))
    seen: list[float] = []

    def watched(sums: Sums, least: float, how: str) -> float:
        seen.append(ridge_for(sums, least, how))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(least_squares, "ridge_for", watched)
        found = LeastSquares(layers=("fc2",), shrinkage="oas", ridge=1e-3).recover(edge, task).model.state_dict()
    assert len(set(seen)) == 3
    assert min(seen) > 1e-3
    wanted = LeastSquares(layers=("fc2",), ridge=seen[0]).recover(edge, task).model.state_dict()
    assert torch.equal(found["blocks.0.mlp.fc2.weight"], wanted["blocks.0.mlp.fc2.weight"])
    strong = LeastSquares(shrinkage="oas", ridge=1.0).recover(edge, task).model.state_dict()
    plain = LeastSquares(ridge=1.0).recover(edge, task).model.state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in strong.items())


def test_leave_one_out_changes_nothing_but_the_head() -> None:
    base = random_base("plain")
    task = task_of(base, images=64)
    edge = cut(base, half_of(base.shape, "embed"))
    fixed, chosen = (
        LeastSquares(head=head).recover(edge, task).model.state_dict() for head in ("ridge", "leave_one_out")
    )
    assert {name for name in fixed if not torch.equal(fixed[name], chosen[name])} <= {"head.weight", "head.bias"}


def test_only_the_named_layers_change() -> None:
    base = random_base("plain")
    task = task_of(base)
    edge = cut(base, half_of(base.shape, "neurons"))
    recovered = LeastSquares(layers=("fc2",)).recover(edge, task).model.state_dict()
    changed = {name for name, value in edge.model.state_dict().items() if not torch.equal(value, recovered[name])}
    assert changed == {f"blocks.{index}.mlp.fc2.{part}" for index in range(3) for part in ("weight", "bias")}


def test_readers_and_head_are_refitted_and_trained_weights_are_left_alone() -> None:
    base = random_base("plain")
    task = task_of(base, images=32)
    keep = half_of(base.shape, "embed")
    names = {f"{layer}.weight" for layer in ("attn.qkv", "mlp.fc1", "attn.proj", "mlp.fc2")}
    trained = cut(base, keep)
    for block in trained.model.blocks:
        block.attn.qkv.weight.data += 0.01
    for edge, left_alone in (
        (cut(base, keep), set()),
        (cut(low_rank(base).base, keep), set()),
        (cut(low_rank_within(base, keep.embed).base, keep), set()),
        (trained, {"attn.qkv.weight"}),
    ):
        recovered = LeastSquares().recover(edge, task).model.state_dict()
        changed = {name for name, value in edge.model.state_dict().items() if not torch.equal(value, recovered[name])}
        expected = {f"blocks.{index}.{name}" for index in range(3) for name in names - left_alone}
        assert {name for name in changed if name.endswith("weight")} == expected | {"head.weight"}


@pytest.mark.parametrize("method", [UVC(epochs=1), WDPruning(epochs=1)])
def test_readers_that_a_method_trained_are_left_alone(method: Method) -> None:
    """What they should say on the pretrained stream is not known: only the writers are refitted."""
    task = task_of(random_base(dtype=torch.float32), images=16, budget=Budget(params=6000))
    edge = method.derive(task)
    readers = LeastSquares(layers=("qkv", "fc1")).recover(edge, task).model.state_dict()
    assert all(torch.equal(value, readers[name]) for name, value in edge.model.state_dict().items())
    whole = LeastSquares().recover(edge, task).model.state_dict()
    changed = {name for name, value in edge.model.state_dict().items() if not torch.equal(value, whole[name])}
    assert changed
    assert not any("qkv" in name or "fc1" in name for name in changed)


def test_refitting_the_classifier_brings_the_logits_closer() -> None:
    base = random_base("plain")
    task = task_of(base, images=64)
    edge = cut(base, half_of(base.shape, "embed"))
    pixels = base.preprocess(task.images.read(task.proxy)).double()
    wanted = base.model(pixels)
    errors = [
        (LeastSquares(layers=layers).recover(edge, task).model(pixels) - wanted).square().mean()
        for layers in (LAYERS, ("qkv", "proj", "fc1", "fc2"))
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"ridge": 0.0},
        {"class_token": 0.0},
        {"layers": ("mlp",)},
        {"head": "hat"},
        {"shrinkage": "wool"},
        {"order": "both"},
        {"target": "logits"},
    ],
)
def test_wrong_options_are_refused_in_a_sentence(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LeastSquares(**wrong)  # type: ignore[arg-type]


def test_bf16_walks_with_the_refitted_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    # Autocast's cache of cast weights once went on using the weights from before each refit.
    base = random_base(dtype=torch.float32)
    edge, task = cut(base, half_of(base.shape, "neurons")), task_of(base)
    refitted = {}
    for precision in ("fp32", "bf16"):
        monkeypatch.setattr(least_squares, "quick", lambda model, _, name=precision: autocast(name, 16))
        refitted[precision] = LeastSquares().recover(edge, task).model.state_dict()
    for name, wanted in refitted["fp32"].items():
        assert (refitted["bf16"][name] - wanted).norm() <= 0.1 * wanted.norm() + 0.05, name
