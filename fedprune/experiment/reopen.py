"""A run seen again from inside: its reports, proxy sets and edge models. Possible in a simulation only."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path

import pandas as pd
import torch

from fedprune.cohorts.none import NoCohorts
from fedprune.core.errors import BudgetError, ConfigError, DataError
from fedprune.data.images import IntArray
from fedprune.devices.clock import NoClock
from fedprune.experiment.config import RunConfig
from fedprune.experiment.journal import Journal
from fedprune.experiment.record import is_finished, read_record
from fedprune.mixture.report import Report
from fedprune.privacy.ledger import BudgetSpent
from fedprune.protocol.deliveries import LEFT_OUT
from fedprune.protocol.deriving import Task
from fedprune.protocol.observer import Observer
from fedprune.protocol.server import Server
from fedprune.protocol.sharing import Shared, edge_tasks, share
from fedprune.protocol.simulation import Simulation, UpperMarkServer, open_simulation
from fedprune.proxy.selector import ProxySet
from fedprune.vit.surgery import EdgeModel


class Replay:
    """What the server and the devices of a run had, each part computed when it is first asked for.

    Args:
        config: The run's configuration.
        grouped: The devices that its cohorts were formed of; None: all.

    Raises:
        ConfigError: the run's server had public images of its own, so nobody can see its devices from inside.
    """

    def __init__(self, config: RunConfig, grouped: Sequence[int] | None = None) -> None:
        if config.public:
            raise ConfigError("This run's devices hold what it would show. Only a simulation can be seen from inside.")
        torch.set_num_threads(config.threads)  # what is kept was computed so, and is found only so
        self.config = config
        self.grouped = grouped
        self._tasks: dict[int, Task] = {}

    @cached_property
    def simulation(self) -> Simulation:
        """The run's server and devices."""
        return open_simulation(self.config.setup())

    @cached_property
    def server(self) -> Server:
        """The run's server, with the reports that have been asked for."""
        return self.simulation.server(self.config.server_options())

    @cached_property
    def upper_mark(self) -> UpperMarkServer:
        """The server that derives upper marks."""
        return self.simulation.upper_mark(self.server)

    def report(self, device: int) -> Report:
        """Return a device's report, made again as in the run where it is not there."""
        self.simulation.report_to(self.server, device)
        return self.server.reports[device]

    @lru_cache(maxsize=64)  # noqa: B019 (a replay lives as long as what is made of it)
    def proxy(self, device: int) -> ProxySet:
        """Return a device's own proxy set."""
        self.report(device)
        return self.server.choose_proxy(device)

    def edge(self, device: int) -> EdgeModel:
        """Return a device's edge model, derived again.

        Raises:
            BudgetError: its budget has no legal model.
        """
        proxies, cohorts = self._cohorts or self._alone(device)
        shared = next((each for each in cohorts if device in each.cohort.members), None)
        if shared is None:
            raise BudgetError(LEFT_OUT)
        (task,) = edge_tasks(self.server, shared, proxies, [device])
        self._tasks[task.device] = task
        return self._derived(task.device)

    @cached_property
    def _cohorts(self) -> tuple[Mapping[int, IntArray], list[Shared]] | None:
        """Own proxy sets and cohorts of all that were grouped; None where nobody shares."""
        if isinstance(self.config.cohorts, NoCohorts):
            return None
        devices = self.simulation.devices if self.grouped is None else self.grouped
        proxies = {device: self.proxy(device).indices for device in devices}
        return proxies, share(self.server, proxies)

    def _alone(self, device: int) -> tuple[Mapping[int, IntArray], list[Shared]]:
        proxies = {device: self.proxy(device).indices}
        return proxies, share(self.server, proxies)

    @lru_cache(maxsize=4)  # noqa: B019 (a cohort's members come one after the other)
    def _derived(self, owner: int) -> EdgeModel:
        return self.server.derive_within(self._tasks[owner])


def grouped_devices(devices: pd.DataFrame) -> list[int] | None:
    """Return the devices that a finished run's cohorts were formed of; None where it had none."""
    if "cohort" not in devices:
        return None
    there = devices["cohort"].notna() | devices["status"].eq("refused")
    return [int(device) for device in devices.loc[there, "device"]]


def reopen(folder: Path, config: RunConfig) -> Replay:
    """Return a run as it stood when all reports were in.

    A run that has not finished may lack reports. They are made here, as its devices would make them.

    Raises:
        DataError: the run has not finished, and its clock decides which devices report.
    """
    journal = Journal(folder, config.identity(), save_models=False, listener=Observer())
    finished = is_finished(folder)
    if not finished and not isinstance(config.clock, NoClock):
        raise DataError(f"{config.title()} has a clock: which devices report is known once it has run. Run it first.")
    replay = Replay(config, grouped_devices(read_record(folder).devices) if finished else None)
    for device in replay.simulation.devices:
        upload = journal.stored_report(device)
        if upload is not None:
            replay.server.receive(device, upload.report)
        elif not finished:
            with suppress(BudgetSpent):  # then the device reports nothing
                replay.report(device)
    if not finished:
        replay.grouped = sorted(replay.server.reports)
    return replay
