"""Attack the reports of a finished run: as an attacker sees them, with the truth that only a simulation has."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedprune.attacks.attack import Attack, AttackCase, Outcome, summary
from fedprune.attacks.curve import draw_roc
from fedprune.core.errors import DataError, ModelError
from fedprune.core.files import write_json, write_text
from fedprune.core.random import stream_seed
from fedprune.core.registry import from_dict
from fedprune.experiment.record import Record
from fedprune.experiment.reopen import reopen
from fedprune.mixture.features import extract
from fedprune.mixture.mixture import FloatArray
from fedprune.protocol.setup import World
from fedprune.protocol.storage import StoredModel
from fedprune.vit.shape import Shape

ABOUT_RECORDS = ("membership", "lira", "nearest", "audit")  # epsilon says nothing about labels or devices


def attack_run(
    record: Record, cases: Sequence[AttackCase], name: str, settings: Mapping[str, Any], seed: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run an attack and write `attacks/<name>.csv` (a row a device), `.json` and `.png` into the run's folder.

    Args:
        record: The run.
        cases: See `attack_cases`.
        name: The attack.
        settings: What its options are set to.
        seed: Of the cases.

    Returns:
        A row a device, and the summary.
    """
    attack: Attack = from_dict("attack", {"name": name, **settings})
    outcomes = attack.run(cases)
    rows = pd.DataFrame([outcome.row() for outcome in outcomes])
    mechanism = record.values["config"]["mechanism"]
    found = _plain(
        {
            "attack": name,
            "run": record.values["run"],
            "mechanism": mechanism["name"],
            "seed": seed,
            "settings": dict(settings),
            **summary(outcomes),
            "devices": len(outcomes),
        }
    )
    folder = record.folder / "attacks"
    write_text(folder / f"{name}.csv", rows.to_csv(index=False))
    write_json(folder / f"{name}.json", found)
    _draw(folder / f"{name}.png", name, outcomes, mechanism)
    return rows, found


def attack_cases(record: Record, seed: int) -> list[AttackCase]:
    """Rebuild space, pool and private features of a run and pair them with the reports that were accepted.

    Outsiders are the devices' private test images: of the same law of labels, and no report rests on them.

    Raises:
        DataError: the run has no report.
    """
    server = reopen(record)
    world, space = server.world, server.space
    labels, pool = world.dataset.train.labels, world.partition.pool
    cases = []
    for device, report in sorted(server.reports.items()):
        shard = world.shard(device)
        cases.append(
            AttackCase(
                device=device,
                mixture=report.mixture,
                space=space,
                pool=server.pool_points,
                pool_labels=labels[pool],
                members=space.project(world.train_features(shard.train)),
                member_labels=labels[shard.train],
                outsiders=space.project(_test_features(world, shard.test)),
                outsider_labels=world.dataset.test.labels[shard.test],
                class_count=len(world.dataset.classes),
                fit=world.setup.mixture,
                mechanism=world.setup.mechanism,
                seed=stream_seed(seed, "attack"),
                widths=_widths(record.folder / "models" / f"device-{device:03d}.safetensors"),
            )
        )
    if not cases:
        raise DataError(f"{record.folder} holds no accepted report. Attack a run in which a device reported.")
    return cases


def widths_of(shape: Shape) -> FloatArray:
    """Return the widths of a shape as one vector: embedding, then each block's heads, qk, v, neurons."""
    blocks = [[block.heads, block.qk, block.v, block.neurons] for block in shape.blocks]
    return np.array([shape.embed, *np.ravel(blocks)], dtype=np.float64)


def _test_features(world: World, indices: np.ndarray) -> np.ndarray:
    setup, test = world.setup, world.dataset.test
    return extract(world.base, test, indices, setup.features.kind, precision=setup.precision, device=setup.compute)


def _widths(path: Path) -> FloatArray | None:
    """Return the widths of a stored edge model, or None where the run stored none."""
    try:
        return widths_of(StoredModel.read(path).shape)
    except ModelError:
        return None


def _draw(path: Path, name: str, outcomes: Sequence[Outcome], mechanism: Mapping[str, Any]) -> None:
    epsilon = mechanism.get("epsilon") if name in ABOUT_RECORDS else None
    draw_roc(path, {name: outcomes}, epsilon, mechanism.get("delta", 0.0))


def _plain(values: Any) -> Any:
    """JSON has no NaN: what could not be measured is null."""
    if isinstance(values, dict):
        return {key: _plain(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_plain(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
