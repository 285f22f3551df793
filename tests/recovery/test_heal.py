import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedprune.recovery.heal import Heal, random_crops
from fedprune.recovery.least_squares import LeastSquares
from fedprune.testing.tasks import FAMILIES, half_of, random_base, task_of
from fedprune.vit.shape import Keep
from fedprune.vit.stream import kept_stream, mean_free, rotate
from fedprune.vit.surgery import cut


def loss(edge, base, source, pixels) -> float:
    """Divergence of the answers plus five times the mean over blocks of 1 - cosine, written out by hand."""
    streams = []
    for vit in (edge.model, source.model):
        streams.append([])
        tokens = vit._pos_embed(vit.patch_embed(pixels))
        for block in vit.blocks:
            tokens = block(tokens)
            streams[-1].append(tokens)
    apart = []
    for mine, whole in zip(*streams, strict=True):
        whole = kept_stream(source, whole, edge.keep.embed)
        apart.append(1 - (mine * whole).sum(-1) / (mine.norm(dim=-1) * whole.norm(dim=-1)))
    wanted, found = (model(pixels).log_softmax(1) for model in (base.model, edge.model))
    divergence = (wanted.exp() * (wanted - found)).sum(1).mean()
    return float(divergence + 5 * torch.stack(apart).mean())


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("kind", FAMILIES)
def test_healing_comes_closer_to_the_base_than_the_refit_and_changes_nothing_else(kind: str, rotated: bool) -> None:
    base = random_base(kind, dtype=torch.float32)
    task = task_of(base, images=32)
    source = rotate(base, mean_free(16).numpy()) if rotated else base
    edge = cut(source, half_of(source.shape, "neurons"))
    before, base_before = (copy.deepcopy(model.state_dict()) for model in (edge.model, base.model))
    first, second = (Heal(steps=60, learning_rate=7.5e-4).recover(edge, task) for _ in range(2))
    for name, value in edge.model.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(first.model.state_dict()[name], second.model.state_dict()[name])
    for name, value in base.model.state_dict().items():
        assert torch.equal(value, base_before[name])
    pixels = base.preprocess(task.images.read(task.pool))
    with torch.no_grad():
        before_healing = loss(LeastSquares().recover(edge, task), base, source, pixels)
        assert loss(first, base, source, pixels) < 0.9 * before_healing
    assert not first.model.training
    assert not any(parameter.requires_grad for parameter in first.model.parameters())
    assert first.notes["recovery_images"] == 60 * 32
    assert "recovery_stopped_at_step" not in first.notes
    assert first.shape == edge.shape


@pytest.mark.parametrize("width", [16, 64])
def test_the_learning_rate_is_that_of_a_base_64_wide_and_falls_with_width(width: int) -> None:
    """Adam's first step moves every weight by its learning rate, but for the decay."""
    base = random_base(embed_dim=width, dtype=torch.float64)
    task = task_of(base, images=8)
    edge = cut(base, half_of(base.shape, "neurons"))
    before, after = (each.recover(edge, task) for each in (LeastSquares(), Heal(steps=1, learning_rate=1e-5)))
    moved = (after.model.blocks[0].mlp.fc1.weight - before.model.blocks[0].mlp.fc1.weight).abs().median()
    assert moved.item() == pytest.approx(1e-5 * 64 / width, rel=0.05)


