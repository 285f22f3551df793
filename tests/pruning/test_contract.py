"""What every registered method must do, whatever it is: a new method is under test as soon as it has a name."""

import copy
import importlib
import pkgutil
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

import fedprune.pruning
from fedprune.core.errors import BudgetError, MissingExtra
from fedprune.core.registry import registered
from fedprune.devices.budget import Budget
from fedprune.devices.budgets import budget_without
from fedprune.pruning.method import Method
from fedprune.pruning.ranking import Ranking
from fedprune.vit.counts import count_macs, count_params
from fedprune.vit.inspect import read_shape
from tests.recovery.tiny import KINDS, random_base, task_of

for _module in pkgutil.iter_modules(fedprune.pruning.__path__):
    importlib.import_module(f"fedprune.pruning.{_module.name}")
METHODS = sorted(registered("method"))
RANKINGS = [name for name in METHODS if issubclass(registered("method")[name], Ranking)]


def option(name: str, **options: object) -> Method:
    """The method with its defaults, training as short as it goes."""
    cls = registered("method")[name]
    short = {"epochs": 1, "steps": 2}
    method = cls(**options)
    return replace(method, **{field.name: short[field.name] for field in fields(cls) if field.name in short})


def derive(name: str, **about: object):
    kind = about.pop("kind", "plain")
    base = random_base(kind, dtype=torch.float32)
    removed, limit = about.pop("removed", 0.5), about.pop("limit", "params")
    options = about.pop("options", {})
    task = task_of(base, budget=budget_without(base.shape, removed, limit), **about)
    try:
        return option(name, **options).derive(task), task
    except MissingExtra as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("limit", ["params", "macs"])
@pytest.mark.parametrize("removed", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("name", METHODS)
def test_the_budget_holds_and_the_base_stays(name: str, removed: float, limit: str) -> None:
    base = random_base("plain", dtype=torch.float32)
    before = copy.deepcopy(base.model.state_dict())
    edge, task = derive(name, removed=removed, limit=limit)
    size = count_params(edge.shape) if limit == "params" else count_macs(edge.shape)
    assert size <= getattr(task.budget, limit)
    assert sum(parameter.numel() for parameter in edge.model.parameters()) == count_params(edge.shape)
    logits = edge.model(torch.randn(2, 3, 16, 16))
    assert logits.shape == (2, 6)
    assert torch.isfinite(logits).all()
    for key, value in task.base.model.state_dict().items():
        assert torch.equal(value, before[key])
    assert not any(parameter.requires_grad for parameter in task.base.model.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_the_budget_is_used(name: str) -> None:
    edge, task = derive(name, removed=0.5, images=12)
    assert count_params(edge.shape) > 0.9 * task.budget.params


@pytest.mark.parametrize("name", METHODS)
def test_the_same_task_gives_the_same_bits(name: str) -> None:
    first, second = derive(name, removed=0.5)[0], derive(name, removed=0.5)[0]
    for key, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[key]), key


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", METHODS)
def test_every_supported_base(name: str, kind: str) -> None:
    edge, task = derive(name, kind=kind, removed=0.4, images=8)
    assert count_params(edge.shape) <= task.budget.params
    assert torch.isfinite(edge.model(torch.randn(2, 3, 16, 16))).all()


@pytest.mark.parametrize("size", [1, 1024])
@pytest.mark.parametrize("name", METHODS)
def test_proxy_sets_of_one_image_and_of_many(name: str, size: int) -> None:
    edge, task = derive(name, removed=0.5, images=16, size=size)
    assert count_params(edge.shape) <= task.budget.params
    assert all(torch.isfinite(value).all() for value in edge.model.state_dict().values())


@pytest.mark.parametrize("classes", [(1, 4), tuple(range(6))])
@pytest.mark.parametrize("name", METHODS)
def test_classes_that_a_device_names_are_the_rows_that_stay(name: str, classes: tuple[int, ...]) -> None:
    edge, task = derive(name, removed=0.4, classes=classes, images=12)
    assert edge.classes == classes
    assert edge.model(torch.randn(1, 3, 16, 16)).shape == (1, len(classes))
    assert count_params(edge.shape) <= task.budget.params


@pytest.mark.parametrize("name", METHODS)
def test_what_cannot_be_met_is_refused_in_a_sentence(name: str) -> None:
    base = random_base("plain", dtype=torch.float32)
    try:
        with pytest.raises(BudgetError, match="smallest legal"):
            option(name).derive(task_of(base, budget=Budget(params=300), images=6))
    except MissingExtra as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("name", METHODS)
def test_without_prepare_or_with_it_the_result_is_the_same(name: str) -> None:
    base = random_base("plain", dtype=torch.float32)
    models = []
    for prepared in (False, True):
        task = task_of(base, budget=budget_without(base.shape, 0.5, "params"), images=10)
        method = option(name)
        try:
            if prepared:
                method.prepare(task.evidence, [task.proxy, np.array([0, 3])], task.pool)
            models.append(method.derive(task).model.state_dict())
        except MissingExtra as missing:
            pytest.skip(str(missing))
    for key, value in models[0].items():
        assert torch.equal(value, models[1][key])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RANKINGS)
def test_every_ranking_works_on_a_rotated_stream(name: str, kind: str) -> None:
    options = {"stream": "rotated", "directions": "geo"}
    edge, task = derive(name, kind=kind, removed=0.6, images=8, options=options)
    assert 0.85 * task.budget.params < count_params(edge.shape) <= task.budget.params
    assert sum(parameter.numel() for parameter in edge.model.parameters()) == count_params(edge.shape)
    assert read_shape(edge.model).embed == edge.shape.embed == len(edge.keep.embed)
    assert edge.keep.embed[-1] == task.base.shape.embed - 1  # stands for the mean
    assert torch.isfinite(edge.model(torch.randn(2, 3, 16, 16))).all()


@pytest.mark.parametrize("name", RANKINGS)
def test_every_ranking_can_leave_the_choice_of_neurons_to_the_surgeon(name: str) -> None:
    plain, task = derive(name, removed=0.5, images=12)
    edge, _ = derive(name, removed=0.5, images=12, options={"neurons": "obs", "stream": "rotated"})
    assert count_params(edge.shape) <= task.budget.params
    assert torch.isfinite(edge.model(torch.randn(2, 3, 16, 16))).all()
    chosen, _ = derive(name, removed=0.5, images=12, options={"neurons": "obs"})
    assert chosen.shape == plain.shape


@pytest.mark.parametrize("name", RANKINGS)
def test_a_rotated_stream_loses_nothing_where_nothing_is_cut(name: str) -> None:
    base = random_base("plain", dtype=torch.float32)
    task = task_of(base, budget=Budget(params=count_params(base.shape)), images=8)
    try:
        edge = option(name, stream="rotated", attention="low_rank").derive(task)
    except MissingExtra as missing:
        pytest.skip(str(missing))
    pixels = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(edge.model(pixels), base.model(pixels), rtol=0, atol=1e-4)
