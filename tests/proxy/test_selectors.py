import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.data.partition import apportion
from fedprune.mixture.mixture import Mixture
from fedprune.proxy.gumbel_ratio import GumbelRatio, find_temperature
from fedprune.proxy.herding import Herding
from fedprune.proxy.label_histogram import LabelHistogram
from fedprune.proxy.log_ratio import LogRatio
from fedprune.proxy.oracle import Oracle
from fedprune.proxy.quality import label_total_variation, mmd
from fedprune.proxy.quota_density import QuotaDensity
from fedprune.proxy.quota_ratio import QuotaRatio
from fedprune.proxy.random import Random
from fedprune.proxy.selector import (
    SelectionTask,
    Selector,
    effective_sample_size,
    fill_quotas,
)
from fedprune.proxy.top_density import TopDensity
from fedprune.proxy.transport import OptimalTransport
from fedprune.proxy.votes import VotesSelector
from fedprune.testing.selectors import selection_task

PUBLIC = (
    QuotaRatio(),
    QuotaDensity(),
    LogRatio(),
    TopDensity(),
    GumbelRatio(),
    Herding(samples=200),
    VotesSelector(),
    OptimalTransport(),
    Random(),
)
ALL = (*PUBLIC, LabelHistogram(), Oracle())


@pytest.fixture(scope="module")
def task() -> SelectionTask:
    return selection_task()


def labels_of(task: SelectionTask, chosen: np.ndarray) -> np.ndarray:
    assert task.private is not None
    lookup = dict(zip(task.indices.tolist(), task.private.pool_labels.tolist(), strict=True))
    lookup |= dict(zip(task.private.indices.tolist(), task.private.labels.tolist(), strict=True))
    return np.array([lookup[index] for index in chosen.tolist()])


@pytest.mark.parametrize("selector", PUBLIC[:-1], ids=lambda selector: selector.name)
def test_informed_selectors_beat_random_by_far(task: SelectionTask, selector: Selector) -> None:
    assert task.private is not None
    informed = labels_of(task, selector.select(task).indices)
    blind = labels_of(task, Random().select(task).indices)
    assert label_total_variation(blind, task.private.labels) > 0.6
    assert label_total_variation(informed, task.private.labels) < 0.45


def test_the_default_keeps_the_mix_where_density_picks_the_tightest_component(task: SelectionTask) -> None:
    generator = np.random.default_rng(2)
    points = np.concatenate([0.2 * generator.standard_normal((500, 6)) + 1, generator.standard_normal((500, 6)) - 1])
    mixture = Mixture(
        np.full(2, 0.5), np.array([np.full(6, 1.0), np.full(6, -1.0)]), np.array([0.04, 1.0]), "spherical"
    )
    two = dataclasses.replace(task, points=points, indices=np.arange(1000), mixture=mixture, private=None)
    assert (TopDensity().select(two).indices < 500).all()
    assert abs((QuotaRatio().select(two).indices < 500).sum() - 30) <= 3


def test_the_default_and_class_counts_match_the_label_mix(task: SelectionTask) -> None:
    assert task.private is not None
    for selector, most in ((QuotaRatio(), 0.1), (LabelHistogram(), 1e-12)):
        chosen = labels_of(task, selector.select(task).indices)
        assert label_total_variation(chosen, task.private.labels) < most


def test_herding_has_a_lower_mmd_than_random(task: SelectionTask) -> None:
    assert task.private is not None
    position = {index: i for i, index in enumerate(task.indices.tolist())}

    def distance(selector: Selector) -> float:
        chosen = [position[index] for index in selector.select(task).indices.tolist()]
        return mmd(task.points[chosen], task.private.points)  # type: ignore[union-attr]

    assert distance(Herding(samples=200)) < 0.1 * distance(Random())


def test_a_full_cell_leaves_places_to_others(task: SelectionTask) -> None:
    """All reported mass in one cell that has fewer pool images than are wanted."""
    cells = task.space.centroids
    one = Mixture(np.ones(1), cells.means[:1], cells.covariances[:1], "spherical")
    proxy = VotesSelector().select(dataclasses.replace(task, mixture=one, private=None))
    inside = round(cells.weights[0] * 1000)
    assert inside < 60
    assert proxy.diagnostics["quota_shortfall"] == 60 - inside
    assert len(proxy.indices) == 60


def test_only_the_oracle_chooses_from_the_device(task: SelectionTask) -> None:
    assert task.private is not None
    for selector in ALL:
        source = task.private.indices if isinstance(selector, Oracle) else task.indices
        assert np.isin(selector.select(task).indices, source).all(), selector.name  # type: ignore[attr-defined]


def test_oracle_of_a_small_device_gives_what_it_has(task: SelectionTask) -> None:
    proxy = Oracle().select(dataclasses.replace(task, size=500))
    assert task.private is not None
    np.testing.assert_array_equal(proxy.indices, task.private.indices)
    assert proxy.diagnostics["shortfall"] == 380


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=20), st.integers(0, 500))
def test_quotas_sum_to_the_size_and_stay_within_one_place(weights: list[float], size: int) -> None:
    shares = apportion(np.array(weights), size)
    assert shares.sum() == size
    assert (np.abs(shares - np.array(weights) / sum(weights) * size) < 1 + 1e-9).all()


def test_fill_quotas_takes_the_best_free_and_reports_what_is_missing() -> None:
    scores = np.array([[9.0, 8.0], [8.0, 9.0], [7.0, -np.inf], [-np.inf, -np.inf], [-np.inf, -np.inf]])
    positions, missing = fill_quotas(scores, np.array([3, 1]), np.array([0.0, 0, 0, 1, 2]))
    np.testing.assert_array_equal(positions, [0, 1, 2, 4])
    assert missing == 1


@given(st.integers(2, 200))
def test_effective_sample_size_of_equal_and_of_one_weight(count: int) -> None:
    assert effective_sample_size(np.full(count, 700.0)) == pytest.approx(count)
    assert effective_sample_size(np.array([0.0] + [-800.0] * (count - 1))) == pytest.approx(1.0)


@given(st.integers(0, 1000), st.floats(1, 90), st.floats(0.1, 50))
@settings(max_examples=50, deadline=None)
def test_temperature_reaches_the_target(seed: int, target: float, scale: float) -> None:
    weights = scale * np.random.default_rng(seed).standard_normal(100)
    temperature = find_temperature(weights, target)
    reached = effective_sample_size(weights / temperature)
    assert reached >= target * (1 - 1e-9)
    if temperature > 1:
        assert reached == pytest.approx(target, rel=1e-6)


def test_refused_options() -> None:
    for build in (
        lambda: Herding(candidates=0),
        lambda: GumbelRatio(target=-1),
        lambda: OptimalTransport(candidates=0),
    ):
        with pytest.raises(ValueError, match="is"):
            build()
