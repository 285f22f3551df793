"""A run seen from inside, rebuilt from its configuration: images, proxy sets, edge models. Simulation only."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from torch import Tensor

from fedprune.attacks.retrieval import retrieve
from fedprune.core.random import stream
from fedprune.data.images import IntArray
from fedprune.experiment.config import RunConfig
from fedprune.mixture.report import Report
from fedprune.protocol.device import make_report
from fedprune.protocol.server import Server
from fedprune.protocol.setup import World, open_world
from fedprune.proxy.selector import ProxySet
from fedprune.vit.surgery import EdgeModel


@dataclass(frozen=True, eq=False)  # each scene caches its own
class Scene:
    """What a run's figures and its report page show beyond numbers; every part is computed when first asked for.

    Attributes:
        config: The run's configuration.
    """

    config: RunConfig

    @cached_property
    def world(self) -> World:
        """The run's world."""
        return open_world(self.config.setup())

    @cached_property
    def server(self) -> Server:
        """The run's server, without reports."""
        return Server(self.world, self.config.server_options())

    def report(self, device: int) -> Report:
        """Return the report of a device, made again as in the run."""
        if device not in self.server.reports:
            self.server.receive(device, make_report(self.world, device, self.server.space).report)
        return self.server.reports[device]

    @lru_cache(maxsize=64)  # noqa: B019 (a scene lives as long as its page)
    def proxy(self, device: int) -> ProxySet:
        """Return the proxy set of a device."""
        self.report(device)
        return self.server.choose_proxy(device)

    def nearest_public(self, device: int) -> IntArray:
        """Return the pool image nearest to each mean of a device's mixture, the heaviest component first."""
        mixture = self.report(device).mixture
        heaviest = np.argsort(-mixture.weights, kind="stable")
        return self.world.partition.pool[retrieve(mixture.means[heaviest], self.server.pool_points)]

    @lru_cache(maxsize=64)  # noqa: B019
    def edge(self, device: int) -> EdgeModel:
        """Return the edge model of a device, derived again as in the run.

        Raises:
            BudgetError: its budget has no legal model.
        """
        proxy = self.proxy(device)
        return self.server.derive(device, proxy.indices)

    def pixels(self, indices: IntArray, split: str = "train") -> np.ndarray:
        """Return images as (n, height, width, 3) bytes."""
        images = self.world.dataset.test if split == "test" else self.world.dataset.train
        return images.read(indices)

    def inputs(self, indices: IntArray, split: str = "train") -> Tensor:
        """Return images as the base takes them."""
        return self.world.base.preprocess(self.pixels(indices, split))

    def some(self, indices: IntArray, count: int, *purpose: str | int) -> IntArray:
        """Draw a few of `indices` for a picture, always the same."""
        random = stream(self.config.seed, "picture", *purpose)
        return np.sort(random.choice(indices, min(count, len(indices)), replace=False))

    def tasks(self) -> list[str]:
        """Return a readable name of each device's task."""
        return [
            f"{shard.device}: {shard.task or f'{len(shard.classes)} classes'}" for shard in self.world.partition.shards
        ]
