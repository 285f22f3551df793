"""SPViT's computation-aware training: selectors are put in from the last block to the first until a limit is met.

No released code has the schedule; this is our reading of the paper's description (Kong et al., ECCV 2022). From the
last block to the first a selector is put in and its ratio shrinks step by step, with training after each, until the
model loses more accuracy than a block may cost; then it is the next block's turn. That ends as soon as the latency
table says that the limit is met. Selectors that follow each other at like ratios are then merged into one stage at the
first of their blocks, which keeps the fewest tokens of any, so that merging never makes a model slower; what time that
saves is given back to the ratios of all stages. A limit that nothing meets is refused before anything is trained.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedprune.core.cache import cached_array
from fedprune.core.errors import BudgetError
from fedprune.core.random import stream, stream_seed
from fedprune.core.registry import to_dict
from fedprune.tokens.dynamicvit import LearnedReducer
from fedprune.tokens.latency import LatencyTable, at_blocks, fastest, load_table, ratios_within
from fedprune.tokens.limit import LatencyLimit
from fedprune.tokens.measure import measure
from fedprune.tokens.reduced import ReducedModel, reduce
from fedprune.tokens.training import Public, train
from fedprune.vit.base import Base

FORMAT = 1  # of the search; another number searches anew
Placed = Mapping[int, float]  # share of the patch tokens that the selector in front of a block leaves, by block


def within_limit(
    reducer: LearnedReducer, base: Base, public: Public, cache: Path, seed: int = 0
) -> tuple[LearnedReducer, float]:
    """Return the reducer at places and ratios that keep its limit, and the milliseconds that the table gives it.

    The search is done once and then read from `cache`.

    Raises:
        BudgetError: nothing keeps the limit; the message holds the smallest latency there is.
        ConfigError: there is no such table, or it is of another base or reducer.
    """
    table = load_table(reducer.latency.table)
    table.check(to_dict(reducer)["name"], base.shape)
    search = _Search(reducer, table, base, public, seed)
    key = [FORMAT, to_dict(reducer), to_dict(table), base.fingerprint, public.identity, public.indices, seed]
    stages: NDArray[np.float64] = cached_array(cache, "schedule", key, search.run)
    found = at_blocks(search.plain, base.shape, [(int(block), share) for block, share in stages.tolist()])
    return found, table.milliseconds(found, base.shape)


def merged(placed: Placed, alike: float) -> list[tuple[int, float]]:
    """Merge selectors that follow each other into stages where shares differ by less than `alike`.

    A stage stands at the first block of its selectors and keeps the smallest of their shares.
    """
    stages: list[tuple[int, float]] = []
    highest = np.inf
    for block, share in sorted(placed.items()):
        if highest - share < alike:
            stages[-1] = (stages[-1][0], share)
        else:
            stages.append((block, share))
            highest = share
    return stages


class _Search:
    """One search: what is placed, the state of what was trained so far, and how accurate that is."""

    def __init__(self, reducer: LearnedReducer, table: LatencyTable, base: Base, public: Public, seed: int) -> None:
        self.limit, self.table, self.base, self.public, self.seed = reducer.latency, table, base, public, seed
        self.milliseconds, self.shape = reducer.latency.milliseconds or np.inf, base.shape
        self.plain = replace(reducer, latency=LatencyLimit())
        self.brief = replace(self.plain, training=replace(reducer.training, steps=self.limit.steps))
        order = stream(seed, "judges of places").permutation(len(public.validation))
        self.judges = np.sort(order[: self.limit.images])
        self.placed: dict[int, float] = {}
        self.state: dict[str, Tensor] = {}
        self.accuracy = 0.0
        self.trials = 0

    def run(self) -> NDArray[np.float64]:
        """Place selectors until the limit is met, merge them, give back what time is left.

        Returns:
            (stages, 2) block and share of the patch tokens behind it.
        """
        milliseconds, depth = self.milliseconds, len(self.shape.blocks)
        first = int(self.limit.first * depth + 1e-9)
        least = fastest(self.plain, self.shape, self.table, first)
        if least > milliseconds:
            raise BudgetError(
                f"No token selector in this base keeps {milliseconds:g} ms an image. The smallest latency there is, by "
                f"{self.limit.table}, is {least:.4g} ms. Raise tokens.latency.milliseconds to that, lower "
                "tokens.latency.first, or take a smaller base."
            )
        self.accuracy = self._accuracy(reduce(self.base.model, self.shape, at_blocks(self.plain, self.shape, ())))
        allowed = self.limit.drop / 100
        while not self._met(self.placed):
            for block in reversed(range(first, depth)):
                self._shrink(block, allowed)
            allowed *= 2
        stages = merged(self.placed, self.limit.alike)
        if stages:
            widest = ratios_within(at_blocks(self.plain, self.shape, stages), self.shape, self.table, milliseconds)
            stages = [(block, share) for (block, _), share in zip(stages, widest.ratios, strict=True)]
        return np.array(stages, dtype=np.float64).reshape(-1, 2)

    def _met(self, placed: Placed) -> bool:
        reducer = at_blocks(self.plain, self.shape, sorted(placed.items()))
        return self.table.milliseconds(reducer, self.shape) <= self.milliseconds

    def _shrink(self, block: int, allowed: float) -> None:
        """Put a selector in front of `block`, or shrink the one there, as long as accuracy allows and time asks."""
        patches = self.shape.patches
        step = max(1, round(self.limit.shrink * patches))
        before = self.accuracy
        floor = max((share for later, share in self.placed.items() if later > block), default=1 / patches)
        while not self._met(self.placed):
            count = max(round(floor * patches), round(self.placed.get(block, 1.0) * patches) - step)
            tried = {**self.placed, block: count / patches}
            if tried == self.placed or count == patches:
                return
            state, accuracy = self._trained(tried)
            if accuracy < before - allowed:
                return
            self.placed, self.state, self.accuracy = tried, state, accuracy

    def _trained(self, placed: Placed) -> tuple[dict[str, Tensor], float]:
        """Train on from the present state with these selectors; return the state and the accuracy after it."""
        reducer = at_blocks(self.brief, self.shape, sorted(placed.items()))
        model = reduce(copy.deepcopy(self.base.model), self.shape, reducer)
        model.load_state_dict(self.state, strict=False)  # a new selector starts afresh
        self.trials += 1
        seed = stream_seed(self.seed, "places", self.trials)
        train(model, self.base, self.public.images, self.public.indices, seed)
        return {**self.state, **model.state_dict()}, self._accuracy(model)

    def _accuracy(self, model: ReducedModel) -> float:
        images, precision = self.public.validation, self.plain.training.precision
        done = measure(model, self.base.preprocess, images, self.judges, precision=precision)
        return done.accuracy(images.labels[self.judges])
