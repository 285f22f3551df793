"""What the server does: check reports, choose proxy sets, derive one edge model a device."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedprune.core.random import stream, stream_seed
from fedprune.data.images import IntArray
from fedprune.evidence.evidence import Evidence
from fedprune.mixture.mixture import FeatureSpace
from fedprune.mixture.report import Expected, Report, check_report
from fedprune.mixture.space import fit_space
from fedprune.protocol.setup import World
from fedprune.protocol.split import Splitting, split_budget
from fedprune.proxy.selector import PrivateView, ProxySet, SelectionTask, Selector
from fedprune.pruning.method import Method, PruningTask
from fedprune.recovery.recovery import Recovery
from fedprune.tokens.none import NoReduction
from fedprune.tokens.reducer import Reducer
from fedprune.tokens.training import Public, Trained, trained
from fedprune.vit.surgery import EdgeModel


@dataclass(frozen=True)
class ServerOptions:
    """What only the server decides.

    Attributes:
        proxy_size: Images in a proxy set.
        splitting: How a budget is split between weights and tokens, where tokens are reduced.
        oracle: Whether a simulation also derives each model from the device's own images, as an upper mark.
    """

    selector: Selector
    method: Method
    recovery: Recovery
    tokens: Reducer
    splitting: Splitting
    proxy_size: int
    oracle: bool


@dataclass
class Server:
    """The server's state in one run: the accepted reports and the proxy sets that follow from them.

    Each device's proxy set and edge model follow from its own report alone, so a wrong report hurts nobody else.
    """

    world: World
    options: ServerOptions
    reports: dict[int, Report] = field(default_factory=dict)

    @cached_property
    def space(self) -> FeatureSpace:
        """The public projection, fitted on the pool alone; the devices get it with the request for a report."""
        setup = self.world.setup
        return fit_space(
            self.world.train_features(self.world.partition.pool),
            dimensions=setup.features.dimensions,
            whiten=setup.features.whiten,
            anchors=setup.features.anchors,
            seed=stream_seed(setup.partition.pool_seed, "space"),
        )

    @cached_property
    def pool_points(self) -> NDArray[np.float64]:
        """The pool in the space of the reports (images, dimensions)."""
        return self.space.project(self.world.train_features(self.world.partition.pool))

    @cached_property
    def evidence(self) -> Evidence:
        """The score bank over the server's images."""
        world = self.world
        return Evidence(
            self.trained.base,
            world.dataset.train,
            world.cache,
            images_id=world.dataset.fingerprint,
            precision=world.setup.precision,
            device=world.setup.compute,
        )

    def receive(self, device: int, blob: bytes) -> Report:
        """Check an uploaded report and keep it.

        Raises:
            ReportRejected: with the reason; nothing is kept.
        """
        setup, class_count = self.world.setup, len(self.world.dataset.classes)
        most = setup.mechanism.most_components(setup.mixture, self.space, class_count)
        expected = Expected.of(self.space, device, class_count if setup.share_classes else None, most)
        report = check_report(blob, expected)
        self.reports[device] = report
        return report

    def choose_proxy(self, device: int) -> ProxySet:
        """Choose the proxy set for an accepted report."""
        pool = self.world.partition.pool
        task = SelectionTask(
            points=self.pool_points,
            indices=pool,
            mixture=self.reports[device].mixture,
            space=self.space,
            size=self.options.proxy_size,
            seed=stream_seed(self.world.setup.seed, "proxy", device),
            private=self._private_view(device),
        )
        return self.options.selector.select(task)

    def oracle_proxy(self, device: int) -> IntArray:
        """Return as many of the device's own training images as a proxy set has: possible in a simulation only."""
        own = self.world.shard(device).train
        order = stream(self.world.setup.seed, "oracle", device).permutation(len(own))
        return np.sort(own[order[: self.options.proxy_size]])

    def prepare(self, proxies: Sequence[IntArray]) -> None:
        """Compute the evidence that the method reads of all these proxy sets, in one pass."""
        self.options.method.prepare(self.evidence, proxies, self.world.partition.pool)

    def derive(self, device: int, proxy: IntArray) -> EdgeModel:
        """Derive and recover the edge model of `device` from its proxy set, a token reducer inside where asked.

        Raises:
            BudgetError: no legal model is small enough for the device's budget.
        """
        report, world = self.reports[device], self.world
        task = PruningTask(
            base=self.trained.base,
            images=world.dataset.train,
            proxy=proxy,
            pool=world.partition.pool,
            evidence=self.evidence,
            budget=report.budget,
            classes=report.classes,
            seed=stream_seed(world.setup.seed, "derive", device),
        )
        options = self.options
        if isinstance(options.tokens, NoReduction):
            return options.recovery.recover(options.method.derive(task), task)
        split = split_budget(
            task,
            options.method,
            options.tokens,
            recovery=options.recovery,
            parameters=self.trained.parameters,
            teacher=world.base,
            splitting=options.splitting,
            precision=world.setup.precision,
        )
        return split.edge

    @cached_property
    def trained(self) -> Trained:
        """What edge models are cut from, and a token reducer's parameters: trained once on the pool, shared by all."""
        world = self.world
        public = Public(world.dataset.train, world.partition.pool, world.dataset.fingerprint)
        return trained(self.options.tokens, world.base, public, world.cache)

    def _private_view(self, device: int) -> PrivateView:
        # Only the selectors that serve as bounds in a simulation read it.
        shard, labels = self.world.shard(device), self.world.dataset.train.labels
        return PrivateView(
            indices=shard.train,
            labels=labels[shard.train],
            points=self.space.project(self.world.train_features(shard.train)),
            pool_labels=labels[self.world.partition.pool],
        )
