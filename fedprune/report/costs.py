"""What the report page says about what a run cost and what it gives away: bytes, times, the ledger, attacks."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fedprune.experiment.record import Record
from fedprune.privacy.ledger import Ledger
from fedprune.report.drawings import png_uri
from fedprune.report.style import COLOURS, GREY, legend_beside, new_figure, tidy_axes
from fedprune.study.measure_speed import Speed


def costs(record: Record) -> Sequence[tuple[str, str]]:
    """Return what was sent and how long the server worked."""
    devices = record.devices
    base = devices["base_params"].iloc[0] * 4
    found = [
        ("report sent by a device, mean", f"{devices['upload_bytes'].mean() / 1000:.2f} kB"),
        (
            "edge model sent to a device, mean",
            f"{devices['download_bytes'].mean() / 1000:.0f} kB (the base: {base / 1000:.0f} kB)",
        ),
        ("deriving and recovering one edge model, mean", f"{devices['derive_seconds'].mean():.2f} s"),
        ("the whole run", f"{record.values['seconds']:.1f} s"),
    ]
    speed = record.folder / Speed().file
    if speed.is_file():
        values = json.loads(speed.read_text(encoding="utf-8"))
        found.append(
            (
                "one image on one thread of the machine that measured it, mean",
                f"{values['milliseconds']:.2f} ms (the base: {values['base_milliseconds']:.2f} ms)",
            )
        )
    return found


def clock(record: Record) -> tuple[Figure, list[tuple[str, str]]] | None:
    """Return the devices' virtual time as a drawing and in numbers; None where time played no part."""
    devices = record.devices
    if "virtual_report_s" not in devices:
        return None
    columns = [f"virtual_{name}" for name in ("report_s", "finish_s", "compute_s", "energy_j")]
    times = devices.reindex(columns=columns).astype(float).rename(columns=lambda name: name.removeprefix("virtual_"))
    ready = devices["status"].isin(["ok", "refused"])
    closed = times.loc[ready, "report_s"].max()
    numbers = [
        ("phase of reports closed after", _seconds(closed)),
        ("last edge model evaluated after", _seconds(times["finish_s"].max())),
        ("computing on a device, median", _seconds(times["compute_s"].median())),
        ("energy of a device, median", f"{times['energy_j'].median():.3g} J"),
        ("devices that were not waited for, or did not make it", str(int((~ready).sum()))),
    ]
    return _timeline(devices, times, closed), numbers


def _timeline(devices: pd.DataFrame, times: pd.DataFrame, closed: float) -> Figure:
    """Draw a line a device, on a log axis: when its report was in, and when its own model was evaluated."""
    order = times["report_s"].sort_values(na_position="last").index
    places = np.arange(len(order))
    report, finish = times.loc[order, "report_s"], times.loc[order, "finish_s"]
    figure = new_figure(6, 0.9 + 0.17 * min(max(len(order), 6), 60))
    axes = figure.add_subplot()
    axes.hlines(places, report, finish, color="0.85", lw=1.2, zorder=1)
    axes.plot(report, places, "o", color=COLOURS[4], ms=5, label="report is in")
    axes.plot(finish, places, "s", color=COLOURS[0], ms=4.5, label="edge model is evaluated")
    axes.axvline(closed, color=GREY, lw=0.8, ls=":", label="reports closed")
    axes.set_xscale("log")
    if len(order) <= 60:
        axes.set_yticks(places, devices.loc[order, "device"].astype(str), fontsize=6.5)
    else:
        axes.set_yticks([])
    axes.invert_yaxis()
    tidy_axes(axes, xlabel="virtual time (s)", ylabel="device")
    legend_beside(figure)
    return figure


def released_fields(record: Record) -> list[dict[str, Any]]:
    """Return one line a released field and protection, with the number of devices behind it."""
    lines: dict[str, dict[str, Any]] = {}
    for entry in record.ledger:
        plain = {key: entry.get(key) for key in ("field", "mechanism", "epsilon", "delta", "noise", "note")}
        line = lines.setdefault(json.dumps(plain, sort_keys=True), {**plain, "devices": 0})
        line["devices"] += 1
    return list(lines.values())


def total_spent(record: Record) -> str:
    """Say the largest privacy loss of a device over all that it released."""
    entries, delta = record.ledger, record.delta
    ledger = Ledger.from_rows(entries, delta=delta)
    spent = max((ledger.spent(device) for device in {entry["device"] for entry in entries}), default=0.0)
    if math.isinf(spent):
        return "No guarantee: something about single images was released without protection."
    return f"Epsilon {spent:.3g} at delta {delta:g} for adding or removing one image, the largest total of a device."


def attacks(record: Record) -> list[dict[str, Any]]:
    """Return what attacks on the run's reports found, where `fedprune attack` has made some."""
    found = []
    for path in sorted((record.folder / "attacks").glob("*.json")):
        values = json.loads(path.read_text(encoding="utf-8"))
        picture = path.with_suffix(".png")
        found.append(
            {
                "name": path.stem.replace("_", " "),
                "auc": _rate(values, "auc"),
                "at_1": _rate(values, "tpr_at_1pct_fpr"),
                "guesses": f"{values['positives']} + {values['negatives']}",
                "devices": values["devices"],
                "roc": png_uri(picture.read_bytes()) if picture.is_file() else None,
            }
        )
    return found


def _rate(values: dict[str, Any], name: str) -> str:
    if values.get(name) is None:
        return "-"
    low, high = values[f"{name}_interval"]
    return f"{values[name]:.3f} ({low:.3f} to {high:.3f})"


def _seconds(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s"