def test_nothing_cut_has_nothing_to_learn() -> None:
    base = random_base("plain")
    source = rotate(base, mean_free(16).numpy())
    healed = Heal(steps=5, learning_rate=2.5e-4).recover(cut(source, Keep.everything(source.shape)), task_of(base))
    pixels = torch.randn(3, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(healed.model(pixels), base.model(pixels), rtol=0, atol=0.2)


@pytest.mark.parametrize("gone", ["blocks", "heads", "embed"])
def test_no_labels_are_read_and_missing_blocks_are_taken_over(gone: str) -> None:
    base = random_base("plain", dtype=torch.float32)
    task = task_of(base, images=12)
    edge = cut(base, half_of(base.shape, gone))
    models = []
    for shift in (0, 1):
        task.images.labels[:] = (np.arange(12) + shift) % 6
        models.append(Heal(steps=3).recover(edge, task).model.state_dict())
    for name, value in models[0].items():
        assert torch.equal(value, models[1][name])
    assert any(not torch.equal(value, models[0][name]) for name, value in edge.model.state_dict().items())


def test_no_step_is_the_closed_form_refit_and_a_limit_says_where_it_stopped() -> None:
    base = random_base("plain", dtype=torch.float32)
    task, edge = task_of(base), cut(base, half_of(base.shape, "neurons"))
    refitted = LeastSquares().recover(edge, task).model.state_dict()
    for recovery in (Heal(steps=0), Heal(steps=10, seconds=1e-9)):
        healed = recovery.recover(edge, task)
        for name, value in healed.model.state_dict().items():
            assert torch.equal(value, refitted[name])
    assert healed.notes["recovery_stopped_at_step"] == 0


def test_without_steps_as_many_are_made_as_fit_in_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that is read once before a step and once a look, so that each takes a second."""
    base = random_base("plain", dtype=torch.float32)
    task, edge = task_of(base), cut(base, half_of(base.shape, "neurons"))
    now = iter(range(10_000))
    monkeypatch.setattr("fedprune.recovery.heal.time", SimpleNamespace(perf_counter=lambda: float(next(now))))
    healed = Heal(steps=None, seconds=40.0).recover(edge, task)
    assert 35 <= healed.notes["recovery_stopped_at_step"] <= 40
    looked = Heal(steps=None, seconds=40.0, looks=10).recover(edge, replace(task, validation=task.images))
    assert 20 <= looked.notes["recovery_stopped_at_step"] <= 30, "looks take their time too"


def test_the_weights_stay_that_answer_validation_images_most_like_the_base() -> None:
    base = random_base("plain", dtype=torch.float32)
    task = task_of(base, images=24)
    task = replace(task, validation=task.images.take(np.arange(12)))
    edge = cut(base, half_of(base.shape, "neurons"))
    kept = [Heal(steps=count, learning_rate=0.075, states=0.0, looks=count).recover(edge, task) for count in (1, 8)]
    pixels = base.preprocess(task.validation.read(np.arange(12)))
    for healed in kept:
        with torch.no_grad():
            wanted, found = (model(pixels).log_softmax(1) for model in (base.model, healed.model))
        divergence = float((wanted.exp() * (wanted - found)).sum(1).mean())
        assert divergence == pytest.approx(healed.notes["recovery_divergence"], rel=1e-4)
    refitted = LeastSquares().recover(edge, task)
    assert kept[0].notes["recovery_step"] == 0, "so large a step only harms"
    for name, value in refitted.model.state_dict().items():
        assert torch.equal(kept[0].model.state_dict()[name], value)
    assert kept[1].notes["recovery_divergence"] <= kept[0].notes["recovery_divergence"]
    assert Heal(looks=1).validates
    assert not Heal().validates


def test_crops_are_parts_of_the_image_at_its_size() -> None:
    ramp = torch.linspace(0, 1, 64)
    pixels = torch.stack((ramp.expand(64, 64), ramp[:, None].expand(64, 64)))[None].repeat(200, 1, 1, 1)
    crops = random_crops(pixels, np.random.default_rng(0), 0.35)
    assert crops.shape == pixels.shape
    assert 0 <= crops.min() < crops.max() <= 1
    width, height = (channel.flatten(1).max(1).values - channel.flatten(1).min(1).values for channel in crops.unbind(1))
    areas, ratios = width * height, width / height
    assert 0.3 < areas.min() < 0.45
    assert areas.max() > 0.85
    assert 0.7 < ratios.min() < ratios.max() < 1.4
    whole = random_crops(pixels[:3], np.random.default_rng(0), 1 - 1e-9)
    assert (whole - pixels[:3]).abs().max() < 0.3  # sides may differ though the area is whole


@pytest.mark.parametrize(
    "wrong", [{"steps": -1}, {"looks": -1}, {"steps": None}, {"batch_size": 0}, {"seconds": -1.0}, {"crop": 0.0}]
)
def test_wrong_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Heal(**wrong)  # type: ignore[arg-type]
