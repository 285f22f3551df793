"""Records of runs that nobody ran, whole as those of real ones."""

import dataclasses

from fedprune.experiment.record import write_record
from fedprune.protocol.row import DeviceRow

FIELDS = {field.name for field in dataclasses.fields(DeviceRow)} - {"extra"}


def write_finished(folder, config, devices, seconds):
    """Write the record of a run whose devices have these rows; what no row of a device has counts as a diagnostic."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for values in devices.astype(object).where(devices.notna(), None).to_dict("records"):
        extra = {name: value for name, value in values.items() if name not in FIELDS}
        rows.append(DeviceRow(**{name: values[name] for name in values if name in FIELDS}, extra=extra))
    write_record(folder, config, {}, rows, [], seconds)
