"""Devices that share what is derived for them: the kind `cohorts`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import zip_longest

import numpy as np

from fedprune.core.random import stream
from fedprune.data.images import IntArray
from fedprune.devices.budget import Budget
from fedprune.mixture.mixture import FeatureSpace, Mixture

MODEL = "model"
CUT = "cut"
PROXY = "proxy"
SHARED = (MODEL, CUT, PROXY)


@dataclass(frozen=True)
class Cohort:
    """Devices that share.

    Attributes:
        members: Their numbers, in rising order.
        budget: What a model must not exceed to suit them all.
    """

    members: tuple[int, ...]
    budget: Budget

    @classmethod
    def of(cls, members: Iterable[int], budgets: Mapping[int, Budget]) -> "Cohort":
        """Make a cohort of `members`, whose budgets are among `budgets`."""
        members = tuple(sorted(members))
        return cls(members, strictest([budgets[device] for device in members]))

    @property
    def number(self) -> int:
        """The number of its first member."""
        return self.members[0]


@dataclass(frozen=True)
class GroupingTask:
    """All that a server knows of the devices whose reports it has accepted, by their numbers.

    Attributes:
        budgets: What each can afford.
        mixtures: What each reported.
        proxies: Each one's own proxy set, positions in `labels`.
        labels: The classes of the server's public images, told by whoever labelled them.
        space: The public space.
        seed: Of the run's streams.
        judge: Says of cohorts how often their models are right, in percent of public validation images such as a few of
            the devices would choose; derives those models.
    """

    budgets: Mapping[int, Budget]
    mixtures: Mapping[int, Mixture]
    proxies: Mapping[int, IntArray]
    labels: IntArray
    space: FeatureSpace
    seed: int
    judge: Callable[[Sequence[Cohort]], float] | None = None

    @property
    def devices(self) -> list[int]:
        """The devices in rising order."""
        return sorted(self.budgets)


@dataclass(frozen=True)
class Cohorts(ABC):
    """An option of kind `cohorts`: one file in this room."""

    @property
    def share(self) -> str:
        """What a cohort shares: its `model`, its `cut` (recoveries are each device's own), or its `proxy` set."""
        return MODEL

    @property
    def reads_labels(self) -> bool:
        """Whether it reads labels of public images; one that does not says so, and tables tell."""
        return True

    @abstractmethod
    def form(self, task: GroupingTask) -> list[Cohort]:
        """Put every device into one cohort whose model it can afford, or leave it out where there is none.

        Nothing depends on the order in which reports came.

        Returns:
            Cohorts in the order of their numbers.
        """


def strictest(budgets: Collection[Budget]) -> Budget:
    """Return the largest budget that exceeds none of `budgets`."""
    limits = zip(*map(astuple, budgets), strict=True)
    names = [limit.name for limit in fields(Budget)]
    known = [[value for value in values if value is not None] for values in limits]
    return Budget(**{name: min(values, default=None) for name, values in zip(names, known, strict=True)})


def meets(budget: Budget, other: Budget) -> bool:
    """Say whether whatever keeps `budget` keeps `other` too."""
    return strictest([budget, other]) == budget


def size_of(budget: Budget) -> tuple[float, ...]:
    """Return limits that can be ordered, none being the largest."""
    return tuple(np.inf if limit is None else limit for limit in astuple(budget))


def equal_parts(sets: Mapping[int, IntArray], seed: int) -> IntArray:
    """Return as many images as the largest of some sets has: equal parts of each, no image twice, in rising order.

    Args:
        sets: By device, images in rising order.
        seed: Of the streams, one a device, by which images of a set are drawn.
    """
    drawn: list[Sequence[int]] = []
    for device, images in sorted(sets.items()):
        drawn.append(stream(seed, "cohort", device).permutation(images).tolist())
    in_turn = [image for turn in zip_longest(*drawn) for image in turn if image is not None]
    size = max(map(len, drawn))
    return np.sort(np.array(list(dict.fromkeys(in_turn))[:size], dtype=np.int64))
