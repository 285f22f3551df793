"""Cohorts of devices whose proxy sets, or mixtures, are alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans as Clustering
from threadpoolctl import threadpool_limits

from fedprune.cohorts.cohorts import MODEL, SHARED, Cohort, Cohorts, GroupingTask, meets, size_of
from fedprune.core.errors import ConfigError
from fedprune.core.random import stream_seed
from fedprune.core.ranges import at_least
from fedprune.core.registry import register
from fedprune.devices.budget import Budget
from fedprune.mixture.density import responsibilities
from fedprune.mixture.mixture import FloatArray

BY = ("proxy_classes", "mixture")


@register("cohorts", "kmeans")
@dataclass(frozen=True)
class KMeans(Cohorts):
    """k-means over the square roots of shares, the classes' in a device's proxy set, among devices of one budget.

    Euclidean distance between square roots is Hellinger's distance between shares.

    Attributes:
        count: Cohorts in all, dealt to the budgets by their numbers of devices, at least one each; None: by `fraction`.
        fraction: Cohorts in all, as a fraction of the devices.
        tolerance: Points of accuracy, on public validation images, that fewer models may cost. Their number is halved
            as long as that costs no more, in place of `fraction`.
        by: Whose shares are compared: `proxy_classes`, those of each class in the proxy set, for which the pool must
            have labels, or `mixture`, those of each public anchor in the mixture, for which it need not.
        minimum: Reports that have to stand behind a model. A cohort of fewer joins the nearest one whose budget it can
            afford, of its own budget where there is one; a device that can afford none gets no model.
        levels: Levels to which budgets are rounded down, each with the same number of devices; None: only devices of
            equal budgets share.
        share: What a cohort shares: its `model`; its `cut`, recovered for each device on its own proxy set; or its
            `proxy` set, from which each device's model is derived by itself.
    """

    count: int | None = None
    fraction: float = 0.3
    tolerance: float | None = None
    by: str = "proxy_classes"
    minimum: int = 1
    levels: int | None = None
    share: str = MODEL

    def __post_init__(self) -> None:
        at_least(self, 1, "count", "minimum", "levels")
        at_least(self, 0, "tolerance")
        if self.count is not None and self.tolerance is not None:
            raise ValueError("count says how many cohorts there are, and tolerance would choose it; set one of them.")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction is {self.fraction}; it must be above 0 and at most 1.")
        for name, known in (("by", BY), ("share", SHARED)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}.")

    @property
    def reads_labels(self) -> bool:
        """Where classes of proxy sets are compared, or validation images answered."""
        return self.by == "proxy_classes" or self.tolerance is not None

    def form(self, task: GroupingTask) -> list[Cohort]:
        """Cluster the devices of each budget by themselves.

        Raises:
            ConfigError: a tolerance is set, and nobody is there to judge.
        """
        roots = {device: np.sqrt(shares) for device, shares in self._shares(task).items()}
        if self.tolerance is not None:
            return self._fewest(task, roots, self.tolerance)
        return self._formed(task, roots, self.count or round(self.fraction * len(roots)))

    def _formed(self, task: GroupingTask, roots: Mapping[int, FloatArray], wanted: int) -> list[Cohort]:
        levels = _levels(task.budgets, self.levels)
        counts = shared_out(wanted, [len(devices) for devices in levels])
        seed = stream_seed(task.seed, "cohorts")
        groups = [
            group
            for devices, count in zip(levels, counts, strict=True)
            for group in _clusters(devices, roots, count, seed)
        ]
        cohorts = _joined([Cohort.of(group, task.budgets) for group in groups], self.minimum, task.budgets, roots)
        return sorted(cohorts, key=lambda cohort: cohort.number)

    def _fewest(self, task: GroupingTask, roots: Mapping[int, FloatArray], tolerance: float) -> list[Cohort]:
        """Halve the number of cohorts, beginning with that of the devices, as long as it costs no more than allowed."""
        if task.judge is None:
            raise ConfigError("cohorts.tolerance needs a server that judges models. Set cohorts.fraction instead.")
        found = self._formed(task, roots, len(roots))
        least = task.judge(found) - tolerance
        while len(fewer := self._formed(task, roots, len(found) // 2)) < len(found) and task.judge(fewer) >= least:
            found = fewer
        return found

    def _shares(self, task: GroupingTask) -> Mapping[int, FloatArray]:
        """Return by device shares that sum to 1."""
        if self.by == "mixture":
            mixtures = task.mixtures.items()
            return {device: mix.weights @ responsibilities(task.space.anchors, mix.means) for device, mix in mixtures}
        classes = int(task.labels.max()) + 1
        counts = {device: np.bincount(task.labels[proxy], minlength=classes) for device, proxy in task.proxies.items()}
        return {device: count / count.sum() for device, count in counts.items()}


def _levels(budgets: Mapping[int, Budget], levels: int | None) -> list[list[int]]:
    """Part devices by budget, in rising order."""
    order = sorted(budgets, key=lambda device: (size_of(budgets[device]), device))
    if levels is not None:
        return [part.tolist() for part in np.array_split(order, min(levels, len(order)))]
    parts: dict[Budget, list[int]] = {}
    for device in order:
        parts.setdefault(budgets[device], []).append(device)
    return list(parts.values())


def shared_out(count: int, sizes: Sequence[int]) -> list[int]:
    """Deal `count` cohorts to levels of so many devices: one each, then one after the other to the most crowded."""
    given = [1] * len(sizes)
    for _ in range(min(count, sum(sizes)) - len(sizes)):
        given[max(range(len(sizes)), key=lambda level: sizes[level] / given[level])] += 1
    return given


def _clusters(devices: Sequence[int], roots: Mapping[int, FloatArray], count: int, seed: int) -> list[list[int]]:
    """Part devices into at most `count` clusters; fewer where fewer of them differ."""
    if count >= len(devices):
        return [[device] for device in devices]
    points = np.array([roots[device] for device in devices])
    clustering = Clustering(min(count, len(np.unique(points, axis=0))), n_init=10, random_state=seed % 2**32)
    with threadpool_limits(1):  # results do not depend on the machine's cores
        labels = clustering.fit(points).labels_.tolist()
    parts: dict[int, list[int]] = {}
    for device, label in zip(devices, labels, strict=True):
        parts.setdefault(label, []).append(device)
    return list(parts.values())


def _joined(
    cohorts: list[Cohort], minimum: int, budgets: Mapping[int, Budget], roots: Mapping[int, FloatArray]
) -> list[Cohort]:
    """Let cohorts that are too small join others, those with the largest budget first.

    Where one can join none, each of its members joins by itself what it can afford, or is left out.
    """
    alone: list[int] = []
    while small := [cohort for cohort in cohorts if len(cohort.members) < minimum]:
        one = max(small, key=lambda cohort: (size_of(cohort.budget), -len(cohort.members), -cohort.number))
        cohorts = [cohort for cohort in cohorts if cohort is not one]
        other = _nearest(one, cohorts, roots)
        if other is None:
            alone.extend(one.members)
        else:
            cohorts = [cohort for cohort in cohorts if cohort is not other]
            cohorts.append(Cohort.of((*one.members, *other.members), budgets))
    joined = {device: _nearest(Cohort.of([device], budgets), cohorts, roots) for device in sorted(alone)}
    return [
        Cohort.of((*cohort.members, *(device for device, other in joined.items() if other is cohort)), budgets)
        for cohort in cohorts
    ]


def _nearest(one: Cohort, cohorts: Sequence[Cohort], roots: Mapping[int, FloatArray]) -> Cohort | None:
    """Return the cohort nearest to `one` of those with the largest budget that meets its own; None where none does."""
    fitting = [cohort for cohort in cohorts if meets(cohort.budget, one.budget)]
    return min(fitting, key=lambda cohort: _farness(cohort, one, roots), default=None)


def _farness(cohort: Cohort, one: Cohort, roots: Mapping[int, FloatArray]) -> tuple[tuple[float, ...], float, int]:
    """Return what cohorts are ordered by that `one` might join: budget, distance of the centres, number."""
    centres = [np.mean([roots[device] for device in each.members], axis=0) for each in (cohort, one)]
    smaller = tuple(-limit for limit in size_of(cohort.budget))
    return smaller, float(np.linalg.norm(centres[0] - centres[1])), cohort.number
