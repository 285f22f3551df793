"""What `fedprune run` shows at its end: a table of devices, the averages, where everything lies."""

import pandas as pd
from rich.console import Console

from fedprune.experiment.journal import REPORTS
from fedprune.experiment.record import Record
from fedprune.experiment.summary import ACCURACIES, accuracies, labels_of
from fedprune.report.accuracy_figure import draw_accuracy
from fedprune.report.laid_out import laid_out

MANY, FEWER = 50, 20  # devices beyond which only the worst stand in a table, and how many those are


def render_run(record: Record, console: Console) -> None:
    """Print a run's table, its averages and the paths of what was written."""
    summary = record.values["summary"]
    over = f"averages over {summary['measured']} of {summary['devices']} devices"
    if "models" in summary:
        over += f", cohorts: {summary['cohorts']}, models: {summary['models']}"
    least = (
        "MACs kept",
        "classes",
        "images",
        ACCURACIES["base"].label,
        ACCURACIES["oracle"].label,
        "task",
        "budget",
        "params kept",
    )
    width = console.width
    shown = worst(record.devices, FEWER)
    title = "devices" if len(shown) == len(record.devices) else f"the {len(shown)} devices that are right least often"
    console.print(laid_out(device_rows(shown), width, title, left=("task",), least=least))
    console.print(laid_out(average_rows(record), width, over, left=("",), least=least))
    for line in trouble(record.devices):
        console.print(line, highlight=False)
    figure = draw_accuracy(record)
    written = ["record.json", "devices.parquet", "ledger.json", REPORTS, figure.name]
    console.print(f"written to {record.folder}/: {', '.join(written)}", highlight=False, soft_wrap=True)


def worst(devices: pd.DataFrame, shown: int) -> pd.DataFrame:
    """Return all devices of a few, and of many the `shown` whose edge models are right least often."""
    if len(devices) <= MANY:
        return devices
    return devices.loc[accuracies(devices)["edge"].sort_values(kind="stable").index[:shown]]


def device_rows(devices: pd.DataFrame) -> pd.DataFrame:
    """Write one row a device: what it has, what it asked for, what it got."""
    labels, rates = labels_of(devices), accuracies(devices)
    rows = []
    for (_, row), (_, rate) in zip(devices.iterrows(), rates.iterrows(), strict=True):
        measured = {
            label: percent(rate[name]) if row["status"] == "ok" else str(row["status"])
            for name, label in labels.items()
        }
        rows.append(
            {
                "device": str(row["device"]),
                "task": str(row["task"]),
                "classes": whole(row["classes"]),
                "images": f"{whole(row['train_images'])} + {whole(row['test_images'])}",
                **({"cohort (size)": cohort_text(row) or "-"} if "cohort" in devices else {}),
                "budget": budget_text(row),
                "params kept": _share(row["params"], row["base_params"]),
                "MACs kept": _share(row["macs"], row["base_macs"]),
                **measured,
            }
        )
    return pd.DataFrame(rows)


def average_rows(record: Record) -> pd.DataFrame:
    """Write the averages over devices: the mean, and the mean of the worst 10 %."""
    summary, labels = record.values["summary"], labels_of(record.devices)
    kinds = {"mean": "mean", "worst": "worst 10 %"}
    return pd.DataFrame(
        [
            {"": label, **{shown: percent(summary[f"{name}_{kind}"]) for name, shown in labels.items()}}
            for kind, label in kinds.items()
        ]
    )


def trouble(devices: pd.DataFrame) -> list[str]:
    """Say of devices that have no edge model why; of many, of the first."""
    rows = devices[devices["status"] != "ok"]
    lines = [f"device {row['device']} {row['status']}: {row['reason']}" for _, row in rows[:MANY].iterrows()]
    if len(rows) > MANY:
        lines.append(f"and {len(rows) - MANY} more devices without an edge model; devices.parquet has all.")
    return lines


def whole(number: float | None) -> str:
    """Write a whole number; a dash where it is not known."""
    return "-" if number is None or pd.isna(number) else str(int(number))


def percent(rate: float | None) -> str:
    """Write a rate as a percentage with one digit; a dash where there is none."""
    return "-" if rate is None or pd.isna(rate) else f"{100 * rate:.1f}"


def _share(part: float | None, whole: float) -> str:
    return "-" if part is None or pd.isna(part) else f"{100 * part / whole:.1f} %"


def cohort_text(row: pd.Series) -> str:
    """Write a device's cohort and how many are in it; nothing where it is in none."""
    there = "cohort" in row and pd.notna(row["cohort"])
    return f"{whole(row['cohort'])} ({whole(row['cohort_size'])})" if there else ""


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
