"""Open a finished run again: its world and its server, with the reports that were accepted."""

from fedprune.experiment.config import RunConfig
from fedprune.experiment.journal import Journal
from fedprune.experiment.record import Record
from fedprune.protocol.observer import Observer
from fedprune.protocol.server import Server
from fedprune.protocol.setup import open_world


def reopen(record: Record) -> Server:
    """Return the server of a run as it stood when all reports were in."""
    config = RunConfig.from_dict(record.values["config"])
    world = open_world(config.setup())
    server = Server(world, config.server_options())
    journal = Journal(record.folder, save_models=False, listener=Observer())
    for shard in world.partition.shards:
        if (upload := journal.stored_report(shard.device)) is not None:
            server.receive(shard.device, upload.report)
    return server
