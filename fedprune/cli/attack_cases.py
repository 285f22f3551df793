"""Open a finished run again as an attacker would see it, with the truth that only a simulation has."""

from pathlib import Path

import numpy as np

from fedprune.attacks.attack import AttackCase
from fedprune.core.errors import DataError, ModelError
from fedprune.core.random import stream_seed
from fedprune.experiment.config import RunConfig
from fedprune.experiment.journal import Journal
from fedprune.experiment.record import Record
from fedprune.mixture.mixture import FloatArray
from fedprune.protocol.observer import Observer
from fedprune.protocol.options import ROOMS, import_options
from fedprune.protocol.server import Server
from fedprune.protocol.setup import World, open_world
from fedprune.vit.shape import Shape
from fedprune.vit.storage import read_edge_file


def attack_cases(record: Record, seed: int) -> list[AttackCase]:
    """Rebuild space, pool and private features of a run and pair them with the reports that were accepted.

    Outsiders are the devices' private test images: of the same law of labels, and no report rests on them.

    Raises:
        DataError: the run has no report.
    """
    import_options((*ROOMS, "fedprune.federation"))
    config = RunConfig.from_dict(record.values["config"])
    world = open_world(config.setup())
    server = Server(world, config.server_options())
    journal = Journal(record.folder, save_models=False, listener=Observer())
    pool = server.space.project(world.train_features(world.partition.pool))
    cases = []
    for shard in world.partition.shards:
        upload = journal.stored_report(shard.device)
        if upload is None:
            continue
        mixture = server.receive(shard.device, upload.arrays).mixture
        labels = world.dataset.train.labels
        cases.append(
            AttackCase(
                device=shard.device,
                mixture=mixture,
                space=server.space,
                pool=pool,
                pool_labels=labels[world.partition.pool],
                members=server.space.project(world.train_features(shard.train)),
                member_labels=labels[shard.train],
                outsiders=server.space.project(_test_features(world, shard.test)),
                outsider_labels=world.dataset.test.labels[shard.test],
                class_count=len(world.dataset.classes),
                fit=config.mixture,
                mechanism=config.mechanism,
                seed=stream_seed(seed, "attack"),
                widths=_widths(record.folder / "models" / f"device-{shard.device:03d}.safetensors"),
            )
        )
    if not cases:
        raise DataError(f"{record.folder} holds no accepted report. Attack a run in which a device reported.")
    return cases


def _test_features(world: World, indices: np.ndarray) -> np.ndarray:
    from fedprune.mixture.features import extract

    setup = world.setup
    return extract(
        world.base,
        world.dataset.test,
        indices,
        setup.features.kind,
        precision=setup.precision,
        device=setup.compute,
    )


def _widths(path: Path) -> FloatArray | None:
    """Return the widths of a stored edge model, or None where the run stored none."""
    try:
        return widths_of(read_edge_file(path).shape)
    except ModelError:
        return None


def widths_of(shape: Shape) -> FloatArray:
    """Return the widths of a shape as one vector: embedding, then each block's heads, qk, v, neurons."""
    blocks = [[block.heads, block.qk, block.v, block.neurons] for block in shape.blocks]
    return np.array([shape.embed, *np.ravel(blocks)], dtype=np.float64)
