"""A run seen again from inside: its reports, proxy sets and edge models. Possible in a simulation only."""

from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path

import torch

from fedprune.core.errors import ConfigError, DataError
from fedprune.devices.clock import NoClock
from fedprune.experiment.config import RunConfig
from fedprune.experiment.journal import Journal
from fedprune.experiment.record import is_finished
from fedprune.mixture.report import Report
from fedprune.privacy.ledger import BudgetSpent
from fedprune.protocol.observer import Observer
from fedprune.protocol.server import Server
from fedprune.protocol.simulation import Simulation, UpperMarkServer, open_simulation
from fedprune.proxy.selector import ProxySet
from fedprune.vit.surgery import EdgeModel


class Replay:
    """What the server and the devices of a run had, each part computed when it is first asked for.

    Args:
        config: The run's configuration.

    Raises:
        ConfigError: the run's server had public images of its own, so nobody can see its devices from inside.
    """

    def __init__(self, config: RunConfig) -> None:
        if config.public:
            raise ConfigError("This run's devices hold what it would show. Only a simulation can be seen from inside.")
        torch.set_num_threads(config.threads)  # what is kept was computed so, and is found only so
        self.config = config

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
        """Return a device's proxy set."""
        self.report(device)
        return self.server.choose_proxy(device)

    def edge(self, device: int) -> EdgeModel:
        """Return a device's edge model, derived again.

        Raises:
            BudgetError: its budget has no legal model.
        """
        return self.server.derive(device, self.proxy(device).indices)


def reopen(folder: Path, config: RunConfig) -> Replay:
    """Return a run as it stood when all reports were in.

    A run that has not finished may lack reports. They are made here, as its devices would make them.

    Raises:
        DataError: the run has not finished, and its clock decides which devices report.
    """
    replay = Replay(config)
    journal = Journal(folder, config.identity(), save_models=False, listener=Observer())
    finished = is_finished(folder)
    if not finished and not isinstance(config.clock, NoClock):
        raise DataError(f"{config.title()} has a clock: which devices report is known once it has run. Run it first.")
    for device in replay.simulation.devices:
        upload = journal.stored_report(device)
        if upload is not None:
            replay.server.receive(device, upload.report)
        elif not finished:
            with suppress(BudgetSpent):  # then the device reports nothing
                replay.report(device)
    return replay
