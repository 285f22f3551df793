"""Whether a finished run is whole and agrees with itself: its record, every file that it names, and what they say."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from fedprune.core.errors import DataError
from fedprune.experiment.journal import device_of, model_file
from fedprune.experiment.record import FILES, OF_A_DEVICE, Record, files_of, read_record
from fedprune.experiment.summary import summarise
from fedprune.protocol.storage import StoredModel


def verify(folder: Path) -> Iterator[str]:
    """Check a run, and yield a sentence for each thing that was checked and is as it should be.

    What somebody has changed together with every hash is not noticed; the digest tells it apart from the run that
    others have published.

    Raises:
        FedpruneError: the first thing that is off.
    """
    record = read_record(folder)
    values = record.values
    yield f"record.json is of schema {values['schema_version']} and as it was written."
    yield f"{len(record.devices)} rows and {len(record.ledger)} entries of the ledger give the digest {record.digest}."
    _check_averages(record)
    yield "Its averages and its count of devices are those of the rows."
    for name in values["files"]:
        if name not in FILES and not OF_A_DEVICE.fullmatch(name):
            raise DataError(f"The record in {folder} names {name!r}, which is no file of a run.")
        record.check_file(name)
    if foreign := sorted(set(files_of(folder)) - set(values["files"])):
        raise DataError(f"{folder / foreign[0]} is no file of the run's record. Take it out.")
    yield f"{len(values['files'])} files are as they were written: {_by_folder(values['files'])}."
    if models := [name for name in values["files"] if name.startswith("models/")]:
        for name in models:
            check_model(record, device_of(Path(name)))
        yield f"{len(models)} models are whole and each is its device's own."
    if (identity := record.config.identity()) != values["run"]:
        raise DataError(f"{folder}'s configuration has the id {identity}, and the record says {values['run']}.")
    yield f"The configuration has the run's id {identity}."


def check_model(record: Record, device: int) -> StoredModel:
    """Return a device's stored model after comparing it with the record and with its device's row.

    Raises:
        FedpruneError: it is damaged, edited, another device's or another run's.
    """
    path = model_file(record.folder, device)
    record.check_file(str(path.relative_to(record.folder)))
    model = StoredModel.read(path)
    if model.card.get("device") != device or record.values["run"] not in str(model.card.get("run")):
        raise DataError(f"{path} says that it is the model of another device or run. Put the right one back.")
    return model


def _check_averages(record: Record) -> None:
    counts = {str(status): int(count) for status, count in record.devices["status"].value_counts().items()}
    said, found = record.values["summary"], summarise(record.devices)
    found = json.loads(json.dumps(found))
    close = said.keys() == found.keys() and all(_close(said[name], value) for name, value in found.items())
    if not close or counts != record.values["devices"]:
        raise DataError(f"The averages in {record.folder}'s record are not those of its rows. Run again.")


def _close(said: object, found: float | None) -> bool:
    if found is None or not isinstance(said, int | float):
        return said is found
    return math.isclose(said, found, rel_tol=1e-9, abs_tol=1e-12)


def _by_folder(names: dict[str, str]) -> str:
    folders = [Path(name).parent.as_posix() for name in names]
    return ", ".join(f"{folders.count(name)} {'beside the record' if name == '.' else f'in {name}'}"
                     for name in dict.fromkeys(folders))  # fmt: skip
