"""Cohorts on class shares made by hand: who is put together, and what they may not exceed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.cohorts.cohorts import Cohort, GroupingTask, equal_parts, meets, strictest
from fedprune.cohorts.kmeans import KMeans, shared_out
from fedprune.cohorts.none import NoCohorts
from fedprune.core.errors import ConfigError
from fedprune.devices.budget import Budget
from fedprune.mixture.mixture import Mixture
from fedprune.testing.spaces import clusters

LABELS = np.repeat(np.arange(6), 20)  # 20 public images of each of six classes
SMALL, LARGE = Budget(params=100), Budget(params=200)


def images_of(**counts):
    """Return a proxy set of so many images of each class, `c0=3` for instance."""
    chosen = [np.flatnonzero(int(name[1:]) == LABELS)[:count] for name, count in counts.items()]
    return np.concatenate(chosen)


def task_of(proxies, budgets=None, mixtures=None):
    devices = dict(enumerate(proxies))
    return GroupingTask(
        budgets=dict(enumerate(budgets)) if budgets else dict.fromkeys(devices, SMALL),
        mixtures=mixtures or {},
        proxies=devices,
        labels=LABELS,
        space=clusters().space,
        seed=0,
    )


# Three pairs that are nearly alike: classes 0 and 1, classes 2 and 3, classes 4 and 5.
PAIRS = [
    images_of(c0=10, c1=10), images_of(c2=10, c3=10), images_of(c4=10, c5=10),
    images_of(c0=9, c1=11), images_of(c2=12, c3=8), images_of(c4=11, c5=9),
]  # fmt: skip


def members(cohorts):
    return [cohort.members for cohort in cohorts]


def test_devices_with_the_same_classes_are_put_together():
    assert members(KMeans(count=3).form(task_of(PAIRS))) == [(0, 3), (1, 4), (2, 5)]
    assert members(KMeans(fraction=0.5).form(task_of(PAIRS))) == [(0, 3), (1, 4), (2, 5)]
    assert members(KMeans(count=1).form(task_of(PAIRS))) == [(0, 1, 2, 3, 4, 5)]


def test_square_roots_tell_a_rare_class_from_none():
    """Of 20 images, one of another class weighs more than one more of a common class: Hellinger's distance."""
    rare, none, uneven = images_of(c0=10, c1=9, c2=1), images_of(c0=10, c1=10), images_of(c0=12, c1=8)
    assert members(KMeans(count=2).form(task_of([rare, none, uneven]))) == [(0,), (1, 2)]


def test_mixtures_are_compared_by_the_public_anchors_they_lie_on():
    space = clusters().space
    far = [int(np.argmax(np.linalg.norm(space.anchors.means - space.anchors.means[0], axis=1)))]
    at = [0, far[0], 0, far[0]]
    mixtures = {
        device: Mixture(np.ones(1), space.anchors.means[[anchor]], np.array([space.variance]), "spherical")
        for device, anchor in enumerate(at)
    }
    task = task_of([PAIRS[0]] * 4, mixtures=mixtures)
    assert members(KMeans(count=2, by="mixture").form(task)) == [(0, 2), (1, 3)]
    unlabelled = replace(task, labels=np.zeros(0, dtype=np.int64))
    assert KMeans(count=2, by="mixture").form(unlabelled) == KMeans(count=2, by="mixture").form(task)


def test_only_devices_of_one_budget_share():
    budgets = [SMALL, SMALL, SMALL, LARGE, LARGE, LARGE]
    cohorts = KMeans(count=2).form(task_of(PAIRS, budgets))
    assert cohorts == [Cohort((0, 1, 2), SMALL), Cohort((3, 4, 5), LARGE)]
    assert KMeans(count=1).form(task_of(PAIRS, budgets)) == cohorts, "at least one for each budget"


def test_levels_round_budgets_down():
    budgets = [Budget(params=100 + device) for device in range(6)]
    cohorts = KMeans(count=2, levels=2).form(task_of(PAIRS, budgets))
    assert cohorts == [Cohort((0, 1, 2), Budget(params=100)), Cohort((3, 4, 5), Budget(params=103))]
    assert len(KMeans(count=2).form(task_of(PAIRS, budgets))) == 6


def test_as_many_cohorts_as_devices_are_no_cohorts():
    twins = task_of([PAIRS[0], PAIRS[0], PAIRS[1]])
    assert KMeans(count=3).form(twins) == KMeans(fraction=1.0).form(twins) == NoCohorts().form(twins)
    assert members(KMeans(count=2).form(twins)) == [(0, 1), (2,)]


def test_fewer_reports_than_the_minimum_join_the_nearest_cohort_that_they_can_afford():
    odd = images_of(c0=1, c1=8, c2=4)
    budgets = [SMALL, SMALL, SMALL, SMALL, SMALL, LARGE]
    proxies = [PAIRS[0], PAIRS[3], PAIRS[1], PAIRS[4], odd, odd]
    task = task_of(proxies, budgets)
    assert members(KMeans(count=4).form(task)) == [(0, 1), (2, 3), (4,), (5,)]
    assert KMeans(count=4, minimum=2).form(task) == [
        Cohort((0, 1), SMALL),
        Cohort((2, 3), SMALL),
        Cohort((4, 5), SMALL),
    ]
    assert KMeans(count=4, minimum=3).form(task) == [Cohort((0, 1, 2, 3, 4, 5), SMALL)]


