"""How like the private images of their devices the proxy sets of a run are: possible in a simulation only."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedprune.core.files import write_json
from fedprune.core.registry import register
from fedprune.experiment.config import RunConfig
from fedprune.experiment.reopen import Replay, reopen
from fedprune.proxy.quality import proxy_quality, rank_agreement
from fedprune.study.measurement import Measurement, Number

IMPORTANCE = "centred_abs"  # the statistic whose means over proxy set and private images are compared
AGAINST = ("members", "outsiders")


@register("measurement", "proxy")
@dataclass(frozen=True)
class ProxySets(Measurement):
    """Likeness of proxy sets to the private images of their devices; needs their reports, no edge model.

    Attributes:
        against: What a proxy set is compared with: `members`, the images that the device reported, or `outsiders`,
            its test images. A proxy set of a device's own images is the same as its members by every measure.
    """

    against: str = "members"

    def __post_init__(self) -> None:
        if self.against not in AGAINST:
            raise ValueError(f"a proxy set is compared with {' or '.join(AGAINST)}, not with {self.against!r}")

    @property
    def needs_models(self) -> bool:
        """No: proxy sets follow from reports."""
        return False

    @property
    def numbers(self) -> Mapping[str, Number]:
        """Means over devices of what `proxy/quality.py` measures."""
        return {
            "mmd": Number("squared MMD of proxy set and private images", False, 4),
            "frechet": Number("Frechet distance of proxy set and private images", False, 2),
            "c2st": Number("AUC of telling proxy set and private images apart", False),
            "label_tv": Number("total variation between label mixes", False),
            "class_coverage": Number("share of the device's classes in the proxy set", True),
            "precision": Number("share of proxy images near private ones", True),
            "coverage": Number("share of private images near proxy images", True),
            "spearman": Number("rank correlation of importances with the oracle's", True),
            "jaccard": Number("overlap of the more important half with the oracle's", True),
        }

    @property
    def file(self) -> str:
        """`proxies.json`, or `proxies-outsiders.json`."""
        return "proxies.json" if self.against == "members" else f"proxies-{self.against}.json"

    def measure(self, folder: Path, config: RunConfig) -> dict[str, Any]:
        """Choose the proxy set of every accepted report and compare it with the device's images."""
        replay = reopen(folder, config)
        table = pd.DataFrame([self._compare(replay, device) for device in sorted(replay.server.reports)])
        found = {**{str(name): float(value) for name, value in table.mean().items()}, "devices": len(table)}
        write_json(folder / self.file, found)
        return found

    def _compare(self, replay: Replay, device: int) -> dict[str, float]:
        simulation, upper_mark, shard = replay.simulation, replay.upper_mark, replay.simulation.shard(device)
        chosen = replay.proxy(device).indices
        chosen_points, chosen_labels = simulation.points_of(chosen), upper_mark.images.labels[chosen]
        if self.against == "members":
            own_features, own_labels = shard.train_features(), shard.train.labels
        else:
            own_features, own_labels = shard.test_features(), shard.test.labels
        scores, oracle = (
            np.asarray(upper_mark.evidence.mean_row(IMPORTANCE, part))
            for part in (chosen, upper_mark.oracle_proxy(device))
        )
        return {
            **proxy_quality(chosen_points, chosen_labels, simulation.public.space.project(own_features), own_labels),
            **rank_agreement(scores, oracle),
        }
