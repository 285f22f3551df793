"""The contract of a method: a legal model within the budget, the same every time, from the pool; the base stays."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fedprune.core.errors import BudgetError
from fedprune.devices.budget import Budget
from fedprune.devices.budgets import budget_without
from fedprune.pruning.method import Method, PruningTask
from fedprune.pruning.ranking import Ranking
from fedprune.pruning.rotation import Rotatable
from fedprune.testing.contract import (
    GLOBAL_RANDOMNESS,
    Check,
    asked,
    difference,
    expect,
    expect_raises,
    it_is_an_option_of_its_kind,
    under_two_generators,
)
from fedprune.testing.tasks import CLASSES, FAMILIES, random_base, task_of
from fedprune.vit.counts import count_macs, count_params
from fedprune.vit.inspect import read_shape
from fedprune.vit.stream import is_rotated
from fedprune.vit.surgery import EdgeModel


def contract(method: Any) -> list[Check]:
    """Return the checks of a method; one that is `Rotatable`, and a `Ranking`, promise more than others."""
    checks = [
        *asked(it_is_an_option_of_its_kind, kind=["method"], base=[Method]),
        *asked(the_budget_holds_and_the_base_stays, removed=[0.2, 0.5, 0.8], limit=["params", "macs"]),
        *asked(the_budget_is_used),
        *asked(the_same_task_gives_the_same_bits),
        *asked(every_supported_base_is_cut, family=FAMILIES),
        *asked(proxy_sets_of_one_image_and_of_many_serve, size=[1, 1024]),
        *asked(classes_that_a_device_names_are_the_rows_that_stay, classes=[(1, 4), tuple(range(CLASSES))]),
        *asked(what_cannot_be_met_is_refused_in_a_sentence),
        *asked(without_prepare_or_with_it_the_result_is_the_same),
        *asked(only_the_pool_is_read),
        *asked(labels_that_it_does_not_read_change_nothing),
    ]
    if isinstance(method, Rotatable):
        checks += asked(it_works_on_a_rotated_stream, family=FAMILIES)
    if isinstance(method, Ranking):
        checks += asked(a_ranking_can_leave_the_choice_of_units_to_the_surgeon)
        checks += asked(a_rotated_stream_loses_nothing_where_nothing_is_cut)
    return checks


def derive(method: Method, *, family: str = "plain", removed: float = 0.5, limit: str = "params", **about: Any) -> Any:
    """Return the edge model that `method` derives from a random base, and the task."""
    base = random_base(family, dtype=torch.float32)
    task = task_of(base, budget=budget_without(base.shape, removed, limit), **about)
    return method.derive(task), task


def expect_within(edge: EdgeModel, task: PruningTask, limit: str = "params") -> None:
    """Expect that the edge model keeps its budget, and that its shape is that of its module.

    Raises:
        AssertionError: it does not.
    """
    size = count_params(edge.shape) if limit == "params" else count_macs(edge.shape)
    allowed = getattr(task.budget, limit)
    expect(size <= allowed, f"the edge model has {size} {limit} where the budget allows {allowed}.")
    held = sum(parameter.numel() for parameter in edge.model.parameters())
    counted = count_params(edge.shape)
    expect(held == counted, f"the module holds {held} parameters, and the shape that is told counts {counted}.")


def expect_logits(edge: EdgeModel, classes: int = CLASSES) -> None:
    """Expect finite logits, a column a class.

    Raises:
        AssertionError: they are not.
    """
    with torch.no_grad():
        logits = edge.model(torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    expect(logits.shape == (2, classes), f"the logits of 2 images and {classes} classes are {tuple(logits.shape)}.")
    expect(bool(torch.isfinite(logits).all()), "the edge model's logits are not finite.")


def the_budget_holds_and_the_base_stays(method: Method, removed: float, limit: str) -> None:
    """The edge model is as small as it must be and gives logits; the shared base is as it was."""
    before = copy.deepcopy(random_base("plain", dtype=torch.float32).model.state_dict())
    edge, task = derive(method, removed=removed, limit=limit)
    expect_within(edge, task, limit)
    expect_logits(edge)
    changed = difference(before, task.base.model.state_dict())
    expect(not changed, f"the shared base's {changed} was changed. Cut or train a copy.")
    trained = [name for name, value in task.base.model.named_parameters() if value.requires_grad]
    expect(not trained, f"the shared base's {trained[:1]} was left with gradients switched on.")


def the_budget_is_used(method: Method) -> None:
    """Nine tenths of what the budget allows stay."""
    edge, task = derive(method, removed=0.5, images=12)
    size, allowed = count_params(edge.shape), task.budget.params
    expect(size > 0.9 * allowed, f"the edge model has {size} parameters of {allowed} that it may have: under 90 %.")


def the_same_task_gives_the_same_bits(method: Method) -> None:
    """Randomness comes from the task's seed and nothing else."""
    first, second = under_two_generators(lambda: derive(method)[0].model.state_dict())
    name = difference(first, second)
    expect(not name, f"two edge models of one task differ in {name}. {GLOBAL_RANDOMNESS}")


