"""What the server does: check reports, choose proxy sets, derive one edge model a device."""

import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from fedprune.cohorts.cohorts import Cohort, Cohorts, GroupingTask
from fedprune.cohorts.none import NoCohorts
from fedprune.core.hashing import content_hash
from fedprune.core.random import stream_seed
from fedprune.core.registry import build, from_dict, to_dict
from fedprune.data.images import ImageSet, IntArray
from fedprune.evidence.evidence import Evidence
from fedprune.mixture.report import Report, check_report
from fedprune.protocol.deriving import EDGE, RecoveryImages, Task
from fedprune.protocol.public import PublicWorld
from fedprune.protocol.split import Splitting, split_budget
from fedprune.proxy.selector import PrivateView, ProxySet, SelectionTask, Selector
from fedprune.pruning.method import Method, PruningTask
from fedprune.recovery.recovery import Recovery
from fedprune.tokens.none import NoReduction
from fedprune.tokens.reducer import Reducer
from fedprune.tokens.trained import Trained, trained
from fedprune.tokens.training import Public
from fedprune.vit.surgery import EdgeModel

OPTIONS = ("selector", "cohorts", "method", "recovery", "tokens")


@dataclass(frozen=True)
class ServerOptions:
    """What only the server decides.

    Attributes:
        proxy_size: Images in a proxy set.
        recovery_size: Images that a recovery learns from, chosen as the proxy set is; None takes the proxy set.
        cohorts: Which devices share a model.
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
    recovery_size: int | None = None
    cohorts: Cohorts = field(default_factory=NoCohorts)

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
        options = {kind: from_dict(kind, values[kind]) for kind in OPTIONS}
        return cls(**{**values, **options, "splitting": build(Splitting, values["splitting"])})


@dataclass
class Server:
    """The server's state in one run: the accepted reports and the proxy sets that follow from them.

    Each device's proxy set and edge model follow from its own report alone, so a wrong report hurts nobody else; in a
    cohort, nobody but those who share with it.
    """

    world: PublicWorld
    options: ServerOptions
    reports: MutableMapping[int, Report] = field(default_factory=dict)
    _cuts: dict[str, EdgeModel] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        """Return what goes along to another process that derives: no report, for a task has what it needs of one."""
        return {**vars(self), "reports": {}}

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
        return self._choose(device, self.options.proxy_size)

    def choose_recovery_images(self, device: int) -> RecoveryImages:
        """Choose, in the same way, what its recovery learns from and what it chooses an epoch by."""
        size = self.options.recovery_size
        learn = None if size is None else self._choose(device, size).indices
        return RecoveryImages(learn, self.choose_validation(device) if self.options.recovery.validates else None)

    def _choose(self, device: int, size: int) -> ProxySet:
        world = self.world
        task = SelectionTask(
            points=world.points,
            indices=world.pool,
            mixture=self.reports[device].mixture,
            space=world.space,
            size=size,
            seed=stream_seed(world.seed, "proxy", device),
            private=self.private_view(device),
            public_density=world.density,
        )
        return self.options.selector.select(task)

    def choose_validation(self, device: int, size: int | None = None) -> IntArray:
        """Choose images of the validation cut as those of the pool are chosen.

        A selector that reads private images chooses among the pool alone: then it is the whole cut.

        Args:
            device: For whom.
            size: How many; None takes the same share of the cut as recovery has of the pool.
        """
        world, options, images = self.world, self.options, self.world.public.validation
        if options.selector.reads_private:
            return np.arange(len(images))
        share = (options.recovery_size or options.proxy_size) / len(world.pool)
        task = SelectionTask(
            points=world.validation_points,
            indices=np.arange(len(images)),
            mixture=self.reports[device].mixture,
            space=world.space,
            size=size or math.ceil(share * len(images)),
            seed=stream_seed(world.seed, "validation", device),
        )
        return options.selector.select(task).indices

    def private_view(self, device: int) -> PrivateView | None:
        """Return nothing: a server sees nothing private. What a simulation puts in its place does."""
        return None

    def form_cohorts(self, proxies: Mapping[int, IntArray], judge: Callable[[Sequence[Cohort]], float]) -> list[Cohort]:
        """Group the devices whose own proxy sets are given, all at once, in rising order of their first members.

        Args:
            proxies: By device, its own proxy set.
            judge: Says how often the models of cohorts are right, in percent.
        """
        reports = {device: self.reports[device] for device in sorted(proxies)}
        task = GroupingTask(
            budgets={device: report.budget for device, report in reports.items()},
            mixtures={device: report.mixture for device, report in reports.items()},
            proxies=proxies,
            labels=self.images.labels,
            space=self.world.space,
            seed=self.world.seed,
            judge=judge,
        )
        return self.options.cohorts.form(task)

    def prepare(self, proxies: Sequence[IntArray]) -> None:
        """Compute the evidence that the method reads of all these proxy sets, in one pass."""
        self.options.method.prepare(self.evidence, proxies, self.world.pool)

    def derive(self, device: int, proxy: IntArray) -> EdgeModel:
        """Derive and recover the edge model of `device` from its proxy set, a token reducer inside where asked.

        Raises:
            BudgetError: no legal model is small enough for the device's budget.
        """
        report, recovery = self.reports[device], self.choose_recovery_images(device)
        return self.derive_within(Task(device, EDGE, proxy, report.budget, report.classes, recovery))

    def derive_within(self, task: Task) -> EdgeModel:
        """Derive as `derive` does, from what of the device's report it follows from.

        Raises:
            BudgetError: no legal model is small enough for the budget.
        """
        world, options, recovery = self.world, self.options, task.recovery
        pruning = PruningTask(
            base=self.trained.base,
            images=self.images,
            proxy=task.proxy,
            pool=world.pool,
            evidence=self.evidence,
            budget=task.budget,
            classes=task.classes,
            seed=stream_seed(world.seed, "derive", task.device if task.cut_of is None else task.cut_of),
            validation=None if recovery.validation is None else world.public.validation.take(recovery.validation),
        )
        if isinstance(options.tokens, NoReduction) and task.budget.latency is None:
            edge = options.method.derive(pruning) if task.cut_of is None else self._cut(pruning)
            learn = task.proxy if recovery.learn is None else recovery.learn
            own = replace(pruning, proxy=learn, seed=stream_seed(world.seed, "derive", task.device))
            return options.recovery.recover(edge, own)
        done, splitting = self.trained, options.splitting
        if done.reducer != options.tokens:  # its strength follows from a limit, and nothing else is tried
            splitting = replace(splitting, ratios=(done.reducer.keep,))
        split = split_budget(
            pruning,
            options.method,
            done.reducer,
            recovery=options.recovery,
            parameters=done.parameters,
            teacher=world.base,
            splitting=splitting,
            latency=options.splitting.latency(),
            precision=world.precision,
        )
        return replace(split.edge, notes={**split.edge.notes, **done.notes})

    def _cut(self, task: PruningTask) -> EdgeModel:
        """Derive a cohort's cut, once for the members that come one after the other."""
        key = content_hash(task.proxy, task.budget, task.classes, task.seed)
        if key not in self._cuts:
            self._cuts = {key: self.options.method.derive(task)}
        return self._cuts[key]

    @cached_property
    def trained(self) -> Trained:
        """What edge models are cut from, and a token reducer's parameters: trained once on the pool, shared by all."""
        world = self.world
        public = Public(world.images, world.pool, world.public.fingerprint, world.public.validation)
        return trained(self.options.tokens, world.base, public, world.cache)
