"""SPViT's latency side: what tokens cost in time on a class of devices, and the ratios that keep a limit.

The public code has none of it; this follows the paper's description of its computation-aware training (Kong et al.,
ECCV 2022), in our reading.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from fedprune.core.errors import BudgetError, ConfigError, DataError
from fedprune.core.ranges import at_least
from fedprune.core.registry import build
from fedprune.core.yaml_file import read_yaml_file, write_yaml_file
from fedprune.tokens.counts import token_counts
from fedprune.tokens.reducer import Staged
from fedprune.vit.shape import Shape

HALVINGS = 24  # of the interval in which the exponent of a family is sought
AnyStaged = TypeVar("AnyStaged", bound=Staged)


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of one image's parts against tokens (the paper's latency-sparsity table), linear between its points.

    `fedprune profile --tokens` measures one.

    Attributes:
        title: The machine, for people.
        runtime: What ran the models.
        reducer: The reducer whose selector was measured.
        embed: Width of the base.
        depth: Its blocks.
        tokens: Numbers of tokens, class token and packages included, rising to all that the base has.
        block: Milliseconds of a block that so many tokens enter.
        selector: Milliseconds of a selector that so many tokens enter, its package and the gathering included.
        rest: Milliseconds of what stands before and behind the blocks.
        margin: By how much of its prediction a model may be slower: what a limit has to leave free.
    """

    title: str
    runtime: str
    reducer: str
    embed: int
    depth: int
    tokens: tuple[int, ...]
    block: tuple[float, ...]
    selector: tuple[float, ...]
    rest: float = 0.0
    margin: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a table that does not rise or has gaps."""
        if len(self.tokens) < 2 or list(self.tokens) != sorted(set(self.tokens)):
            raise ValueError("tokens are at least two numbers that rise")
        if not len(self.tokens) == len(self.block) == len(self.selector):
            raise ValueError("there is one time of a block and one of a selector for each number of tokens")
        for times in (self.block, self.selector):
            if list(times) != sorted(times) or not 0 <= times[0] <= times[-1] < np.inf:
                raise ValueError("times are at least 0, finite, and do not fall where tokens rise")
        at_least(self, 0, "rest", "margin")

    def milliseconds(self, reducer: Staged, shape: Shape) -> float:
        """Return what one image takes at most in a base of `shape` with `reducer` in it: prediction and margin."""
        stages = reducer.stages(shape)
        total = self.rest
        for index, (entering, attending, _, _) in enumerate(token_counts(shape, stages)):
            total += float(np.interp(attending, self.tokens, self.block))
            if index in stages:
                total += float(np.interp(entering, self.tokens, self.selector))
        return (1 + self.margin) * total

    def check(self, reducer: str, shape: Shape) -> None:
        """Refuse a reducer or a base that the table was not measured for.

        Raises:
            ConfigError: it says what differs.
        """
        mine = (self.reducer, self.embed, self.depth, self.tokens[-1])
        asked = (reducer, shape.embed, len(shape.blocks), shape.tokens)
        if mine != asked:
            named = "{} in a base {} wide with {} blocks and {} tokens"
            raise ConfigError(
                f"The latency table is of {named.format(*mine)}; this is {named.format(*asked)}. Measure its own with "
                "fedprune profile --tokens and the settings of this run."
            )

    def save(self, path: Path) -> None:
        """Write the table as YAML."""
        write_yaml_file(path, vars(self))


def load_table(path: str) -> LatencyTable:
    """Load a latency table from its YAML file.

    Raises:
        ConfigError: there is no such file, or it does not hold a table.
    """
    try:
        values = read_yaml_file(Path(path))
    except (OSError, DataError) as error:
        raise ConfigError(
            f"Cannot read a latency table: {error}. Measure one with fedprune profile --tokens."
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} does not hold a latency table. Measure one with fedprune profile --tokens.")
    return build(LatencyTable, values, where=path)


def at_blocks(reducer: AnyStaged, shape: Shape, shares: Sequence[tuple[int, float]]) -> AnyStaged:
    """Return `reducer` with one stage in front of each of these blocks, given the share of patch tokens it leaves."""
    if not shares:
        return dataclasses.replace(reducer, keep=1.0, ratios=())
    blocks, ratios = zip(*shares, strict=True)
    return dataclasses.replace(reducer, places=tuple(each / len(shape.blocks) for each in blocks), ratios=ratios)


def fastest(reducer: Staged, shape: Shape, table: LatencyTable, first: int) -> float:
    """Return the fewest milliseconds that stages in front of block `first` or later can reach, or none at all."""
    least = 1 / shape.patches
    ways = [(), *([(block, least)] for block in range(first, len(shape.blocks)))]
    return min(table.milliseconds(at_blocks(reducer, shape, way), shape) for way in ways)


def ratios_within(reducer: AnyStaged, shape: Shape, table: LatencyTable, limit: float) -> AnyStaged:
    """Return the reducer at the largest ratios of its family that keep `limit` milliseconds.

    The ratios are its own to the power of t, t the smallest exponent that keeps the limit: from everything (t = 0)
    over its own (t = 1) to a single token. The ratio loss is then the paper's latency-sparsity loss,
    sum_i (1 - rho_i - mean share that goes)^2 with the times of all blocks within the limit.

    Raises:
        BudgetError: even a single token at its places is too slow; the message says how fast they get.
    """
    least = 1 / shape.patches

    def family(exponent: float) -> AnyStaged:
        return dataclasses.replace(reducer, ratios=tuple(max(least, share**exponent) for share in reducer.shares))

    def keeps(exponent: float) -> bool:
        return table.milliseconds(family(exponent), shape) <= limit

    low, high = 0.0, float(np.log(least) / np.log(reducer.shares[0])) if reducer.shares[0] < 1 else 0.0
    if not keeps(high):
        raise BudgetError(
            f"With these stages one image takes at least {table.milliseconds(family(high), shape):.3g} ms, over the "
            f"limit of {limit:.3g} ms. Raise the limit or put the stages further in front."
        )
    if keeps(low):
        return family(low)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if keeps(middle) else (middle, high)
    return family(high)
