"""The contract of cohorts: every device in one at most, within its budget, whatever the order in which reports came."""

from dataclasses import replace
from functools import cache

import numpy as np

from fedprune.cohorts.cohorts import SHARED, Cohort, Cohorts, GroupingTask, meets, strictest
from fedprune.devices.budget import Budget
from fedprune.mixture.gmm import GaussianMixtureFit
from fedprune.testing.contract import (
    GLOBAL_RANDOMNESS,
    Check,
    asked,
    expect,
    it_is_an_option_of_its_kind,
    under_two_generators,
)
from fedprune.testing.spaces import CLASSES, clusters

DEVICES = 9
BUDGETS = (Budget(params=1000), Budget(params=2000), Budget(params=2000, macs=10**6))


def contract(cohorts: Cohorts) -> list[Check]:
    """Return the checks of a way to form cohorts."""
    return [
        *asked(it_is_an_option_of_its_kind, kind=["cohorts"], base=[Cohorts]),
        *asked(it_says_what_is_shared),
        *asked(no_device_is_in_two_cohorts),
        *asked(a_cohorts_budget_meets_every_members),
        *asked(the_order_of_reports_changes_nothing),
        *asked(the_same_reports_give_the_same_cohorts),
        *asked(one_device_is_no_trouble),
        *([] if cohorts.reads_labels else asked(labels_change_nothing)),
    ]


@cache
def grouping_task() -> GroupingTask:
    """Return a task of nine devices of three budgets, each of which holds three of ten classes."""
    world, mixtures, proxies = clusters(), {}, {}
    for device in range(DEVICES):
        classes = tuple(sorted({(device + step) % CLASSES for step in (0, 1, 4)}))
        points, _ = world.device(60, classes, seed=device)
        mixtures[device] = GaussianMixtureFit(components=3).fit(points, world.space, seed=device)
        proxies[device] = np.flatnonzero(np.isin(world.labels, classes))[:60]
    budgets = {device: BUDGETS[device % len(BUDGETS)] for device in range(DEVICES)}
    return GroupingTask(budgets, mixtures, proxies, world.labels, world.space, seed=5)


def _of(task: GroupingTask, devices: list[int]) -> GroupingTask:
    """Return the task of some of its devices, in their order."""
    return replace(
        task,
        budgets={device: task.budgets[device] for device in devices},
        mixtures={device: task.mixtures[device] for device in devices},
        proxies={device: task.proxies[device] for device in devices},
    )


def it_says_what_is_shared(cohorts: Cohorts) -> None:
    """One of the things that can be shared."""
    expect(cohorts.share in SHARED, f"it shares {cohorts.share!r}; what can be shared is {', '.join(SHARED)}.")


def no_device_is_in_two_cohorts(cohorts: Cohorts) -> None:
    """Members rise, cohorts stand in the order of their first members, and all are devices of the task."""
    task = grouping_task()
    formed = cohorts.form(task)
    members = [device for cohort in formed for device in cohort.members]
    expect(len(members) == len(set(members)), "a device is in two cohorts.")
    expect(set(members) <= set(task.devices), "a member is no device of the task.")
    expect(all(cohort.members for cohort in formed), "a cohort has no member.")
    rising = all(list(cohort.members) == sorted(cohort.members) for cohort in formed)
    numbers = [cohort.number for cohort in formed]
    expect(rising and numbers == sorted(numbers), "members or cohorts do not rise; make them with Cohort.of and sort.")


def a_cohorts_budget_meets_every_members(cohorts: Cohorts) -> None:
    """Whatever keeps a cohort's budget keeps that of each of its members, and it is no smaller than need be."""
    task = grouping_task()
    for cohort in cohorts.form(task):
        budgets = [task.budgets[device] for device in cohort.members]
        met = all(meets(cohort.budget, budget) for budget in budgets)
        expect(met, f"{cohort.budget} exceeds the budget of a member. Make cohorts with Cohort.of.")
        expect(cohort.budget == strictest(budgets), f"{cohort.budget} is smaller than its members ask for.")


def the_order_of_reports_changes_nothing(cohorts: Cohorts) -> None:
    """Reports come as they like."""
    task = grouping_task()
    shuffled = _of(task, np.random.default_rng(3).permutation(task.devices).tolist())
    expect(cohorts.form(shuffled) == cohorts.form(task), "another order of the same reports gives other cohorts.")


def the_same_reports_give_the_same_cohorts(cohorts: Cohorts) -> None:
    """Randomness comes from the task's seed and nothing else."""
    first, second = under_two_generators(lambda: cohorts.form(grouping_task()))
    expect(first == second, f"the same reports give two groupings. {GLOBAL_RANDOMNESS}")


def one_device_is_no_trouble(cohorts: Cohorts) -> None:
    """Only one report may have come: then there is one cohort, or none."""
    task = _of(grouping_task(), [4])
    expect(cohorts.form(task) in ([Cohort((4,), task.budgets[4])], []), "one device does not make one cohort.")


def labels_change_nothing(cohorts: Cohorts) -> None:
    """Who says that no labels are read works on a pool that has none."""
    task = grouping_task()
    others = replace(task, labels=np.roll(task.labels, 7))
    expect(cohorts.form(others) == cohorts.form(task), "other labels give other cohorts; say reads_labels = True.")
