import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.core.errors import ConfigError, DataError
from fedprune.core.registry import build
from fedprune.data.dirichlet import Dirichlet
from fedprune.data.iid import Iid
from fedprune.data.partition import apportion, draw_under_law, public_cut, thin
from fedprune.data.pathological import Pathological
from fedprune.data.shard import ShardsOfLabels
from fedprune.data.subtasks import Subtasks
from fedprune.testing import parametrize_with_checks
from fedprune.testing.partitions import labelled
from tests.situations import saw

GROUPS = {"first": (0, 1, 2, 3), "second": (4, 5, 6), "third": (7, 8, 9)}
TEN = labelled([60] * 10, [20] * 10, GROUPS)
PARTITIONERS = [
    Subtasks(devices=6, classes_per_device=3),
    Iid(devices=6),
    Dirichlet(devices=6, alpha=0.5, min_images=5),
    Pathological(devices=6, classes_per_device=3),
    ShardsOfLabels(devices=6, shards_per_device=2),
]


@parametrize_with_checks("partition", PARTITIONERS)
def test_partitions_keep_their_contract(option, check):
    check(option)


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    pool=st.floats(0.05, 0.6),
    validation=st.floats(0.05, 0.35),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_the_public_cut_is_a_partition_with_each_class_cut_at_the_shares(counts, pool, validation, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    parts = public_cut(labels, pool, validation, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    for part, share in zip(parts, (pool, validation, 1 - pool - validation), strict=True):
        there = np.bincount(labels[part], minlength=len(counts))
        assert (np.abs(there - share * np.array(counts)) < 1 + 1e-9).all()


@given(weights=st.lists(st.integers(0, 50), min_size=1, max_size=20).filter(any), total=st.integers(0, 500))
def test_apportioned_parts_sum_to_the_total_and_are_within_one_of_exact(weights, total):
    parts = apportion(np.array(weights), total)
    exact = np.array(weights) * total / sum(weights)
    assert parts.sum() == total
    assert (np.abs(parts - exact) < 1).all()
    assert (parts[np.array(weights) == 0] == 0).all()


@given(
    pairs=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), min_size=1, max_size=10).filter(
        lambda pairs: any(wanted for wanted, _ in pairs)
    ),
    most=st.integers(1, 100),
    seed=st.integers(0, 5),
)
@settings(deadline=None)
def test_images_drawn_under_a_law_are_within_one_of_it_in_every_class(pairs, most, seed):
    wanted, there = (np.array(column) for column in zip(*pairs, strict=True))
    labels = np.repeat(np.arange(len(there)), there)
    drawn = draw_under_law(labels, wanted, most, np.random.default_rng(seed))
    assert len(np.unique(drawn)) == len(drawn) <= most
    counts = np.bincount(labels[drawn], minlength=len(there))
    assert (np.abs(counts - wanted / wanted.sum() * len(drawn)) < 1).all()


def test_as_many_test_images_are_drawn_as_the_scarcest_class_allows():
    labels = np.repeat([0, 1], [100, 10])
    assert len(draw_under_law(labels, np.array([3, 1]), 1000, np.random.default_rng(0))) == 40
    assert len(draw_under_law(labels, np.array([1, 1]), 1000, np.random.default_rng(0))) == 20
    assert len(draw_under_law(labels, np.array([1, 0]), 50, np.random.default_rng(0))) == 50


def test_thinning_keeps_the_law():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    kept = thin(np.arange(100), labels, 20, np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(labels[kept]), [12, 6, 2])


def test_named_subtasks_come_once_before_any_comes_again():
    partition = Subtasks(devices=6, choice="named").split(TEN, seed=0)
    tasks = [shard.task for shard in partition.shards]
    assert set(tasks[:3]) == set(tasks[3:]) == set(GROUPS)
    for shard in partition.shards:
        assert shard.classes == GROUPS[shard.task]
        assert len(set(np.bincount(TEN.train.labels[shard.train])[list(shard.classes)])) == 1, "classes are not level"


def test_mixed_subtasks_alternate_and_random_ones_have_the_classes_asked():
    partition = Subtasks(devices=4, classes_per_device=3).split(TEN, seed=0)
    assert [shard.task in GROUPS for shard in partition.shards] == [True, False, True, False]
    assert all(len(shard.classes) == 3 for shard in partition.shards[1::2])


