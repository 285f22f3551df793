"""The precision `auto` becomes what it means on this machine, before a configuration gets its id."""

import logging
from functools import cache
from pathlib import Path

from fedprune.core.nested import replace_nested
from fedprune.experiment.config import RunConfig
from fedprune.vit.base_file import expected_shape
from fedprune.vit.precision import choose

logger = logging.getLogger(__name__)

NARROW = 64  # width that is asked for where an option does not tell its base's: the packaged base's


def settle_precision(config: RunConfig) -> RunConfig:
    """Return the configuration with every `auto` precision in it replaced: the run's own, and its trainings'.

    A training's `auto` follows the run's precision. What was chosen and why is logged once a process.
    """
    precision = config.precision
    if precision == "auto":
        shape = expected_shape(config.base)
        choice = choose(NARROW if shape is None else shape.embed, config.compute, Path(config.cache))
        precision = choice.precision
        _tell(f"precision: {precision} ({choice.reason}; set precision to choose yourself)")
    return replace_nested(config, "precision", lambda value: precision if value == "auto" else value)


@cache
def _tell(line: str) -> None:
    logger.warning(line)
