"""Open a run again: its world and its server, with the reports of its devices."""

from contextlib import suppress
from pathlib import Path

from fedprune.core.errors import DataError
from fedprune.devices.clock import NoClock
from fedprune.experiment.config import RunConfig
from fedprune.experiment.journal import Journal
from fedprune.experiment.record import is_finished
from fedprune.mixture.features import extract
from fedprune.mixture.mixture import FloatArray
from fedprune.privacy.ledger import BudgetSpent
from fedprune.protocol.device import make_report
from fedprune.protocol.observer import Observer
from fedprune.protocol.server import Server
from fedprune.protocol.setup import open_world


def reopen(folder: Path, config: RunConfig) -> Server:
    """Return the server of a run as it stood when all reports were in.

    A run that has not finished may lack reports. They are made here, as its devices would make them.

    Raises:
        DataError: the run has not finished, and its clock decides which devices report.
    """
    server = Server(open_world(config.setup()), config.server_options())
    journal = Journal(folder, save_models=False, listener=Observer())
    finished = is_finished(folder)
    if not finished and not isinstance(config.clock, NoClock):
        raise DataError(f"{config.title()} has a clock: which devices report is known once it has run. Run it first.")
    for shard in server.world.partition.shards:
        upload = journal.stored_report(shard.device)
        if upload is None and not finished:
            with suppress(BudgetSpent):  # then the device reports nothing
                upload = make_report(server.world, shard.device, server.space)
        if upload is not None:
            server.receive(shard.device, upload.report)
    return server


def outsider_points(server: Server, device: int) -> FloatArray:
    """Return a device's private test images in the space of the reports: possible in a simulation only."""
    world, setup = server.world, server.world.setup
    features = extract(
        world.base,
        world.dataset.test,
        world.shard(device).test,
        setup.features.kind,
        precision=setup.precision,
        device=setup.compute,
    )
    return server.space.project(features)