def test_subtasks_can_be_joined_and_written_as_lists_of_classes():
    joined = Subtasks(devices=1, choice="named", tasks_per_device=2, tasks=("second", "third")).split(TEN, seed=0)
    assert joined.shards[0].classes == (4, 5, 6, 7, 8, 9)
    own = Subtasks(devices=1, choice="named", tasks=("class1+class8",)).split(TEN, seed=0)
    assert own.shards[0].classes == (1, 8)


def test_largest_shards_are_cut_to_the_size_asked():
    partition = Subtasks(devices=2, choice="named", max_train=12, max_test=8).split(TEN, seed=0)
    assert all(len(shard.train) == 12 and len(shard.test) == 8 for shard in partition.shards)


def test_classes_without_test_images_are_passed_over():
    data = labelled([10, 10, 10], [5, 0, 5], {"all": (0, 1, 2)})
    partition = Subtasks(devices=2, classes_per_device=2).split(data, seed=0)
    assert all(shard.classes == (0, 2) for shard in partition.shards)


@pytest.mark.parametrize(
    ("partitioner", "data", "sentence"),
    [
        (Subtasks(devices=500), TEN, "more devices"),
        (Iid(devices=500), TEN, "more devices"),
        (Subtasks(devices=3, tasks=("fourth",)), TEN, "no sub-task and no class 'fourth'"),
        (Subtasks(devices=3), labelled([9] * 3, [9] * 3, {"none": ()}), "empty class list"),
        (Subtasks(devices=3), labelled([9] * 9, [9] * 9), "choice=random"),
        (Subtasks(devices=1, tasks=("all",)), labelled([9, 0], [9, 9], {"all": (0, 1)}), "No private image"),
        (Subtasks(devices=1, choice="random", classes_per_device=11), TEN, "cannot get 11 classes"),
        (Dirichlet(devices=50, alpha=0.01), TEN, "DirichletPartitioner cannot deal"),
    ],
)
def test_what_cannot_be_dealt_is_refused_with_a_sentence(partitioner, data, sentence):
    with pytest.raises(DataError, match=sentence):
        partitioner.split(data, seed=0)


@pytest.mark.parametrize(
    ("option", "values", "sentence"),
    [
        (Iid, {"devices": 0}, "at least 1"),
        (Iid, {"pool_share": 0.9, "validation_share": 0.1}, "leave nothing private"),
        (Iid, {"pool_share": 0.0}, "between 0 and 1"),
        (Dirichlet, {"alpha": 0.0}, "alpha must be above 0"),
        (Subtasks, {"choice": "all"}, "choice must be one of"),
    ],
)
def test_wrong_options_are_refused_with_a_sentence(option, values, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build(option, values)


def test_a_partition_tells_which_test_images_are_shared():
    partition = Iid(devices=3, max_test=40).split(labelled([60] * 2, [20] * 2), seed=0)
    tests = [set(shard.test.tolist()) for shard in partition.shards]
    others = [set().union(*(other for place, other in enumerate(tests) if place != device)) for device in range(3)]
    shared = [partition.shared_test(device) for device in range(3)]
    assert shared == [len(own & other) for own, other in zip(tests, others, strict=True)]
    assert min(shared) > 0
    assert Iid(devices=1).split(TEN, seed=0).shared_test(0) == 0
    saw("test images that several devices draw", "the row says how many: `shared_test_images`")


def test_devices_may_test_on_the_images_that_they_report_and_nothing_else_moves():
    apart, flattered = (Iid(devices=3, test=test).split(TEN, seed=0) for test in ("test_images", "train_images"))
    assert apart.fingerprint != flattered.fingerprint
    for one, other in zip(apart.shards, flattered.shards, strict=True):
        np.testing.assert_array_equal(one.train, other.train)
        np.testing.assert_array_equal(other.test, other.train)
        assert one.tested(TEN) is TEN.test
        assert other.tested(TEN) is TEN.train
    assert flattered.shared_test(0) == 0, "train indices are disjoint"
    with pytest.raises(ConfigError, match="test is 'train'; choose one of test_images, train_images"):
        build(Iid, {"test": "train"})
