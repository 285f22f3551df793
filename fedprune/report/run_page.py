"""A run's report: one self-contained HTML page, for a colleague."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from markupsafe import Markup

from fedprune.experiment.differences import command_of
from fedprune.experiment.record import Record
from fedprune.experiment.reopen import grouped_devices
from fedprune.experiment.summary import ACCURACIES, accuracies, labels_of
from fedprune.report.accuracy_figure import accuracy_lost, describe_accuracy, title_of
from fedprune.report.cards import cards_of
from fedprune.report.costs import attacks, clock, costs, released_fields, total_spent
from fedprune.report.drawings import inline_photo, inline_svg
from fedprune.report.page import write_page
from fedprune.report.pictures import show_rollout
from fedprune.report.proxy_sheets import proxies_of, rests_on_few
from fedprune.report.results import write_csv
from fedprune.report.run_table import MANY, device_rows, trouble, worst
from fedprune.report.scene import Scene

WIDTH = 4.8  # inches of a drawing: its text can still be read on a telephone


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
    """Write the page of a run, and beside it all of its devices' numbers as CSV.

    Raises:
        FedpruneError: a file cannot be written.
    """
    table = path.with_suffix(".csv")
    write_csv(table, record.devices)
    scene = _open_scene(record) if options.pictures else None
    write_page(
        path,
        "run.html.j2",
        title=record.values["title"],
        heading=title_of(record),
        command=command_of(record.config),
        record=record.values,
        averages=_averages(record),
        trouble=trouble(record.devices),
        figure=inline_svg(accuracy_lost(record, WIDTH), describe_accuracy(record)),
        rows=table_rows(record.devices),
        cards=cards_of(record, scene),
        quantiles=_quantiles(record) if len(record.devices) > MANY else [],
        csv=table.name,
        proxies=proxies_of(record, scene, options.devices, options.private_images) if scene else [],
        few=rests_on_few(record),
        rollout=_rollout(record, scene) if scene else None,
        private_images=options.private_images,
        ledger=released_fields(record),
        spent=total_spent(record),
        attacks=attacks(record),
        costs=costs(record),
        clock=_clock(record),
        config=record.config.to_dict(),
        config_text=json.dumps(record.config.to_dict(), indent=2, ensure_ascii=False),
    )


def table_rows(devices: pd.DataFrame) -> pd.DataFrame:
    """Write the page's row a device, of many devices the worst: as at a run's end, and what the edge model gains."""
    shown = worst(devices, MANY)
    rows, rates = device_rows(shown), accuracies(shown)
    gained = 100 * (rates["edge"] - rates["subclassifier"])
    texts = ["-" if pd.isna(points) else f"{points:+.1f}" for points in gained]
    place = list(rows.columns).index(ACCURACIES["edge"].label) + 1
    rows.insert(place, "less base + sub-classifier", texts)
    return rows


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


def _clock(record: Record) -> tuple[Markup, list[tuple[str, str]]] | None:
    found = clock(record)
    if found is None:
        return None
    figure, numbers = found
    return inline_svg(figure, f"A line a device in virtual time. {'; '.join(map(': '.join, numbers))}."), numbers


def _rollout(record: Record, scene: Scene) -> dict[str, str] | None:
    devices = record.answered[:2]
    if len(devices) < 2:
        return None
    tasks = [scene.tasks()[device] for device in devices]
    alt = f"Three test images each of the devices {' and '.join(tasks)}, and where the base and both edge models look"
    return {"src": inline_photo(show_rollout(scene, {"images": 3, "devices": devices})), "alt": alt}
