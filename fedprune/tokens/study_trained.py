"""Studies on CIFAR-100: trained selectors beside training-free rules, and weights x tokens under one budget."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import process_time

import numpy as np
from torch import Tensor

from fedprune.core.errors import BudgetError
from fedprune.core.random import stream
from fedprune.core.registry import lookup
from fedprune.data.images import Dataset, IntArray, Partition
from fedprune.devices.budget import Budget
from fedprune.evidence.evidence import Evidence
from fedprune.pruning.method import PruningTask
from fedprune.pruning.tap import Tap
from fedprune.recovery.least_squares import LeastSquares
from fedprune.tokens.counts import count_reduced_macs
from fedprune.tokens.measure import measure
from fedprune.tokens.reduced import ReducedModel, reduce
from fedprune.tokens.reducer import Reducer, SelectorRecipe
from fedprune.tokens.split import Splitting, split_budget
from fedprune.tokens.study import Row, Table, point, sample
from fedprune.tokens.training import Public, trained_parameters
from fedprune.vit.base import Base, predict
from fedprune.vit.counts import count_macs

AXES_COLUMNS = ("keep", "mac_share", "params", "images", "correct", "accuracy", "cpu_seconds")
Parameters = Mapping[str, Tensor] | None
TRAINED = ("spvit", "dynamicvit", "ltmp", "heatvit")
FREE = ("evit", "tome", "ats", "evo_vit", "ppt", "sait")


@dataclass(frozen=True)
class World:
    """A base with the data that it was trained on."""

    base: Base
    dataset: Dataset
    partition: Partition
    cache: Path

    @property
    def public(self) -> Public:
        """The pool."""
        return Public(self.dataset.train, self.partition.pool, self.dataset.fingerprint)


def selector_points(
    world: World,
    images: int,
    recipe: SelectorRecipe,
    keeps: tuple[float, ...],
    table: Table,
    only: Sequence[str],
) -> Iterator[Row]:
    """Train each selector once at keep 0.7 and use it at `keeps`; the training-free rules stand beside."""
    test, base = world.dataset.test, world.base
    indices = sample(test, images)
    for title, reducer, keep in _selector_reducers(recipe, keeps):
        if only and title.split()[0] not in only:
            continue
        key = {
            "reducer": title,
            "keep": keep,
            "images": len(indices),
            "training_images": 0,
            "epochs": 0,
            "base": base.fingerprint,
        }
        if reducer.trained:
            key |= {"training_images": recipe.images or len(world.partition.pool), "epochs": recipe.epochs}
        yield table.add(key, partial(_selector_point, world, reducer, keep, indices, title.endswith("ragged")))


def _selector_reducers(recipe: SelectorRecipe, keeps: tuple[float, ...]) -> Iterator[tuple[str, Reducer, float]]:
    yield "base", lookup("tokens", "none")(), 1.0
    for name in FREE:
        for keep in keeps:
            yield name, lookup("tokens", name)(keep=keep), keep
    for name in TRAINED:
        reducer = lookup("tokens", name)(keep=0.7, training=recipe)
        for keep in keeps if reducer.transferable else (0.7,):
            yield name, reducer, keep
        yield f"{name} ragged", reducer, 0.7


def _selector_point(world: World, reducer: Reducer, keep: float, indices: IntArray, ragged: bool) -> Row:
    base = world.base
    begin = process_time()
    parameters = trained_parameters(reducer, base, world.public, world.cache)
    spent = process_time() - begin
    model = reduce(base.model, base.shape, reducer.at(keep) if keep != reducer.keep else reducer, parameters=parameters)
    row = point(base, model.set_ragged(ragged), world.dataset.test, indices)
    return {**row, "training_cpu_seconds": round(spent, 1)}


@dataclass(frozen=True)
class AxesPlan:
    """What the study of both axes runs over.

    Attributes:
        seeds: Each deals other classes to the devices and other images to their proxy sets.
        devices: Devices a seed.
        classes: Classes a device knows.
        proxy: Images of a proxy set: pool images of the device's classes (its label mix is taken as known here).
        images: Test images a device at most.
        removed: Shares of the base's MACs that budgets take away.
        ratios: Keep ratios that the split tries.
    """

    seeds: tuple[int, ...] = (0, 1)
    devices: int = 3
    classes: int = 10
    proxy: int = 128
    images: int = 300
    removed: tuple[float, ...] = (0.3, 0.5, 0.7)
    ratios: tuple[float, ...] = (1.0, 0.8, 0.7, 0.6, 0.5)


def axes_points(world: World, reducer: Reducer, plan: AxesPlan, table: Table) -> Iterator[Row]:
    """Compare tokens only, weights only and both at equal MACs, a device, a budget and a seed at a time."""
    parameters = trained_parameters(reducer, world.base, world.public, world.cache)
    name = str(reducer.name)  # type: ignore[attr-defined]
    for seed in plan.seeds:
        for device in range(plan.devices):
            task, test = deal(world, plan, seed, device)
            for removed in plan.removed:
                limit = int((1 - removed) * count_macs(world.base.shape))
                ready = replace(task, budget=Budget(macs=limit))
                for axis in ("tokens", "weights", "both"):
                    key = {"reducer": name, "seed": seed, "device": device, "removed": removed, "axis": axis}
                    ratios = {"tokens": (), "weights": (1.0,), "both": plan.ratios}[axis]

                    def compute(
                        task: PruningTask = ready, test: IntArray = test, ratios: tuple[float, ...] = ratios
                    ) -> Row:
                        try:
                            return _axes_point(world, task, test, reducer, parameters, ratios)
                        except BudgetError:  # this axis alone cannot get so small: an empty row says so
                            return dict.fromkeys(AXES_COLUMNS)

                    yield table.add(key, compute)


def deal(world: World, plan: AxesPlan, seed: int, device: int) -> tuple[PruningTask, IntArray]:
    """Return a device's task (without its budget) and its test images."""
    train, test, pool = world.dataset.train, world.dataset.test, world.partition.pool
    random = stream(seed, "token axes", device)
    classes = np.sort(random.permutation(len(world.dataset.classes))[: plan.classes])
    candidates = pool[np.isin(train.labels[pool], classes)]
    proxy = random.choice(candidates, min(plan.proxy, len(candidates)), replace=False)
    own = np.flatnonzero(np.isin(test.labels, classes))
    own = np.sort(random.choice(own, min(plan.images, len(own)), replace=False))
    evidence = Evidence(world.base, train, world.cache, images_id=world.dataset.fingerprint)
    rows = tuple(int(label) for label in classes)
    return PruningTask(world.base, train, proxy, pool, evidence, Budget(macs=1), rows, seed), own


