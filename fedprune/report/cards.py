"""What a run's page shows of each device: its label mix, its model's blocks, and its accuracies as differences."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from fedprune.core.errors import FedpruneError
from fedprune.experiment.journal import read_shapes
from fedprune.experiment.record import Record
from fedprune.experiment.summary import accuracies, labels_of
from fedprune.report.drawings import draw_blocks, draw_label_mix
from fedprune.report.names import in_prose
from fedprune.report.run_table import MANY, budget_text, cohort_text, whole, worst
from fedprune.report.scene import Scene
from fedprune.vit.shape import Shape

AGAINST = "subclassifier"  # what others are compared with, but the base alone, which is asked all classes


@dataclass(frozen=True)
class Bar:
    """One accuracy of a device against that of the base with its sub-classifier.

    Attributes:
        label: The model.
        rate: Its accuracy, a share of 1.
        points: How much more it is right, in points.
        left: Where its bar begins, in percent of the width; the middle is no difference.
        width: Of the bar, in the same unit.
    """

    label: str
    rate: float
    points: float
    left: float
    width: float


def cards_of(record: Record, scene: Scene | None) -> list[dict[str, Any]]:
    """Return one card a device, of many devices the worst; drawings only where there is a scene."""
    devices, shapes = worst(record.devices, MANY), read_shapes(record.folder)
    found = []
    for (_, row), bars in zip(devices.iterrows(), bars_of(devices), strict=True):
        device = int(row["device"])
        card: dict[str, Any] = {
            "device": device,
            "task": in_prose(row["task"]) or f"{whole(row['classes'])} classes",
            "images": f"{whole(row['train_images'])} + {whole(row['test_images'])} images",
            "status": row["status"],
            "kept": None if pd.isna(row["params"]) else row["params"] / row["base_params"],
            "budget": budget_text(row),
            "cohort": cohort_text(row),
            "bars": bars,
            "mix": None,
            "blocks": None,
        }
        if scene is not None:
            shard = scene.shard(device)
            card["mix"] = draw_label_mix(np.bincount(shard.train.labels, minlength=shard.class_count))
            card["blocks"] = _blocks(scene, device, shapes.get(device))
        found.append(card)
    return found


def bars_of(devices: pd.DataFrame) -> list[list[Bar]]:
    """Return each device's accuracies as differences, all on one scale; the one compared with comes first."""
    labels = {name: label for name, label in labels_of(devices).items() if name != "base"}
    rates = accuracies(devices)[list(labels)]
    differences = 100 * rates.sub(rates[AGAINST], axis=0)
    largest = max(float(np.nanmax(differences.abs().to_numpy(), initial=0)), 1.0)
    found = []
    for index in devices.index:
        bars = []
        for name in sorted(labels, key=lambda each: each != AGAINST):
            points = float(differences.loc[index, name])
            if not np.isnan(points):
                width = 50 * abs(points) / largest
                bars.append(Bar(labels[name], float(rates.loc[index, name]), points, 50 - width * (points < 0), width))
        found.append(bars)
    return found


def _blocks(scene: Scene, device: int, shape: Shape | None) -> Markup | None:
    if shape is None:
        return None
    base = scene.base.shape
    if len(shape.blocks) == len(base.blocks):
        kept = tuple(range(len(base.blocks)))
    else:
        try:
            kept = tuple(block.block for block in scene.edge(device).keep.blocks)
        except FedpruneError:
            return None
    return draw_blocks(base, shape, kept)
