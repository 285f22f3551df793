"""The report: one self-contained HTML page about a run or a sweep, for a colleague."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fedprune.core.errors import FedpruneError
from fedprune.core.files import write_text
from fedprune.experiment.journal import read_shapes
from fedprune.experiment.record import Record
from fedprune.experiment.reopen import grouped_devices
from fedprune.experiment.summary import accuracies, labels_of
from fedprune.report.accuracy_figure import accuracy_against_budget
from fedprune.report.costs import attacks, clock, costs, released_fields, total_spent
from fedprune.report.drawings import (
    contact_sheet,
    draw_blocks,
    draw_label_mix,
    inline_png,
    inline_svg,
)
from fedprune.report.figures_of_sweep import accuracy_of_cells
from fedprune.report.pictures import show_rollout
from fedprune.report.render import cell_text, notes
from fedprune.report.run_table import MANY, budget_text, cohort_text, device_rows, percent, trouble, whole, worst
from fedprune.report.scene import Scene
from fedprune.report.table import build_table
from fedprune.study.collect import collect
from fedprune.study.plan import Plan
from fedprune.study.status import status_of
from fedprune.vit.shape import Shape

IMAGES = 16  # of each kind that a device shows


@dataclass(frozen=True)
class PageOptions:
    """What a page shows.

    Attributes:
        pictures: Whether to open the data and the models again, for label mixes, proxy sets and attention.
        private_images: Whether private images may stand beside the proxy sets; possible in a simulation only.
        devices: How many devices show their proxy sets.
    """

    pictures: bool = True
    private_images: bool = True
    devices: int = 3


def write_run_page(record: Record, path: Path, options: PageOptions) -> None:
    """Write the page of a run.

    Raises:
        FedpruneError: the file cannot be written.
    """
    if many := len(record.devices) > MANY:
        table = device_rows(record.devices).to_csv(index=False)
        write_text(path.with_suffix(".csv"), table)
    scene = _open_scene(record) if options.pictures else None
    shapes, config = read_shapes(record.folder), record.config.to_dict()
    write_text(
        path,
        _render(
            "run.html.j2",
            title=record.values["title"],
            record=record.values,
            averages=_averages(record),
            trouble=trouble(record.devices),
            scatter=inline_svg(accuracy_against_budget(record)),
            cards=_cards(record, scene, shapes),
            quantiles=_quantiles(record) if many else [],
            csv=path.with_suffix(".csv").name,
            proxies=_proxies(record, scene, options) if scene else [],
            rollout=_rollout(record, scene) if scene else None,
            private_images=options.private_images,
            ledger=released_fields(record),
            spent=total_spent(record),
            attacks=attacks(record),
            costs=costs(record),
            clock=_clock(record),
            config=config,
            config_text=json.dumps(config, indent=2, ensure_ascii=False),
        ),
    )


def write_sweep_page(plan: Plan, path: Path) -> None:
    """Write the page of many runs: where their cells stand, and their averages over seeds."""
    table = build_table(plan.study, plan.scale, collect(plan.readings))
    statuses = status_of(plan.cells)
    done = sum(status.state == "done" for status in statuses)
    write_text(
        path,
        _render(
            "sweep.html.j2",
            title=plan.study.name.removeprefix("sweep/"),
            table=table,
            notes=notes(table),
            statuses=statuses,
            axes=list(dict.fromkeys(axis for cell in plan.cells for axis in cell.labels)),
            figure=inline_svg(accuracy_of_cells(table)) if done else "",
            done=done,
        ),
    )


def _render(template: str, **values: Any) -> str:
    environment = Environment(loader=PackageLoader("fedprune.report"), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"percent": percent, "text": cell_text}
    return environment.get_template(template).render(**values)


def _open_scene(record: Record) -> Scene:
    scene = Scene(record.config, grouped_devices(record.devices))
    torch.set_num_threads(scene.config.threads)
    return scene


def _averages(record: Record) -> list[dict[str, Any]]:
    summary = record.values["summary"]
    return [
        {"label": label, "mean": summary[f"{name}_mean"], "worst": summary[f"{name}_worst"]}
        for name, label in labels_of(record.devices).items()
    ]


def _quantiles(record: Record) -> list[tuple[str, float]]:
    """Return below which accuracy of the edge model so many devices lie."""
    rates = accuracies(record.devices)["edge"].dropna()
    return [(f"{100 * share:.0f} %", float(rates.quantile(share))) for share in (0.01, 0.05, 0.25, 0.5, 0.75, 0.95)]


def _cards(record: Record, scene: Scene | None, shapes: Mapping[int, Shape]) -> list[dict[str, Any]]:
    devices = worst(record.devices, MANY)
    rates, models = accuracies(devices), labels_of(record.devices)
    cards = []
    for (_, row), (_, rate) in zip(devices.iterrows(), rates.iterrows(), strict=True):
        device = int(row["device"])
        kept = None if pd.isna(row["params"]) else row["params"] / row["base_params"]
        card: dict[str, Any] = {
            "device": device,
            "task": row["task"] or f"{whole(row['classes'])} classes",
            "images": f"{whole(row['train_images'])} + {whole(row['test_images'])} images",
            "status": row["status"],
            "kept": kept,
            "budget": budget_text(row),
            "cohort": cohort_text(row),
            "rates": [(label, rate[name]) for name, label in models.items() if not pd.isna(rate[name])],
            "mix": None,
            "blocks": None,
        }
        if scene is not None:
            shard = scene.shard(device)
            card["mix"] = draw_label_mix(np.bincount(shard.train.labels, minlength=shard.class_count))
            card["blocks"] = _blocks(scene, device, shapes.get(device))
        cards.append(card)
    return cards


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


def _proxies(record: Record, scene: Scene, options: PageOptions) -> list[dict[str, Any]]:
    answered = record.devices.loc[record.devices["status"].isin(["ok", "refused"]), "device"].tolist()
    shown = []
    for device in answered[: options.devices]:
        proxy = scene.proxy(device)
        shard, labels = scene.shard(device), scene.server.images.labels
        own = np.isin(labels[proxy.indices], shard.classes).mean()
        private = scene.some(np.arange(len(shard.train)), IMAGES, "private", device)
        shown.append(
            {
                "name": scene.tasks()[device],
                "proxy": contact_sheet(scene.proxy_images(device, IMAGES)),
                "private": contact_sheet(shard.train.read(private)) if options.private_images else None,
                "nearest": contact_sheet(scene.nearest_public(device, IMAGES)),
                "own": own,
                "diagnostics": {name.replace("_", " "): f"{value:.4g}" for name, value in proxy.diagnostics.items()},
            }
        )
    return shown


def _clock(record: Record) -> tuple[Markup, list[tuple[str, str]]] | None:
    found = clock(record)
    return None if found is None else (inline_svg(found[0]), found[1])


def _rollout(record: Record, scene: Scene) -> str | None:
    whole = record.answered
    if len(whole) < 2:
        return None
    return inline_png(show_rollout(scene, {"images": 3, "devices": whole[:2]}))
