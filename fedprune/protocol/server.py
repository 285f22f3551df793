"""What the server does: check reports, choose proxy sets, derive one edge model a device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any

from fedprune.core.random import stream_seed
from fedprune.core.registry import build, from_dict, to_dict
from fedprune.data.images import ImageSet, IntArray
from fedprune.devices.budget import Budget
from fedprune.evidence.evidence import Evidence
from fedprune.mixture.report import Report, check_report
from fedprune.protocol.public import PublicWorld
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
        splitting: How a budget is split between weights and tokens, where tokens are reduced, and what tells how long
            a model takes, where latency is limited.
        oracle: Whether a simulation also derives each model from the device's own images, as an upper mark.
    """

    selector: Selector
    method: Method
    recovery: Recovery
    tokens: Reducer
    splitting: Splitting
    proxy_size: int
    oracle: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, options by name."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: to_dict(value) if is_dataclass(value) else value for name, value in plain.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ServerOptions":
        """Rebuild options from what `to_dict` gave.

        Raises:
            ConfigError: nobody knows an option of that name.
        """
        options = {kind: from_dict(kind, values[kind]) for kind in ("selector", "method", "recovery", "tokens")}
        return cls(**{**values, **options, "splitting": build(Splitting, values["splitting"])})


@dataclass
class Server:
    """The server's state in one run: the accepted reports and the proxy sets that follow from them.

    Each device's proxy set and edge model follow from its own report alone, so a wrong report hurts nobody else.
    """

    world: PublicWorld
    options: ServerOptions
    reports: dict[int, Report] = field(default_factory=dict)

    @property
    def images(self) -> ImageSet:
        """What indices of proxy sets point into: the pool."""
        return self.world.images

    @cached_property
    def evidence(self) -> Evidence:
        """The score bank over the server's images."""
        world = self.world
        return Evidence(
            self.trained.base,
            self.images,
            world.cache,
            images_id=world.public.fingerprint,
            precision=world.precision,
            device=world.compute,
        )

    def receive(self, device: int, blob: bytes) -> Report:
        """Check an uploaded report and keep it.

        Raises:
            ReportRejected: with the reason; nothing is kept.
        """
        report = check_report(blob, self.world.expected(device))
        self.reports[device] = report
        return report

    def choose_proxy(self, device: int) -> ProxySet:
        """Choose the proxy set for an accepted report."""
        world = self.world
        task = SelectionTask(
            points=world.points,
            indices=world.pool,
            mixture=self.reports[device].mixture,
            space=world.space,
            size=self.options.proxy_size,
            seed=stream_seed(world.seed, "proxy", device),
            private=self.private_view(device),
        )
        return self.options.selector.select(task)

    def private_view(self, device: int) -> PrivateView | None:
        """Return nothing: a server sees nothing private. What a simulation puts in its place does."""
        return None

    def prepare(self, proxies: Sequence[IntArray]) -> None:
        """Compute the evidence that the method reads of all these proxy sets, in one pass."""
        self.options.method.prepare(self.evidence, proxies, self.world.pool)

    def derive(self, device: int, proxy: IntArray) -> EdgeModel:
        """Derive and recover the edge model of `device` from its proxy set, a token reducer inside where asked.

        Raises:
            BudgetError: no legal model is small enough for the device's budget.
        """
        report = self.reports[device]
        return self.derive_within(device, proxy, report.budget, report.classes)

    def derive_within(self, device: int, proxy: IntArray, budget: Budget, classes: tuple[int, ...] | None) -> EdgeModel:
        """Derive as `derive` does, from what of the device's report it follows from.

        Raises:
            BudgetError: no legal model is small enough for the budget.
        """
        world = self.world
        task = PruningTask(
            base=self.trained.base,
            images=self.images,
            proxy=proxy,
            pool=world.pool,
            evidence=self.evidence,
            budget=budget,
            classes=classes,
            seed=stream_seed(world.seed, "derive", device),
        )
        options = self.options
        if isinstance(options.tokens, NoReduction) and budget.latency is None:
            return options.recovery.recover(options.method.derive(task), task)
        split = split_budget(
            task,
            options.method,
            options.tokens,
            recovery=options.recovery,
            parameters=self.trained.parameters,
            teacher=world.base,
            splitting=options.splitting,
            latency=options.splitting.latency(),
            precision=world.precision,
        )
        return split.edge

    @cached_property
    def trained(self) -> Trained:
        """What edge models are cut from, and a token reducer's parameters: trained once on the pool, shared by all."""
        world = self.world
        public = Public(world.images, world.pool, world.public.fingerprint)
        return trained(self.options.tokens, world.base, public, world.cache)
