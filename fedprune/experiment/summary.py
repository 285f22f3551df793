"""The accuracies that a run compares, and its averages: per device first, then over devices."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from fedprune.cohorts.cohorts import MODEL


@dataclass(frozen=True)
class Accuracy:
    """One of the accuracies that every device gives, of the same private test images.

    Attributes:
        label: The model that is evaluated.
        title: The accuracy in a table of its own, with its unit.
        trained: Whether only runs have it whose devices train on their own images.
    """

    label: str
    title: str
    trained: bool = False


ACCURACIES: dict[str, Accuracy] = {  # by the name of its column: <name>_correct
    "base": Accuracy("base", "accuracy of the base (%)"),
    "subclassifier": Accuracy("base + sub-classifier", "accuracy of the base + sub-classifier (%)"),
    "edge": Accuracy("edge model", "accuracy (%)"),
    "oracle": Accuracy("oracle proxy set", "accuracy with the oracle proxy set (%)"),
    "personal": Accuracy("edge model, trained", "accuracy after training on own images (%)", trained=True),
    "reference": Accuracy(
        "base + sub-classifier, trained", "accuracy of the base + sub-classifier + fine-tune (%)", trained=True
    ),
}


def labels_of(devices: pd.DataFrame) -> Mapping[str, str]:
    """Return the accuracies that a run has, each with its label."""
    return {
        name: accuracy.label
        for name, accuracy in ACCURACIES.items()
        if not accuracy.trained or f"{name}_correct" in devices
    }


def accuracies(devices: pd.DataFrame) -> pd.DataFrame:
    """Return one accuracy a device and model; NaN where it was not measured."""
    tested = _floats(devices["test_images"])
    counts = devices.reindex(columns=[f"{name}_correct" for name in ACCURACIES]).apply(_floats)
    return counts.div(tested.where(tested > 0), axis=0).set_axis(list(ACCURACIES), axis=1)


def summarise(devices: pd.DataFrame) -> dict[str, float | int | None]:
    """Average a run: plain mean, image-weighted mean and the mean of the worst 10 % of devices (at least one).

    Only devices whose edge model was evaluated count; `measured` says how many those are. Where devices share,
    `cohorts` and `models` say how many of each there were.
    """
    values = accuracies(devices)
    measured = values["edge"].notna()
    summary: dict[str, float | int | None] = {"devices": len(devices), "measured": int(measured.sum())}
    weights = _floats(devices["test_images"])[measured]
    for name in labels_of(devices):
        column = values.loc[measured, name].dropna()
        images = weights[column.index]
        worst = column.nsmallest(max(1, math.ceil(0.1 * len(column))))
        summary[f"{name}_mean"] = _number(column.mean())
        summary[f"{name}_weighted"] = float((column * images).sum() / images.sum()) if len(column) else None
        summary[f"{name}_worst"] = _number(worst.mean())
    for name in ("params", "macs"):
        kept = (devices[name].astype("Float64") / devices[f"base_{name}"]).dropna()
        summary[f"{name}_kept"] = _number(kept.mean())
    if "cohort" in devices:
        summary.update(_shared(devices))
    return summary


def _shared(devices: pd.DataFrame) -> dict[str, int]:
    """Count cohorts and the models that were derived for them."""
    derived = devices[devices["cohort"].notna() & devices["params"].notna()]
    cohorts = derived["cohort"].nunique()
    alone = derived["cohort_share"].ne(MODEL)
    return {"cohorts": cohorts, "models": int(alone.sum()) + derived.loc[~alone, "cohort"].nunique()}


def _floats(column: pd.Series) -> pd.Series:
    """Return whole numbers as floats, NaN where there is none."""
    return column.astype("Float64").astype(float)


def _number(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
