"""A run as its pictures show it: images, proxy sets, edge models. Simulation only."""

from functools import lru_cache

import numpy as np
from torch import Tensor

from fedprune.attacks.retrieval import retrieve
from fedprune.core.random import stream
from fedprune.data.images import ImageSet, IntArray, Pixels
from fedprune.experiment.reopen import Replay
from fedprune.protocol.private import PrivateShard
from fedprune.report.names import in_prose
from fedprune.vit.base import Base
from fedprune.vit.surgery import EdgeModel


class Scene(Replay):
    """What a run's figures and its report page show beyond numbers; every part is computed when first asked for."""

    @property
    def base(self) -> Base:
        """The base of all edge models."""
        return self.simulation.public.base

    @property
    def pool(self) -> ImageSet:
        """The public pool."""
        return self.simulation.public.images

    @property
    def devices(self) -> list[int]:
        """The devices' numbers."""
        return self.simulation.devices

    def shard(self, device: int) -> PrivateShard:
        """Return what a device holds."""
        return self.simulation.shard(device)

    def nearest_public(self, device: int, count: int) -> IntArray:
        """Return the place in the pool of the image nearest to each mean of a device's mixture, the heaviest first."""
        mixture = self.report(device).mixture
        heaviest = np.argsort(-mixture.weights, kind="stable")
        return retrieve(mixture.means[heaviest], self.simulation.public.points)[:count]

    @lru_cache(maxsize=64)  # noqa: B019 (a scene lives as long as its page)
    def edge(self, device: int) -> EdgeModel:
        """Return a device's edge model, derived once.

        Raises:
            BudgetError: its budget has no legal model.
        """
        return super().edge(device)

    def inputs(self, pixels: Pixels) -> Tensor:
        """Return images as the base takes them."""
        return self.base.preprocess(pixels)

    def some(self, indices: IntArray, count: int, *purpose: str | int) -> IntArray:
        """Draw a few of `indices` for a picture, always the same."""
        random = stream(self.config.seed, "picture", *purpose)
        return np.sort(random.choice(indices, min(count, len(indices)), replace=False))

    def tasks(self) -> list[str]:
        """Return a readable name of each device's task."""
        rows = self.simulation.true_rows()
        return [f"{row.device}: {in_prose(row.task) or f'{row.classes} classes'}" for row in rows]
