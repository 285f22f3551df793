"""How long runs may take where none has finished yet: a rough guess from the passes of images through the base."""

from collections.abc import Iterable
from functools import cache

import torch

from fedprune.core.errors import ModelError
from fedprune.experiment.config import RunConfig
from fedprune.vit.base import BaseSource
from fedprune.vit.base_file import create
from fedprune.vit.base_glyphs import ARCHITECTURE
from fedprune.vit.base_timm import TimmBase
from fedprune.vit.base_trained import TrainedBase
from fedprune.vit.counts import count_macs
from fedprune.vit.inspect import read_shape

# Our guesses, good to a factor of a few: one CPU thread, and half of what a data-centre GPU does in bf16.
MACS_PER_SECOND = {"cpu": 2e10, "cuda": 5e13}
EVIDENCE, RECOVERY = 3, 3  # forward passes that evidence (with its backward pass) and recovery of a proxy image cost
OVERHEAD = 3.0  # seconds of a run beyond passes


def expected_seconds(configs: Iterable[RunConfig]) -> float | None:
    """Guess the seconds that runs take one after the other, pool and training of bases left out; None if unknown.

    Methods that train or score image by image take longer.
    """
    total = 0.0
    for config in configs:
        macs = _macs(config.base)
        if macs is None:
            return None
        partition = config.partition
        train, test = getattr(partition, "max_train", 0), getattr(partition, "max_test", 0)
        proxy = config.proxy_size * (EVIDENCE + RECOVERY) * (1 + config.oracle)
        images = partition.devices * (train + (2 + config.oracle) * test + proxy)
        total += OVERHEAD + images * macs / MACS_PER_SECOND[config.compute]
    return total


@cache
def _macs(base: BaseSource) -> int | None:
    """Return the MACs of one image in the base, from its name alone; no weights are loaded."""
    source = base.source if isinstance(base, TrainedBase) else base
    architecture = ARCHITECTURE
    if isinstance(source, TimmBase):
        architecture = {"model": source.model} | ({"img_size": source.image_size} if source.image_size else {})
    try:
        with torch.device("meta"):
            return count_macs(read_shape(create(architecture)))
    except (ModelError, RuntimeError, NotImplementedError):
        return None