def test_whoever_can_afford_no_cohort_is_left_out():
    """Two devices ask for less than all others: nobody's model is made smaller for them, and theirs is not made."""
    task = task_of(PAIRS, [SMALL, SMALL, LARGE, LARGE, LARGE, LARGE])
    assert KMeans(count=2, minimum=3).form(task) == [Cohort((2, 3, 4, 5), LARGE)]
    assert KMeans(count=2, minimum=7).form(task) == []


@pytest.mark.parametrize(("tolerance", "cohorts"), [(0.0, 6), (0.4, 6), (0.5, 3), (9.9, 3), (10.0, 1)])
def test_models_are_halved_as_long_as_that_costs_no_more_than_the_tolerance(tolerance, cohorts):
    task = replace(task_of(PAIRS), judge=lambda formed: {6: 90.0, 3: 89.5, 1: 80.0}[len(formed)])
    assert KMeans(tolerance=tolerance).form(task) == KMeans(count=cohorts).form(task)
    with pytest.raises(ConfigError, match="cohorts.tolerance needs a server that judges"):
        KMeans(tolerance=tolerance).form(task_of(PAIRS))


LIMITS = st.one_of(st.none(), st.integers(1, 3))
BUDGETS = st.builds(Budget, params=LIMITS, macs=LIMITS)
SHARES = st.lists(st.lists(st.integers(0, 119), min_size=1, max_size=6, unique=True), min_size=1, max_size=8)


@settings(max_examples=30)
@given(proxies=SHARES, data=st.data())
def test_any_order_of_reports_gives_the_same_cohorts_which_meet_every_budget(proxies, data):
    budgets = data.draw(st.lists(BUDGETS, min_size=len(proxies), max_size=len(proxies)))
    levels, minimum = data.draw(st.one_of(st.none(), st.integers(1, 3))), data.draw(st.integers(1, 3))
    option = KMeans(count=data.draw(st.integers(1, 8)), levels=levels, minimum=minimum)
    task = task_of([np.array(sorted(proxy)) for proxy in proxies], budgets)
    order = data.draw(st.permutations(task.devices))
    shuffled = replace(
        task,
        budgets={device: task.budgets[device] for device in order},
        proxies={device: task.proxies[device] for device in order},
    )
    formed = option.form(task)
    assert option.form(shuffled) == formed
    placed = [device for cohort in formed for device in cohort.members]
    assert len(placed) == len(set(placed))
    for cohort in formed:
        assert len(cohort.members) >= minimum
        assert all(meets(cohort.budget, task.budgets[device]) for device in cohort.members)
    if minimum == 1:
        assert sorted(placed) == task.devices
    for device in set(task.devices) - set(placed):  # nobody is left out beside a cohort that it could have joined
        assert not any(meets(cohort.budget, task.budgets[device]) for cohort in formed)


@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=5), count=st.integers(1, 60))
def test_cohorts_are_dealt_to_levels_by_their_devices(sizes, count):
    given = shared_out(count, sizes)
    assert sum(given) == min(max(count, len(sizes)), sum(sizes))
    assert all(1 <= part <= size for part, size in zip(given, sizes, strict=True))
    for part, size in zip(given, sizes, strict=True):  # no level could give one to another that is as crowded
        assert part == 1 or all(size / (part - 1) >= other / mine for other, mine in zip(sizes, given, strict=True))


def test_the_strictest_limits_of_all():
    assert strictest([Budget(params=3, macs=5), Budget(macs=4)]) == Budget(params=3, macs=4)
    assert meets(Budget(params=3, macs=4), Budget(macs=4))
    assert not meets(Budget(macs=4), Budget(params=3, macs=4))


@given(
    sets=st.lists(st.lists(st.integers(0, 40), unique=True, max_size=12), min_size=1, max_size=5), seed=st.integers(0)
)
def test_equal_parts_of_every_members_images(sets, seed):
    parts = {device: np.array(sorted(images), dtype=np.int64) for device, images in enumerate(sets)}
    taken = equal_parts(parts, seed)
    size = max(map(len, sets))
    assert taken.tolist() == sorted(set(taken.tolist()))
    assert len(taken) == size
    assert set(taken.tolist()) <= {image for images in sets for image in images}
    assert equal_parts(dict(reversed(parts.items())), seed).tolist() == taken.tolist()
    assert equal_parts({3: parts[0]}, seed).tolist() == parts[0].tolist()
    if sum(map(len, sets)) == len({image for images in sets for image in images}):  # disjoint: turn by turn
        counts = [len(np.intersect1d(taken, images)) for images in parts.values()]
        whole = [len(images) for images in sets]
        for mine, all_mine in zip(counts, whole, strict=True):
            assert mine == all_mine or mine >= max(counts) - 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 0},
        {"fraction": 0.0},
        {"fraction": 1.5},
        {"by": "x"},
        {"share": "x"},
        {"tolerance": -1.0},
        {"count": 2, "tolerance": 1.0},
    ],
)
def test_settings_that_no_run_could_use_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        KMeans(**wrong)
