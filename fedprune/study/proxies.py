"""How like the private images of their devices the proxy sets of a finished run are: possible in a simulation only."""

from typing import Any

import numpy as np
import pandas as pd

from fedprune.core.files import write_json
from fedprune.experiment.record import Record
from fedprune.experiment.reopen import reopen
from fedprune.protocol.server import Server
from fedprune.proxy.quality import proxy_quality, rank_agreement
from fedprune.study.afterwards import FILES

IMPORTANCE = "centred_abs"  # the statistic whose means over proxy set and private images are compared


def measure_proxies(record: Record) -> dict[str, Any]:
    """Choose every proxy set again, measure it against its device's images, and write `proxies.json`."""
    server = reopen(record)
    table = pd.DataFrame([_measure(server, device) for device in record.answered])
    found = {**{str(name): float(value) for name, value in table.mean().items()}, "devices": len(table)}
    write_json(record.folder / FILES["proxy"], found)
    return found


def _measure(server: Server, device: int) -> dict[str, float]:
    world = server.world
    labels, own = world.dataset.train.labels, world.shard(device).train
    chosen = server.choose_proxy(device).indices
    chosen_points, own_points = (server.space.project(world.train_features(part)) for part in (chosen, own))
    scores, oracle = (
        np.asarray(server.evidence.mean_row(IMPORTANCE, part)) for part in (chosen, server.oracle_proxy(device))
    )
    return {
        **proxy_quality(chosen_points, labels[chosen], own_points, labels[own]),
        **rank_agreement(scores, oracle),
    }
