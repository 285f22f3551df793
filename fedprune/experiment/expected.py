"""How long runs may take where none has finished yet: a rough guess from the passes of images through the base."""

from collections.abc import Iterable

from fedprune.experiment.config import RunConfig
from fedprune.recovery.none import NoRecovery
from fedprune.vit.base_file import expected_shape
from fedprune.vit.counts import count_macs
from fedprune.vit.precision import takes_bf16
from fedprune.vit.shape import Shape

# Our guesses, good to a factor of a few: one CPU thread in float32, one that multiplies bf16 matrices in hardware, and
# half of what a data-centre GPU does in bf16.
MACS_PER_SECOND = {"fp32": 2e10, "bf16": 1e11, "cuda": 5e13}
EVIDENCE, RECOVERY = 3, 3  # forward passes that evidence (with its backward pass) and recovery of a proxy image cost
OVERHEAD = 3.0  # seconds of a run beyond passes


def expected_passes(config: RunConfig) -> float:
    """Return the forward passes of images that a run takes beyond its pool's features; training of a base left out.

    Methods that train or score image by image take more.
    """
    partition = config.partition
    train, test = getattr(partition, "max_train", 0), getattr(partition, "max_test", 0)
    passes = EVIDENCE + (0 if isinstance(config.recovery, NoRecovery) else RECOVERY)
    proxy = config.proxy_size * passes * (1 + config.oracle)
    return float(partition.devices * (train + (2 + config.oracle) * test + proxy))


def expected_seconds(configs: Iterable[RunConfig]) -> float | None:
    """Guess the seconds that runs take one after the other, pool and training of bases left out; None if unknown."""
    total = 0.0
    for config in configs:
        shape = expected_shape(config.base)
        if shape is None:
            return None
        total += OVERHEAD + expected_passes(config) * count_macs(shape) / _speed(config, shape)
    return total


def _speed(config: RunConfig, shape: Shape) -> float:
    if config.compute == "cuda":
        return MACS_PER_SECOND["cuda"]
    return MACS_PER_SECOND["bf16" if takes_bf16(config.precision, shape.embed) else "fp32"]
