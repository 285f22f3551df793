"""SPViT's latency side: a measured table of times against tokens, and ratios that meet a limit in milliseconds.

The published code has none of it; this follows the paper's description (Kong et al., ECCV 2022, section 4). The
block-to-stage search, which trains a selector in front of every block in turn, is not built.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import nn

from fedprune.core.errors import BudgetError
from fedprune.devices.timing import interleaved
from fedprune.tokens.reducer import Stage
from fedprune.tokens.state import Tokens
from fedprune.vit.shape import Shape


@dataclass(frozen=True)
class LatencyTable:
    """Seconds for some shares of the patch tokens (the paper's latency-sparsity table), linear between them.

    Attributes:
        ratios: Kept shares of the patch tokens, rising.
        seconds: Seconds of a block that so many tokens enter.
        selector: Seconds of a selector, its package and the gathering included, that so many tokens enter; empty
            means that it takes no time.
    """

    ratios: tuple[float, ...]
    seconds: tuple[float, ...]
    selector: tuple[float, ...] = field(default=())

    def __post_init__(self) -> None:
        """Refuse a table that does not rise or has gaps."""
        if len(self.ratios) != len(self.seconds) or len(self.ratios) < 2 or list(self.ratios) != sorted(self.ratios):
            raise ValueError("a latency table needs rising ratios, at least two, and one time for each")
        if self.selector and len(self.selector) != len(self.ratios):
            raise ValueError("a latency table needs one time of the selector for each ratio, or none at all")

    def block(self, ratio: float) -> float:
        """Return the seconds of a block at `ratio`."""
        return float(np.interp(ratio, self.ratios, self.seconds))

    def stage(self, ratio: float) -> float:
        """Return the seconds of a selector that `ratio` of the tokens enter."""
        return float(np.interp(ratio, self.ratios, self.selector)) if self.selector else 0.0

    def model(self, depth: int, places: Sequence[int], shares: Sequence[float]) -> float:
        """Return the seconds of `depth` blocks with stages at `places` that leave `shares` of the patch tokens.

        A stage that keeps as much as entered is not there and takes no time.
        """
        left, selectors, entering = [1.0] * depth, 0.0, 1.0
        for place, share in zip(places, shares, strict=True):
            if share < entering:
                selectors += self.stage(entering)
            left[place:] = [share] * (depth - place)
            entering = share
        return selectors + sum(map(self.block, left))


def measure_table(
    block: nn.Module, shape: Shape, ratios: Sequence[float], stage: Stage | None = None, repeats: int = 9
) -> LatencyTable:
    """Measure the table on this machine, batch size 1, one thread; all are interleaved and medians taken.

    Args:
        block: A block of the model.
        shape: Shape of the model.
        ratios: Kept shares of the patch tokens.
        stage: A selector made for a model of that shape; where it is given, its time is measured too, that of its
            package and of gathering what it keeps included.
        repeats: How often each is run.
    """
    ordered = sorted(ratios)
    inputs = [torch.randn(1, shape.prefix_tokens + round(ratio * shape.patches), shape.embed) for ratio in ordered]
    tasks = [partial(block, tokens) for tokens in inputs]
    if stage is not None:
        tasks += [partial(_select, stage, Tokens(tokens, shape.prefix_tokens)) for tokens in inputs]
    with torch.inference_mode():
        times = np.median(interleaved(tasks, rounds=(repeats, repeats)), axis=0).tolist()
    return LatencyTable(tuple(ordered), tuple(times[: len(ordered)]), tuple(times[len(ordered) :]))


def _select(stage: Stage, tokens: Tokens) -> Tokens:
    length = tokens.x.shape[1]
    return stage.before(tokens).compact(min(length, stage.count_before(length, tokens.protected)))


def ratios_within(
    table: LatencyTable,
    depth: int,
    places: Sequence[int],
    limit: float,
    start: Sequence[float] | None = None,
) -> tuple[float, ...]:
    """Return the largest ratios whose blocks and selectors together take at most `limit` seconds.

    The ratios are start_i^t, t the smallest exponent that meets the limit: all of one family, from everything (t = 0)
    over `start` (t = 1) to nothing. Put them into `spvit` as `ratios`: the ratio loss is then the paper's
    latency-sparsity loss, sum_i (1 - rho_i - mean share that goes)^2.

    Args:
        table: The device's table.
        depth: Number of blocks.
        places: Blocks in front of which stages stand.
        limit: Seconds.
        start: One falling ratio below 1 for each stage; powers of one half by default, whose family are the powers
            keep, keep^2, keep^3 of every keep.

    Raises:
        BudgetError: even the smallest ratio of the table is too slow.
        ValueError: `start` does not fall, or has not one ratio for each place.
    """
    first = tuple(start or (0.5 ** (index + 1) for index in range(len(places))))
    falls = list(first) == sorted(first, reverse=True) and all(0 < each < 1 for each in first)
    if len(first) != len(places) or not falls:
        raise ValueError(f"start is {first}; give one falling ratio between 0 and 1 for each of {len(places)} stages")

    def family(exponent: float) -> tuple[float, ...]:
        return tuple(float(each**exponent) for each in first)

    def seconds(exponent: float) -> float:
        return table.model(depth, places, family(exponent))

    low, high = 0.0, float(np.log(table.ratios[0]) / np.log(first[0]))  # at `high` the first stage keeps the least
    if seconds(high) > limit:
        raise BudgetError(
            f"The blocks take at least {1000 * seconds(high):.3g} ms with these stages, over the limit of "
            f"{1000 * limit:.3g} ms. Raise the limit or put the stages further in front."
        )
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if seconds(middle) <= limit else (middle, high)
    return family(low if seconds(low) <= limit else high)
