import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedprune.devices.budget import Budget
from fedprune.devices.budgets import budget_without
from fedprune.evidence.weights import sum_by_unit
from fedprune.pruning.layer_classifiers import depth_for
from fedprune.pruning.masks import Masks
from fedprune.pruning.nuwa_v1 import NuwaV1, share_before
from fedprune.pruning.nuwa_v2 import NuwaV2, energy_width
from fedprune.pruning.weight_groups import gradient_copy
from fedprune.testing.tasks import FAMILIES, random_base, task_of
from fedprune.vit.counts import count_params
from fedprune.vit.lowrank import low_rank
from fedprune.vit.shape import Keep
from fedprune.vit.surgery import cut
from fedprune.vit.units import row_length, unit_indices


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=12), st.floats(0.01, 1.0))
def test_what_stays_at_a_threshold_is_the_smallest_set_that_holds_it(scores: list[float], threshold: float) -> None:
    values = np.array(scores)
    kept = share_before(values) < threshold - 1e-12
    total, best = values.sum(), np.sort(values)[::-1]
    smallest = next(n for n in range(1, len(values) + 1) if best[:n].sum() >= (threshold - 1e-12) * total - 1e-12)
    assert kept.sum() in (smallest, smallest - 1, smallest + 1)  # rounding at the very threshold
    assert values[kept].sum() >= (threshold - 1e-9) * total - 1e-9
    assert values[kept].min() >= values[~kept].max(initial=0)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("attention", ["low_rank", "as_is"])
def test_full_rank_is_exact(kind: str, attention: str) -> None:
    base = random_base(kind)
    same = low_rank(base).base if attention == "low_rank" else base
    pixels = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(same.model(pixels), base.model(pixels), rtol=0, atol=1e-12)


def test_blocks_that_do_nothing_are_dropped_from_the_end() -> None:
    base = random_base("plain")
    with torch.no_grad():
        for block in base.model.blocks[1:]:
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.zero_()
                layer.bias.zero_()
    task = task_of(base, images=48)
    # all layers' classifiers are the same then, so every depth is as good as the last: one block stays
    assert depth_for(task, 48, 0.95) == 1
    edge = NuwaV1(stop_at_budget=False).derive(replace(task, budget=Budget(params=10**9)))
    assert [keep.block for keep in edge.keep.blocks] == [0]
    assert edge.notes["depth"] == 1


def test_no_threshold_drops_no_block() -> None:
    assert depth_for(task_of(random_base("plain"), images=48), 48, 1e9) == 3


def test_leaving_a_dimension_out_leaves_it_whole() -> None:
    base = random_base("plain")
    task = task_of(base, images=12, budget=budget_without(base.shape, 0.3, "params"))
    everything = ("depth", "heads", "qk", "v", "neurons", "embed")
    for name in ("qk", "v", "neurons", "embed"):
        edge = NuwaV1(dimensions=tuple(other for other in everything if other != name), depth_share=1e9).derive(task)
        widths = [edge.shape.embed] if name == "embed" else [getattr(block, name) for block in edge.shape.blocks]
        assert set(widths) == {16 if name == "embed" else 32 if name == "neurons" else 8}


@pytest.mark.parametrize("settings", [{"attention": "as_is"}, {"rates": "fixed"}, {"gradients": "proxy"}])
def test_every_reading_meets_the_budget(settings: dict[str, str]) -> None:
    base = random_base("plain")
    task = task_of(base, images=12, budget=budget_without(base.shape, 0.5, "params"))
    edge = NuwaV1(**settings).derive(task)
    assert 0.9 * task.budget.params < count_params(edge.shape) <= task.budget.params
    if "rates" in settings:
        assert len({block.qk for block in edge.shape.blocks}) == 1


def test_energy_widths() -> None:
    spectrum = np.array([[2.0, 1.0, 1.0, 0.0], [2.0, 1.0, 1.0, 0.0]])
    assert [energy_width(spectrum, energy, 1) for energy in (0.5, 4 / 6, 5 / 6, 1.0)] == [1, 1, 2, 3]
    assert energy_width(np.ones((1, 20)), 0.9, 8) == 16
    assert energy_width(np.ones((1, 20)), 0.1, 8) == 8


def test_masks_and_refit_change_only_what_they_should() -> None:
    base = random_base("plain")
    task = task_of(base, images=12, budget=budget_without(base.shape, 0.2, "params"))
    plain, refitted = (NuwaV2(epochs=0, refit=refit).derive(task).model.state_dict() for refit in (False, True))
    changed = {name for name in plain if not torch.equal(plain[name], refitted[name])}
    assert changed == {f"blocks.{index}.mlp.fc2.{part}" for index in range(3) for part in ("weight", "bias")}


