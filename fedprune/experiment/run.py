"""One run from its configuration to its record."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from fedprune.core.errors import FedpruneError
from fedprune.core.files import remove_litter, write_json
from fedprune.core.progress import listening
from fedprune.data.public import PublicImages
from fedprune.data.public_files import read_public
from fedprune.experiment.config import RunConfig
from fedprune.experiment.journal import Journal, count_kept
from fedprune.experiment.provenance import (
    Hashes,
    changed_sentence,
    changes,
    provenance,
    run_folder,
    write_provenance,
)
from fedprune.experiment.record import CONFIG, RECORD, Record, is_finished, note_failure, read_record, write_record
from fedprune.federation.logs import FORMAT, PlainFormatter
from fedprune.federation.strategy import EdgeModels
from fedprune.protocol.deployment import Deployment
from fedprune.protocol.observer import Observer
from fedprune.protocol.private import open_local
from fedprune.protocol.setup import Setup
from fedprune.protocol.simulation import Simulation, open_simulation

_loaded: dict[Setup, Hashes] = {}  # what the data that stay loaded were loaded from


def execute(config: RunConfig, listener: Observer, *, force: bool = False) -> Record:
    """Run `config`, or go on where an earlier try was cut off, or return the record that is already there.

    Devices that failed in an earlier try are asked again.

    Args:
        config: The run's configuration.
        listener: Told what happens.
        force: Whether to run afresh, in a new folder, where the run that is there was made from something else.

    Raises:
        FedpruneError: the run cannot be done, or was made from something else, with what to change; no record is
            written then.
    """
    now = provenance(config)
    folder = run_folder(config, now, fresh=force)
    if (record := _finished(folder)) is not None:
        return record
    lock = FileLock(folder / ".lock")  # the system lets go of it when its holder dies
    try:
        with lock.acquire(timeout=0), log_file(folder / "run.log"), listening(listener):
            if (record := _finished(folder)) is not None:  # by another process, between that look and the lock
                return record
            remove_litter(folder)
            write_json(folder / CONFIG, config.to_dict())
            return _execute(config, folder, now, listener)
    except Timeout as error:
        raise FedpruneError(f"Another process is working on {folder}. Wait for it, or change the seed.") from error
    except FedpruneError as error:
        with suppress(FedpruneError):  # a full disk has no room for a note either
            note_failure(folder, error)
        raise
    except OSError as error:
        raise FedpruneError(f"Cannot write to {folder}: {error.strerror}. Free space or set another `runs`.") from error


def _finished(folder: Path) -> Record | None:
    """Return the record in `folder` if there is nothing left to do."""
    record = read_record(folder) if is_finished(folder) else None
    return None if record is None or record.failed else record


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append what the server and the devices log to `path` for as long as the run goes on."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(PlainFormatter(FORMAT))
    loggers = [logging.getLogger("fedprune"), logging.getLogger("flwr")]
    levels = [logger.level for logger in loggers]
    loggers[0].setLevel(logging.INFO)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
        handler.close()


def _execute(config: RunConfig, folder: Path, now: Hashes, listener: Observer) -> Record:
    start = time.perf_counter()
    torch.set_num_threads(config.threads)
    run = _open(config, now)
    now = {**now, **run.fingerprints}
    if changed := changes(folder, now):
        raise FedpruneError(changed_sentence(folder, changed))
    write_provenance(folder, now)
    (folder / RECORD).unlink(missing_ok=True)  # of a try in which devices failed
    journal = Journal(folder, config.identity(), config.save_models, listener)
    state = run.round(config.server_options(), journal, config.clock)
    config.engine.run(EdgeModels(state, config.setup()), len(state.rows))
    ledger = [
        {"device": device, **asdict(entry)} for device in sorted(state.released) for entry in state.released[device]
    ]
    (folder / "failure.txt").unlink(missing_ok=True)
    return write_record(folder, config, now, state.rows.values(), ledger, time.perf_counter() - start)


def _open(config: RunConfig, now: Hashes) -> Simulation | Deployment:
    """Return this process's side of the run, loaded again where files have changed since it was loaded."""
    setup = config.setup()
    if config.public:
        return Deployment(setup, public_images(config))
    if _loaded.setdefault(setup, now) != now:
        open_local.cache_clear()
        open_simulation.cache_clear()
        _loaded[setup] = now
    return open_simulation(setup)


def public_images(config: RunConfig) -> PublicImages:
    """Return the images that the run's server has.

    Raises:
        DataError: they cannot be read.
    """
    return read_public(Path(config.public).expanduser()) if config.public else open_local(config.setup()).public


def kept(config: RunConfig) -> str:
    """Say in one line what a run that was stopped has left for the next try."""
    folder = Path(config.runs) / config.title()
    reports, rows = count_kept(folder)
    return f"kept in {folder}: {reports} reports and {rows} final rows; features and evidence in {config.cache}."
