"""Runs that drew the same noise: a simulation's noise follows from seeds, and seeds can be used twice."""

import json
from collections import defaultdict
from collections.abc import Sequence

from fedprune.core.hashing import content_hash
from fedprune.experiment.record import Record
from fedprune.privacy.gaussian import GaussianMechanism
from fedprune.privacy.ledger import SYSTEM_NOISE, LedgerEntry

DETERMINES = ("data", "partition", "base", "features", "mixture", "mechanism", "seed", "precision")
REUSED = LedgerEntry("mixture", note="another release with the same seeded noise: together they give both away")


def devices_with_reused_noise(records: Sequence[Record]) -> list[int]:
    """Return the devices of which two of these runs released different things under the same seeded noise.

    The difference of two such releases has less noise than either, none where sigma is the same. Two runs that release
    the same, for instance with other methods of pruning, give nothing more away.
    """
    releases: dict[tuple[int, int, int], set[str]] = defaultdict(set)
    for record in records:
        setup = record.config.setup()
        if not isinstance(setup.mechanism, GaussianMechanism):
            continue
        told = json.loads(setup.to_json())
        release = content_hash([told[name] for name in DETERMINES], _content(record))
        for row in record.ledger:
            if row["noise"] is not None and row["note"] != SYSTEM_NOISE:
                releases[row["device"], setup.seed, setup.mechanism.noise_seed].add(release)
    return sorted({device for (device, _, _), found in releases.items() if len(found) > 1})


def _content(record: Record) -> dict[str, str]:
    """Return the hashes of all data that a run was made from, without those of code."""
    made_from: dict[str, str] = record.values.get("made_from", {})
    return {what: found for what, found in made_from.items() if not what.startswith(("the code of", "the version of"))}
