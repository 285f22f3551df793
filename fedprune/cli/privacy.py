"""Show the privacy ledger of finished runs: what every device released, and what it adds up to.

Several runs are composed as repeats on the same devices; runs that used one seed of noise for different releases count
as no protection. With `--limit`, the exit code is 1 where a device has spent more than that.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("run_names", metavar="RUN", nargs="+", help="a run's folder, title or the beginning of its id")
    parser.add_argument("--device", type=int, help="show only this device's entries")
    parser.add_argument("--delta", type=float, help="delta of the totals (default: what the devices were asked for)")
    parser.add_argument("--limit", type=float, help="privacy budget to compare each device's total with")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")


def run(arguments: argparse.Namespace) -> int:
    """Print the entries and each device's total; end with one JSON line."""
    from rich.console import Console

    from fedprune.core.errors import ConfigError
    from fedprune.experiment.noise import REUSED, devices_with_reused_noise
    from fedprune.experiment.record import find_run, read_record
    from fedprune.privacy.ledger import Ledger

    records = [read_record(find_run(name, arguments.runs)) for name in arguments.run_names]
    if len({record.config.partition for record in records}) > 1:
        raise ConfigError("These runs split the data differently, so their devices are not the same. Give runs of one.")
    rows = [row for record in records for row in record.ledger]
    delta = max(record.delta for record in records) if arguments.delta is None else arguments.delta
    if not 0 < delta < 1:
        raise ConfigError(
            f"--delta is {delta:g}; it must lie between 0 and 1, far below one over the number of images."
        )
    ledger = Ledger.from_rows(rows, delta=delta)
    for device in devices_with_reused_noise(records):
        ledger.book(device, "report", [REUSED])
    totals = {device: ledger.spent(device) for device in sorted({row["device"] for row in rows})}

    console, deltas_text = Console(soft_wrap=True), f"at delta {delta:g}"
    console.print(_table([row for row in ledger.rows() if arguments.device in (None, row["device"])]))
    for device, total in totals.items():
        if arguments.device in (None, device):
            console.print(f"device {device}: {_total(total)} {deltas_text}", highlight=False)
    if any(row["field"] == "classes" for row in rows):
        console.print("Classes are told (share_classes=true): a device's only image of its class is not protected.")
    over = [device for device, total in totals.items() if arguments.limit is not None and total > arguments.limit]
    worst = max(totals.values(), default=0.0)
    found = {
        "runs": len(records),
        "devices": len(totals),
        "delta": delta,
        "epsilon_max": None if math.isinf(worst) else worst,
        "protected": not math.isinf(worst),
        "over_limit": over,
    }
    print(json.dumps(found))
    return 1 if over else 0


def _table(rows: list[dict[str, Any]]) -> Any:
    """Lay out the entries; equal entries of many devices share one line."""
    from rich.table import Table
    from rich.text import Text

    columns = ("field", "mechanism", "clip", "sensitivity", "noise", "rounds", "epsilon", "delta", "note")
    table = Table("devices", *columns, box=None, pad_edge=False)
    lines: dict[tuple[str, ...], list[int]] = {}
    for row in rows:
        lines.setdefault(tuple(_cell(row, column) for column in columns), []).append(int(row["device"]))
    for cells, devices in lines.items():
        table.add_row(_ranges(devices), *map(Text, cells))
    return table


def _ranges(devices: list[int]) -> str:
    """Write 0, 1, 2, 5 as `0-2, 5`; a device that released twice is marked once."""
    ordered, parts = sorted(set(devices)), []
    start = previous = ordered[0]
    for device in [*ordered[1:], math.inf]:
        if device != previous + 1:
            parts.append(f"{start}" if start == previous else f"{start}-{previous}")
            start = int(device) if device != math.inf else start
        previous = int(device) if device != math.inf else previous
    return ", ".join(parts)


def _cell(row: dict[str, Any], column: str) -> str:
    value = row[column]
    if value is None:
        return ("none" if row["counted"] else "outside") if column == "epsilon" else "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _total(epsilon: float) -> str:
    if math.isinf(epsilon):
        return "no guarantee, something about single images was released without protection,"
    return f"epsilon {epsilon:.3g} in total, for adding or removing one image,"