@pytest.mark.parametrize("wrong", [{"attention": "pca"}, {"gradients": "batch"}, {"dimensions": ("width",)}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NuwaV1(**wrong)  # type: ignore[arg-type]


def test_what_later_neurons_read_comes_from_the_masked_base() -> None:
    """By hand: with block 0's neurons all masked, block 1 reads a stream that block 0's MLP never wrote to."""
    base = random_base("plain")
    task = task_of(base, images=6)
    ones = [torch.ones(32, dtype=torch.float64)] * 3
    whole, cut_off = (NuwaV2()._neuron_inputs(task, masks) for masks in (ones, [torch.zeros(32), *ones[1:]]))
    silent = copy.deepcopy(base.model)
    with torch.no_grad():
        silent.blocks[0].mlp.fc2.weight.zero_()
        pixels = base.preprocess(task.images.read(task.proxy)).double()
        seen: list[torch.Tensor] = []
        silent.blocks[1].mlp.fc2.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        silent(pixels)
    torch.testing.assert_close(cut_off[1], seen[0], rtol=0, atol=1e-12)
    assert torch.equal(cut_off[0], whole[0])
    assert not torch.allclose(cut_off[1], whole[1])


def test_eighty_steps_move_masks_as_far_as_their_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the paper's rate of 1e-3 they would move by .08 of the 1.0 that all start at."""
    made: list[Masks] = []
    fresh = Masks.fresh
    monkeypatch.setattr(Masks, "fresh", lambda *settings, **more: made.append(fresh(*settings, **more)) or made[-1])
    NuwaV2(epochs=20)._learn(task_of(random_base("plain", dtype=torch.float32), images=32))
    assert max(float((scores.detach() - 1).abs().max()) for scores in made[0].scores.values()) > 1


def test_the_embedding_is_scored_weight_by_weight_offline() -> None:
    """Equation 4 by autograd: E_x |w dL/dw| of whatever reads and writes a dimension, over the pool, all classes."""
    base = random_base("plain")
    task = task_of(base, images=6)
    model = gradient_copy(task)
    total = np.zeros(16)
    for image in task.pool:
        model.zero_grad()
        pixels = base.preprocess(task.images.read(np.array([image]))).double()
        label = torch.tensor([task.images.labels[image]])
        torch.nn.functional.cross_entropy(model(pixels), label).backward()
        sizes = {name: (value * value.grad).abs().detach() for name, value in model.named_parameters()}
        total += sum_by_unit(sizes, base.shape)[:16].numpy() / len(task.pool)
    row = np.zeros(row_length(base.shape))
    rounds = NuwaV1()._last_rounds(task, row + 1, Keep.everything(base.shape))[:16]
    np.testing.assert_allclose(rounds, (1 - share_before(total)) / 0.025, rtol=1e-3)


def test_heads_are_scored_on_the_blocks_that_are_left_and_neurons_on_the_heads_that_are_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With depth 2 and half of the heads' importance kept, by hand: two cuts, scored one after the other."""
    base = random_base("plain")
    task = task_of(base, images=12, classes=(3, 5), budget=budget_without(base.shape, 0.5, "params"))
    monkeypatch.setattr("fedprune.pruning.nuwa_v1.depth_for", lambda task, sample, share: 2)
    monkeypatch.setattr("fedprune.pruning.nuwa_v1.use_classifier", lambda task, edge, sample, depth: None)
    seen: list[tuple[int, int]] = []
    rows: list[np.ndarray] = []
    taylor = NuwaV1._taylor

    def watched(self: NuwaV1, task: object, left: Keep) -> np.ndarray:
        seen.append((len(left.blocks), sum(len(block.heads) for block in left.blocks)))
        rows.append(taylor(self, task, left))
        return rows[-1]

    monkeypatch.setattr(NuwaV1, "_taylor", watched)
    edge = NuwaV1(head_share=0.5, stop_at_budget=False).derive(task)
    heads = rows[0][np.concatenate([block.heads for block in unit_indices(base.shape).blocks])]
    assert seen[0] == (2, 4)
    assert not heads[4:].any(), "the third block is gone when heads are scored"
    stay = share_before(heads) < 0.5
    assert seen[1] == (2, stay.sum())
    assert [block.heads.tolist() for block in edge.keep.blocks if len(block.heads)] == [
        np.flatnonzero(stay[start : start + 2]).tolist() for start in (0, 2) if stay[start : start + 2].any()
    ]
    # and the row itself, by autograd on the cut model
    left = replace(Keep.everything(base.shape), blocks=Keep.everything(base.shape).blocks[:2])
    model = cut(base, left).model.requires_grad_(True)
    total = np.zeros(2 * 32)
    for image in task.proxy:
        model.zero_grad()
        label = int(task.images.labels[image])
        logits = model(base.preprocess(task.images.read(np.array([image]))).double())[:, [3, 5]]
        if label in (3, 5):
            torch.nn.functional.cross_entropy(logits, torch.tensor([int(label == 5)])).backward()
            for index, block in enumerate(model.blocks):
                fc1, fc2 = block.mlp.fc1, block.mlp.fc2
                size = (fc1.weight * fc1.weight.grad).abs().sum(1) + (fc1.bias * fc1.bias.grad).abs()
                size += (fc2.weight * fc2.weight.grad).abs().sum(0)
                total[32 * index : 32 * index + 32] += size.detach().numpy() / len(task.proxy)
    found = np.concatenate([rows[0][block.neurons] for block in unit_indices(base.shape).blocks[:2]])
    np.testing.assert_allclose(found, total, rtol=1e-4, atol=1e-9)


def test_one_shot_pruning_stops_at_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that would take two of three blocks, for a budget that the first of them meets."""
    base = random_base("plain")
    monkeypatch.setattr("fedprune.pruning.nuwa_v1.depth_for", lambda task, sample, share: 1)
    task = task_of(base, images=48, budget=budget_without(base.shape, 0.15, "params"))
    assert [len(NuwaV1(stop_at_budget=stop).derive(task).keep.blocks) for stop in (True, False)] == [2, 1]
