"""How the server chooses a proxy set out of the public pool: the kind `selector`."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from scipy.special import logsumexp

from fedprune.core.errors import ConfigError
from fedprune.core.random import stream
from fedprune.data.images import IntArray
from fedprune.mixture.density import log_density
from fedprune.mixture.mixture import FeatureSpace, FloatArray, Mixture


@dataclass(frozen=True)
class PrivateView:
    """What only a simulation may show to a selector: the bounds that a real server cannot reach.

    Attributes:
        indices: (m,) the device's training images, indices into `Dataset.train`.
        labels: (m,) their labels.
        points: (m, d) their projected features.
        pool_labels: (n,) labels of the pool, in the order of `SelectionTask.points`.
    """

    indices: IntArray
    labels: IntArray
    points: FloatArray
    pool_labels: IntArray


@dataclass(frozen=True)
class SelectionTask:
    """One device's selection, the same for every selector.

    Attributes:
        points: (n, d) projected features of the pool.
        indices: (n,) the pool's images as indices into `Dataset.train`.
        mixture: What the device reported.
        space: The public space.
        size: Images wanted.
        seed: Of this device's streams.
        private: In simulation, for the selectors that serve as bounds.
        public_density: (n,) log p_pool(x) of every pool image, where it is known: it is the same for all devices.
    """

    points: FloatArray
    indices: IntArray
    mixture: Mixture
    space: FeatureSpace
    size: int
    seed: int
    private: PrivateView | None = None
    public_density: FloatArray | None = None

    def log_ratio(self) -> FloatArray:
        """Return log p_device(x) - log p_pool(x) of every pool image (n,)."""
        return self._log_ratio

    @cached_property
    def _log_ratio(self) -> FloatArray:
        known = self.public_density
        public = log_density(self.space.anchors, self.points) if known is None else known
        return log_density(self.mixture, self.points) - public

    def generator(self) -> np.random.Generator:
        """Return the stream of this selection."""
        return stream(self.seed, "proxy")


@dataclass(frozen=True)
class ProxySet:
    """The chosen images, no image twice, in rising order.

    Attributes:
        indices: (m,) indices into `Dataset.train`.
        diagnostics: Numbers for the record; `effective_sample_size` of the importance weights over the pool and
            `shortfall`, the images that were wanted and not there, are always among them.
    """

    indices: IntArray
    diagnostics: Mapping[str, float]


@dataclass(frozen=True)
class Selector(ABC):
    """An option of kind `selector`: one file in this room.

    One that serves as a bound sets `reads_private`: only a simulation can show it a device's own images; and
    `reads_labels` where it asks those of the pool.
    """

    reads_private: ClassVar[bool] = False
    reads_labels: ClassVar[bool] = False  # of the pool's images

    def select(self, task: SelectionTask) -> ProxySet:
        """Choose `task.size` images, fewer where the pool has fewer.

        The order in which the pool is given changes nothing.

        Raises:
            ConfigError: the selector needs a private view that is not there.
        """
        order = np.argsort(task.indices, kind="stable")
        task = dataclasses.replace(
            task,
            points=task.points[order],
            indices=task.indices[order],
            public_density=None if task.public_density is None else task.public_density[order],
            private=task.private and dataclasses.replace(task.private, pool_labels=task.private.pool_labels[order]),
        )
        chosen, diagnostics = self.choose(task, min(task.size, len(task.indices)))
        common = {
            "effective_sample_size": effective_sample_size(task.log_ratio()),
            "shortfall": float(task.size - len(chosen)),
        }
        return ProxySet(np.sort(chosen), common | dict(diagnostics))

    @abstractmethod
    def choose(self, task: SelectionTask, size: int) -> tuple[IntArray, Mapping[str, float]]:
        """Choose `size` images of a pool in rising order of index; returns indices into `Dataset.train`."""


def effective_sample_size(log_weights: FloatArray) -> float:
    """Return (sum w)^2 / sum w^2 (Kish): how many equally weighted images the weights amount to."""
    return float(np.exp(2 * logsumexp(log_weights) - logsumexp(2 * log_weights)))


def highest(scores: FloatArray, size: int) -> IntArray:
    """Return the positions of the `size` highest scores; ties go to the earlier position."""
    return np.asarray(np.argsort(-scores, kind="stable")[:size])


def fill_quotas(scores: FloatArray, shares: IntArray, spare: FloatArray) -> tuple[IntArray, int]:
    """Let every component take its best free images, the largest share first.

    Args:
        scores: (n, K), higher is better.
        shares: (K,) places of each component.
        spare: (n,) score by which places are filled that no component could fill.

    Returns:
        Positions, no position twice, and how many places `spare` had to fill. A score of -inf is never taken for a
        component.
    """
    free = np.ones(len(scores), dtype=bool)
    for k in np.argsort(-shares, kind="stable"):
        open_scores = np.where(free, scores[:, k], -np.inf)
        taken = highest(open_scores, int(shares[k]))
        free[taken[open_scores[taken] > -np.inf]] = False
    missing = min(int(shares.sum()), len(scores)) - int((~free).sum())
    free[highest(np.where(free, spare, -np.inf), missing)] = False
    return np.flatnonzero(~free), missing


def require_private(task: SelectionTask, selector: str) -> PrivateView:
    """Return the private view.

    Raises:
        ConfigError: there is none.
    """
    if task.private is None:
        raise ConfigError(
            f"The selector {selector!r} reads private data, which only a simulation can show to it, and only where its "
            "class says reads_private = True."
        )
    return task.private