def every_supported_base_is_cut(method: Method, family: str) -> None:
    """Layer scale, a distillation token, average pooling: whatever `vit.inspect` reads."""
    edge, task = derive(method, family=family, removed=0.4, images=8)
    expect_within(edge, task)
    expect_logits(edge)


def proxy_sets_of_one_image_and_of_many_serve(method: Method, size: int) -> None:
    """A proxy set may have one image, or images many times over."""
    edge, task = derive(method, images=16, size=size)
    expect_within(edge, task)
    broken = [name for name, value in edge.model.state_dict().items() if not torch.isfinite(value).all()]
    expect(not broken, f"with a proxy set of {size} images the edge model's {broken[:1]} is not finite.")


def classes_that_a_device_names_are_the_rows_that_stay(method: Method, classes: tuple[int, ...]) -> None:
    """The classifier has a row for each class that the device tells, in that order."""
    edge, task = derive(method, removed=0.4, classes=classes, images=12)
    expect(edge.classes == classes, f"the device tells the classes {classes}, and the edge model has {edge.classes}.")
    expect_logits(edge, len(classes))
    expect_within(edge, task)


def what_cannot_be_met_is_refused_in_a_sentence(method: Method) -> None:
    """A budget below the smallest legal model is an error that says how small that is."""
    base = random_base("plain", dtype=torch.float32)
    with expect_raises(BudgetError, "a budget of 300 parameters", "smallest legal"):
        method.derive(task_of(base, budget=Budget(params=300), images=6))


def without_prepare_or_with_it_the_result_is_the_same(method: Method) -> None:
    """`prepare` saves time and changes nothing."""
    models = []
    for prepared in (False, True):
        base = random_base("plain", dtype=torch.float32)
        task = task_of(base, budget=budget_without(base.shape, 0.5, "params"), images=10)
        if prepared:
            method.prepare(task.evidence, [task.proxy, np.array([0, 3])], task.pool)
        models.append(method.derive(task).model.state_dict())
    name = difference(*models)
    expect(not name, f"with `prepare` called first, the edge model differs in {name}.")


def only_the_pool_is_read(method: Method) -> None:
    """The validation cut lies beside the pool, and a method that looks at it has chosen on it."""
    _, task = derive(method, images=10, beside=4)
    read = sorted(task.images.seen - set(task.pool.tolist()))
    expect(not read, f"it read image {read[:1]} of the server's, which is not in the pool.")


def labels_that_it_does_not_read_change_nothing(method: Method) -> None:
    """Tables tell which rows read labels of public images: `reads_labels` says so of a method."""
    if method.reads_labels:
        return
    first, second = (derive(method, relabelled=other)[0].model.state_dict() for other in (False, True))
    name = difference(first, second)
    expect(not name, f"`reads_labels` is false, and with other labels the edge model differs in {name}.")


def it_works_on_a_rotated_stream(method: Rotatable, family: str) -> None:
    """`stream=rotated` cuts the embedding along other axes; the method must take the task's base as it comes."""
    edge, task = derive(replace(method, stream="rotated", directions="geo"), family=family, removed=0.6, images=8)
    expect_within(edge, task)
    size, allowed = count_params(edge.shape), task.budget.params
    expect(size > 0.85 * allowed, f"the edge model has {size} parameters of {allowed} that it may have: under 85 %.")
    widths = {read_shape(edge.model).embed, edge.shape.embed, len(edge.keep.embed)}
    expect(len(widths) == 1, f"module, shape and kept units give the embedding the widths {sorted(widths)}.")
    rotated = edge.source is not None and is_rotated(edge.source)
    expect(rotated, "stream=rotated is set, and the edge model is cut along the base's own axes: use `in_coordinates`.")
    mean = task.base.shape.embed - 1
    expect(edge.keep.embed[-1] == mean, f"dimension {mean}, which stands for the mean, was cut.")
    expect_logits(edge)


def a_ranking_can_leave_the_choice_of_units_to_the_surgeon(method: Ranking) -> None:
    """`neurons=obs` changes which neurons stay, not how many; `values=obs` the same of value dimensions."""
    plain, task = derive(method, images=12)
    edge, _ = derive(replace(method, neurons="obs", values="obs", stream="rotated"), images=12)
    expect_within(edge, task)
    expect_logits(edge)
    for name, surgeons in (("neurons", replace(method, neurons="obs")), ("values", replace(method, values="obs"))):
        chosen, _ = derive(surgeons, images=12)
        expect(chosen.shape == plain.shape, f"with {name}=obs the shape is {chosen.shape}, without it {plain.shape}.")


def a_rotated_stream_loses_nothing_where_nothing_is_cut(method: Ranking) -> None:
    """With a budget for all of it the edge model is the base, in whatever coordinates."""
    base = random_base("plain", dtype=torch.float32)
    task = task_of(base, budget=Budget(params=count_params(base.shape)), images=8)
    edge = replace(method, stream="rotated", attention="low_rank").derive(task)
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        apart = float((edge.model(pixels) - base.model(pixels)).abs().max())
    expect(apart <= 1e-4, f"nothing was cut, and the logits are {apart:.2g} away from the base's.")
