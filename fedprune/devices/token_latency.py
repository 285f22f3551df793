"""SPViT's latency side: a table of block latencies, ratios that meet a latency limit, block-to-stage search.

The published code has none of it; this follows the paper's description (Kong et al., ECCV 2022, section 4).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from fedprune.core.errors import BudgetError
from fedprune.devices.timing import interleaved
from fedprune.vit.shape import Shape


@dataclass(frozen=True)
class LatencyTable:
    """Seconds of one block for some keep ratios (the paper's latency-sparsity table), linear between them.

    Attributes:
        ratios: Kept shares of the patch tokens, rising.
        seconds: Seconds of a block at each.
    """

    ratios: tuple[float, ...]
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the table."""
        if len(self.ratios) != len(self.seconds) or len(self.ratios) < 2 or list(self.ratios) != sorted(self.ratios):
            raise ValueError("a latency table needs rising ratios, at least two, and one time for each")

    def block(self, ratio: float) -> float:
        """Return the seconds of a block at `ratio`."""
        return float(np.interp(ratio, self.ratios, self.seconds))

    def model(self, depth: int, places: Sequence[int], shares: Sequence[float]) -> float:
        """Return the seconds of `depth` blocks with stages at `places` that leave `shares` of the patch tokens."""
        left = [1.0] * depth
        for place, share in zip(places, shares, strict=True):
            left[place:] = [share] * (depth - place)
        return sum(map(self.block, left))


def measure_table(block: nn.Module, shape: Shape, ratios: Sequence[float], repeats: int = 9) -> LatencyTable:
    """Measure the table on this machine, batch size 1, one thread; the ratios are interleaved and medians taken."""
    ordered = sorted(ratios)
    inputs = [torch.randn(1, shape.prefix_tokens + round(ratio * shape.patches), shape.embed) for ratio in ordered]
    with torch.inference_mode():
        times = interleaved([partial(block, tokens) for tokens in inputs], rounds=(repeats, repeats))
    return LatencyTable(tuple(ordered), tuple(np.median(times, axis=0).tolist()))


def ratios_within(table: LatencyTable, depth: int, places: Sequence[int], limit: float) -> tuple[float, ...]:
    """Return the largest ratios keep, keep^2, keep^3, ... whose blocks together take at most `limit` seconds.

    Put them into `spvit` as `ratios`: the ratio loss is then the paper's latency-sparsity loss,
    sum_i (1 - rho_i - mean share that goes)^2.

    Raises:
        BudgetError: even the smallest ratio of the table is too slow.
    """

    def powers(keep: float) -> tuple[float, ...]:
        return tuple(keep ** (index + 1) for index in range(len(places)))

    low, high = table.ratios[0], 1.0
    if table.model(depth, places, powers(low)) > limit:
        least = 1000 * table.model(depth, places, powers(low))
        raise BudgetError(
            f"The blocks take at least {least:.3g} ms with these stages, over the limit of "
            f"{1000 * limit:.3g} ms. Raise the limit or put the stages further in front."
        )
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if table.model(depth, places, powers(middle)) <= limit else (low, middle)
    return powers(high if table.model(depth, places, powers(high)) <= limit else low)


def block_to_stage(
    depth: int,
    drop: Callable[[Mapping[int, float]], float],
    limit: float = 0.005,
    ratios: Sequence[float] = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1),
    similar: float = 0.085,
    first: int = 3,
) -> dict[int, float]:
    """Find where stages stand and what they keep, from the last block to the first (block-to-stage training).

    At each block the smallest ratio is taken whose accuracy drop stays below the limit, never below the ratio behind
    it; neighbouring stages whose ratios differ by less than `similar` then become one, with the first one's place and
    the smaller ratio of the two if the drop allows it.

    Args:
        depth: Number of blocks.
        drop: Accuracy drop of a model with selectors at these blocks, trained or not, on public validation images.
        limit: Largest drop.
        ratios: Ratios to try, falling.
        similar: Ratios nearer than this belong to one stage.
        first: First block that may have a selector.
    """
    found: dict[int, float] = {}
    for block in reversed(range(first, depth)):
        behind = found.get(block + 1, 0.0)
        for ratio in ratios:
            if ratio < behind or drop({**found, block: ratio}) > limit:
                break
            found[block] = ratio
        if block not in found:
            break
    return _merge(found, drop, limit, similar)


def _merge(
    found: Mapping[int, float], drop: Callable[[Mapping[int, float]], float], limit: float, similar: float
) -> dict[int, float]:
    merged: dict[int, float] = {}
    for block in sorted(found):
        last = max(merged, default=None)
        if last is None or merged[last] - found[block] >= similar:
            merged[block] = found[block]
            continue
        lower = {**merged, last: min(merged[last], found[block])}
        if drop(lower) <= limit:
            merged = lower
    return merged
