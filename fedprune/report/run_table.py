"""What `fedprune run` shows at its end: a table of devices, the averages, where everything lies."""

import pandas as pd
from rich.console import Console
from rich.table import Table

from fedprune.experiment.record import Record
from fedprune.experiment.summary import accuracies, labels_of
from fedprune.report.accuracy_figure import draw_accuracy


def render_run(record: Record, console: Console) -> None:
    """Print a run's table, its averages and the paths of what was written."""
    console.print(device_table(record.devices))
    console.print(averages(record))
    for line in trouble(record.devices):
        console.print(line, highlight=False)
    figure = draw_accuracy(record)
    written = ["record.json", "devices.parquet", "ledger.json", "reports/", figure.name]
    console.print(f"written to {record.folder}/: {', '.join(written)}", highlight=False, soft_wrap=True)


def device_table(devices: pd.DataFrame) -> Table:
    """Lay out one row a device: what it has, what it asked for, what it got."""
    table = Table(title="devices", title_justify="left")
    labels = labels_of(devices)
    for header in ("device", "task", "classes", "images", "budget", "params kept", "MACs kept", *labels.values()):
        table.add_column(header, justify="left" if header == "task" else "right")
    rates = accuracies(devices)
    for (_, row), (_, rate) in zip(devices.iterrows(), rates.iterrows(), strict=True):
        table.add_row(
            str(row["device"]),
            str(row["task"]),
            whole(row["classes"]),
            f"{whole(row['train_images'])} + {whole(row['test_images'])}",
            budget_text(row),
            _share(row["params"], row["base_params"]),
            _share(row["macs"], row["base_macs"]),
            *(percent(rate[name]) if row["status"] == "ok" else str(row["status"]) for name in labels),
        )
    return table


def averages(record: Record) -> Table:
    """Lay out the averages over devices: the mean, and the mean of the worst 10 %."""
    summary, labels = record.values["summary"], labels_of(record.devices)
    table = Table(title=f"averages over {summary['measured']} of {summary['devices']} devices", title_justify="left")
    table.add_column("")
    for label in labels.values():
        table.add_column(label, justify="right")
    for kind, label in (("mean", "mean"), ("worst", "worst 10 %")):
        table.add_row(label, *(percent(summary[f"{name}_{kind}"]) for name in labels))
    return table


def trouble(devices: pd.DataFrame) -> list[str]:
    """Say of every device that has no edge model why."""
    rows = devices[devices["status"] != "ok"]
    return [f"device {row['device']} {row['status']}: {row['reason']}" for _, row in rows.iterrows()]


def whole(number: float | None) -> str:
    """Write a whole number; a dash where it is not known."""
    return "-" if number is None or pd.isna(number) else str(int(number))


def percent(rate: float | None) -> str:
    """Write a rate as a percentage with one digit; a dash where there is none."""
    return "-" if rate is None or pd.isna(rate) else f"{100 * rate:.1f}"


def _share(part: float | None, whole: float) -> str:
    return "-" if part is None or pd.isna(part) else f"{100 * part / whole:.1f} %"


def budget_text(row: pd.Series) -> str:
    """Write a device's limits in one line."""
    limits = []
    for name, base in (("params", "base_params"), ("macs", "base_macs")):
        if pd.notna(row[f"budget_{name}"]):
            limits.append(f"{100 * row[f'budget_{name}'] / row[base]:.1f} % {name}")
    if pd.notna(row["budget_memory"]):
        limits.append(f"{row['budget_memory'] / 2**20:.2f} MiB")
    if pd.notna(row["budget_latency"]):
        limits.append(f"{1000 * row['budget_latency']:.2f} ms")
    return ", ".join(limits)