def _axes_point(
    world: World, task: PruningTask, test: IntArray, reducer: Reducer, parameters: Parameters, ratios: tuple[float, ...]
) -> Row:
    begin = process_time()
    base, images = world.base, world.dataset.test
    labels, rows = images.labels[test], np.array(task.classes)
    if not ratios:
        model, keep = tokens_only(base, reducer, task.budget.macs or 0, parameters)
        done = measure(model, base.preprocess, images, test)
        logits, macs, params = done.logits[:, rows], float(done.macs.mean()), 0
    else:
        start = reducer.at(ratios[-1])  # one of the ratios, so that no other is tried
        splitting = Splitting(ratios=ratios)
        split = split_budget(task, Tap(), start, recovery=LeastSquares(), parameters=parameters, splitting=splitting)
        logits = predict(split.edge.model, base.preprocess, images, test)
        keep, macs, params = split.chosen.keep, float(split.chosen.macs), split.chosen.params
    return {
        "keep": round(keep, 4),
        "mac_share": round(macs / count_macs(base.shape), 4),
        "params": params,
        "images": len(test),
        "correct": int((rows[logits.argmax(1)] == labels).sum()),
        "accuracy": round(100 * float((rows[logits.argmax(1)] == labels).mean()), 2),
        "cpu_seconds": round(process_time() - begin, 1),
    }


def tokens_only(base: Base, reducer: Reducer, limit: int, parameters: Parameters) -> tuple[ReducedModel, float]:
    """Return the reduced base with the largest keep ratio, in steps of 1 %, whose MACs meet the limit.

    Raises:
        BudgetError: tokens alone cannot meet it.
    """
    for percent in range(99, 1, -1):
        model = reduce(base.model, base.shape, reducer.at(percent / 100), parameters=parameters)
        if count_reduced_macs(model) <= limit:
            return model, percent / 100
    raise BudgetError(f"Even 2 % of the tokens take more than {limit:,} MACs. Raise the budget.")
