"""From a run's rows to its averages: per device first, then over devices."""

import math

import pandas as pd

ROWS = ("base", "subclassifier", "edge", "oracle")
PERSONAL = ("personal", "reference")  # only where devices train on their own images


def accuracies(devices: pd.DataFrame) -> pd.DataFrame:
    """Return one accuracy a device and row of comparison; NaN where it was not measured."""
    tested = devices["test_images"].where(devices["test_images"] > 0)
    rows = [*ROWS, *PERSONAL]
    counts = devices.reindex(columns=[f"{name}_correct" for name in rows]).astype("Float64").astype(float)
    return counts.div(tested, axis=0).set_axis(rows, axis=1)


def summarise(devices: pd.DataFrame) -> dict[str, float | int | None]:
    """Average a run: plain mean, image-weighted mean and the mean of the worst 10 % of devices (at least one).

    Only devices whose edge model was evaluated count; `measured` says how many those are.
    """
    values = accuracies(devices)
    measured = values["edge"].notna()
    summary: dict[str, float | int | None] = {"devices": len(devices), "measured": int(measured.sum())}
    weights = devices.loc[measured, "test_images"]
    for name in [*ROWS, *(name for name in PERSONAL if f"{name}_correct" in devices)]:
        column = values.loc[measured, name].dropna()
        images = weights[column.index]
        worst = column.nsmallest(max(1, math.ceil(0.1 * len(column))))
        summary[f"{name}_mean"] = _number(column.mean())
        summary[f"{name}_weighted"] = float((column * images).sum() / images.sum()) if len(column) else None
        summary[f"{name}_worst"] = _number(worst.mean())
    for name in ("params", "macs"):
        kept = (devices[name].astype("Float64") / devices[f"base_{name}"]).dropna()
        summary[f"{name}_kept"] = _number(kept.mean())
    return summary


def _number(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
