"""The contract of a selector: a set of the size asked, from the pool, whatever the order in which the pool is given."""

from dataclasses import replace
from functools import cache

import numpy as np

from fedprune.core.errors import ConfigError
from fedprune.mixture.gmm import GaussianMixtureFit
from fedprune.proxy.selector import PrivateView, SelectionTask, Selector
from fedprune.testing.contract import (
    GLOBAL_RANDOMNESS,
    Check,
    asked,
    expect,
    expect_raises,
    it_is_an_option_of_its_kind,
    under_two_generators,
)
from fedprune.testing.spaces import clusters


def contract(selector: Selector) -> list[Check]:
    """Return the checks of a selector; one that reads private data promises to say so."""
    checks = [
        *asked(it_is_an_option_of_its_kind, kind=["selector"], base=[Selector]),
        *asked(the_set_has_its_size_no_image_twice_and_rises),
        *asked(the_order_of_the_pool_changes_nothing),
        *asked(the_same_task_gives_the_same_set),
        *asked(labels_that_it_does_not_read_change_nothing),
    ]
    if getattr(selector, "reads_private", False):
        return [*checks, *asked(without_a_private_view_it_is_refused)]
    return [*checks, *asked(a_small_pool_is_taken_whole), *asked(a_private_view_changes_nothing)]


@cache
def selection_task() -> SelectionTask:
    """Return a task of 60 out of 1000 images; the device holds classes 0, 1, 2, and pool indices are scattered."""
    world = clusters()
    points, labels = world.device(120)
    mixture = GaussianMixtureFit(components=3).fit(points, world.space, seed=0)
    indices = 3 * np.random.default_rng(0).permutation(1000)
    view = PrivateView(np.arange(120) * 3 + 1, labels, points, world.labels)
    return SelectionTask(world.space.project(world.features), indices, mixture, world.space, 60, 5, view)


def the_set_has_its_size_no_image_twice_and_rises(selector: Selector) -> None:
    """The set comes with its diagnostics, from the pool or, where the selector says so, from the device."""
    task = selection_task()
    assert task.private is not None
    proxy = selector.select(task)
    expect(len(proxy.indices) == task.size, f"{task.size} images were asked and {len(proxy.indices)} chosen.")
    expect(bool((np.diff(proxy.indices) > 0).all()), "an image was chosen twice.")
    own = task.private.indices if selector.reads_private else task.indices[:0]
    there = np.isin(proxy.indices, task.indices).all() or np.isin(proxy.indices, own).all()
    expect(bool(there), "it chose an image that is not in the pool; return `task.indices` of the chosen positions.")
    for name in ("shortfall", "effective_sample_size"):
        expect(
            name in proxy.diagnostics, f"the diagnostics lack {name!r}; implement `choose` and leave `select` alone."
        )
    shortfall, effective = proxy.diagnostics["shortfall"], proxy.diagnostics["effective_sample_size"]
    expect(shortfall == 0, f"nothing is missing, and the shortfall is {shortfall}.")
    expect(1 <= effective <= len(task.indices), f"{len(task.indices)} images weigh as much as {effective}.")
    numbers = [float(value) for value in proxy.diagnostics.values()]
    expect(bool(np.isfinite(numbers).all()), f"a diagnostic is not finite: {dict(proxy.diagnostics)}.")


def the_order_of_the_pool_changes_nothing(selector: Selector) -> None:
    """The pool is a set; equal scores are told apart by index."""
    task = selection_task()
    assert task.private is not None
    order = np.random.default_rng(9).permutation(len(task.indices))
    private = replace(task.private, pool_labels=task.private.pool_labels[order])
    shuffled = replace(task, points=task.points[order], indices=task.indices[order], private=private)
    same = np.array_equal(selector.select(shuffled).indices, selector.select(task).indices)
    expect(same, "another order of the same pool gives another set.")


def the_same_task_gives_the_same_set(selector: Selector) -> None:
    """Randomness comes from the task's generator and nothing else."""
    first, second = under_two_generators(lambda: selector.select(selection_task()).indices)
    expect(np.array_equal(first, second), f"one task gives two sets. {GLOBAL_RANDOMNESS}")


def labels_that_it_does_not_read_change_nothing(selector: Selector) -> None:
    """Tables tell which rows read labels of public images: `reads_labels` says so of a selector."""
    task = selection_task()
    assert task.private is not None
    if getattr(selector, "reads_labels", False):
        return
    other = replace(task, private=replace(task.private, pool_labels=task.private.pool_labels[::-1]))
    same = np.array_equal(selector.select(other).indices, selector.select(task).indices)
    expect(same, "`reads_labels` is false, and with other labels of the pool it chooses another set.")


def a_small_pool_is_taken_whole(selector: Selector) -> None:
    """Where the pool has fewer images than are wanted, all are taken and the rest is the shortfall."""
    task = selection_task()
    small = replace(task, points=task.points[:25], indices=task.indices[:25], private=None)
    proxy = selector.select(small)
    whole = np.array_equal(proxy.indices, np.sort(small.indices))
    expect(whole, f"60 images are wanted of a pool of 25, and {len(proxy.indices)} are chosen instead of all of it.")
    expect(proxy.diagnostics["shortfall"] == 35, f"35 are missing, and it says {proxy.diagnostics['shortfall']}.")


def a_private_view_changes_nothing(selector: Selector) -> None:
    """A selector that does not say `reads_private` works on a real server, which has no private view."""
    task = selection_task()
    same = np.array_equal(selector.select(task).indices, selector.select(replace(task, private=None)).indices)
    expect(same, "it reads the private view, which a real server does not have; say reads_private = True.")


def without_a_private_view_it_is_refused(selector: Selector) -> None:
    """An upper mark is a sentence on a server that cannot have it."""
    with expect_raises(ConfigError, "a task without a private view", "only a simulation"):
        selector.select(replace(selection_task(), private=None))
