"""One budget, two axes: how much of it goes to pruned weights and how much to reduced tokens, a device at a time.

For each keep ratio the weights are pruned until weights and tokens together just meet the budget; the pair whose
outputs stay nearest to the base's on the proxy set is taken. Private images have no part in it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedprune.core.errors import BudgetError
from fedprune.core.random import stream
from fedprune.data.images import ImageSet, IntArray
from fedprune.devices.latency import LatencyModel
from fedprune.devices.profile import RUNTIMES, load_profile
from fedprune.pruning.method import Method, PruningTask
from fedprune.recovery.recovery import Recovery
from fedprune.tokens.edge_model import reduced_edge
from fedprune.tokens.reducer import Reducer
from fedprune.vit.base import Base, Preprocess, predict
from fedprune.vit.counts import count_macs
from fedprune.vit.surgery import EdgeModel

FILL = 0.99  # a budget is met within 1 % from below
AIM = 0.995
NARROW = 0.001  # of the base's MACs
TRIES = 12


@dataclass(frozen=True)
class Splitting:
    """How a budget is split.

    Attributes:
        ratios: Keep ratios to try; 1 is weights alone.
        judges: Images of the proxy set that judge candidates, a quarter of it at most; no candidate is fitted to them.
        profile: Device profile (shipped, or a YAML file) whose latency model says how long a model takes; needed where
            budgets limit latency.
        runtime: Which runtime's latency model: torch or onnxruntime.
    """

    ratios: tuple[float, ...] = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
    judges: int = 64
    profile: str | None = None
    runtime: str = "onnxruntime"

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIMES:
            raise ValueError(f"runtime is {self.runtime!r}; choose one of {', '.join(RUNTIMES)}")
        if not self.ratios or any(not 0 < ratio <= 1 for ratio in self.ratios):
            raise ValueError("ratios lie above 0 and up to 1, and there is at least one")
        if self.judges < 1:
            raise ValueError("judges must be at least 1")

    def latency(self) -> LatencyModel | None:
        """Return the profile's latency model, if one is named.

        Raises:
            ConfigError: there is no such profile, or it does not know the runtime.
        """
        return None if self.profile is None else load_profile(self.profile).latency(self.runtime)


@dataclass(frozen=True)
class Candidate:
    """One way to split a budget.

    Attributes:
        keep: Keep ratio of the reducer.
        params: Parameters of the edge model, the selector's included.
        weight_macs: MACs that the pruned weights would take with all tokens.
        macs: MACs with the reducer.
        divergence: Mean KL divergence from the base's outputs to the candidate's on the judges.
    """

    keep: float
    params: int
    weight_macs: int
    macs: int
    divergence: float


@dataclass(frozen=True)
class Split:
    """The edge model with its reducer inside, and all candidates, the chosen one first by divergence."""

    edge: EdgeModel
    chosen: Candidate
    candidates: tuple[Candidate, ...]

    def notes(self) -> Mapping[str, float]:
        """Return what a record tells about the split."""
        chosen = self.chosen
        return {
            "tokens_keep": chosen.keep,
            "tokens_macs": chosen.macs,
            "tokens_weight_macs": chosen.weight_macs,
            "tokens_params": chosen.params,
            "tokens_divergence": chosen.divergence,
            **{f"tokens_divergence_at_{other.keep:g}": other.divergence for other in self.candidates},
        }


def split_budget(
    task: PruningTask,
    method: Method,
    reducer: Reducer,
    *,
    recovery: Recovery | None = None,
    parameters: Mapping[str, Tensor] | None = None,
    teacher: Base | None = None,
    splitting: Splitting | None = None,
    latency: LatencyModel | None = None,
    precision: str = "fp32",
) -> Split:
    """Derive an edge model with a token reducer inside that meets the task's budget with both together.

    Limits on parameters and memory bind the weights alone. Without a limit on MACs or latency there is nothing to
    split: the reducer is put in as it is configured.

    Args:
        task: The device's task.
        method: What prunes the weights.
        reducer: What reduces the tokens; its `keep` is one of the ratios tried.
        recovery: What recovers a candidate before it is judged.
        parameters: Trained parameters of the reducer, see `tokens.training.trained`.
        teacher: What candidates are compared with; the task's base by default.
        splitting: What is tried.
        latency: The device's latency model, needed where the budget limits latency.
        precision: Precision in which candidates are judged.

    Raises:
        BudgetError: no candidate meets the budget.
    """
    options = splitting or Splitting()
    ratios = _ratios(task, reducer, options)
    learners, judges = hold_out(task, options.judges) if len(ratios) > 1 else (task.proxy, np.unique(task.proxy))
    trial = _Search(replace(task, proxy=learners), method, recovery, parameters, latency)
    judge = _Judge(teacher or task.base, task.images, judges, precision)
    found: list[Candidate] = []
    refusal: BudgetError | None = None
    for keep in ratios:
        try:
            edge = trial.fit(_at(reducer, keep))
        except BudgetError as error:
            refusal = error
            continue
        found.append(_describe(edge, keep, judge.divergence(edge)))
    if not found:
        assert refusal is not None
        raise refusal
    best = min(found, key=lambda candidate: candidate.divergence)
    if len(ratios) > 1:  # a single one has been fitted on the whole proxy set already
        edge = _Search(task, method, recovery, parameters, latency).fit(_at(reducer, best.keep))
    chosen = _describe(edge, best.keep, best.divergence)
    split = Split(edge, chosen, tuple(found))
    predicted = {} if latency is None else {"predicted_ms": 1000 * edge.latency(latency)}
    return replace(split, edge=replace(edge, notes={**edge.notes, **split.notes(), **predicted}))


def hold_out(task: PruningTask, judges: int) -> tuple[IntArray, IntArray]:
    """Split a proxy set into images to prune and recover on and at most a quarter, `judges`, to judge by.

    Judged on the images that it was fitted to, the axis that is fitted, the weights, would always win.
    """
    images = np.unique(task.proxy)
    if len(images) < 2:
        return task.proxy, images
    count = max(1, min(judges, len(images) // 4))
    held = np.sort(stream(task.seed, "judges").permutation(images)[:count])
    return task.proxy[~np.isin(task.proxy, held)], held


def _at(reducer: Reducer, keep: float) -> Reducer:
    return reducer if keep == reducer.keep else reducer.at(keep)


def _ratios(task: PruningTask, reducer: Reducer, options: Splitting) -> Sequence[float]:
    if task.budget.macs is None and task.budget.latency is None:
        return (reducer.keep,)
    tried = options.ratios if reducer.transferable else (1.0,)
    return sorted({*tried, reducer.keep}, reverse=True)


@dataclass(frozen=True)
class _Search:
    task: PruningTask
    method: Method
    recovery: Recovery | None
    parameters: Mapping[str, Tensor] | None
    latency: LatencyModel | None

    def fit(self, reducer: Reducer) -> EdgeModel:
        """Return the largest edge model found that meets the budget together with `reducer`.

        A bracketed secant search over the MACs that the weights may take with all tokens.
        """
        whole = count_macs(self.task.base.shape)
        best: EdgeModel | None = None
        refusal: BudgetError | None = None
        low, high = (0.0, 0.0), (float(whole), math.inf)  # (MACs of the weights, share of the budget that they fill)
        weights = float(whole)
        for _ in range(TRIES):
            try:
                edge = self._derive(int(weights))
            except BudgetError as error:  # the weights cannot get so small: look further up
                refusal, low = error, (weights, low[1])
            else:
                fill = self._fill(edge, reducer)
                best, low, high = (edge, (weights, fill), high) if fill <= 1 else (best, low, (weights, fill))
            if best is not None and (low[1] >= FILL or low[0] >= whole):
                break
            if high[0] - low[0] <= NARROW * whole:
                break
            step = (AIM - low[1]) / (high[1] - low[1]) if math.isfinite(high[1]) else 0.5
            weights = low[0] + min(max(step, 0.05), 0.95) * (high[0] - low[0])
        if best is None:
            raise refusal or BudgetError(
                f"No model that keeps {reducer.keep:g} of its tokens was found within the budget. Raise the budget."
            )
        best = best if self.recovery is None else self.recovery.recover(best, self.task)
        return self._reduce(best, reducer)

    def _reduce(self, edge: EdgeModel, reducer: Reducer) -> EdgeModel:
        return reduced_edge(edge, reducer, self.task.base.shape, self.parameters)

    def _derive(self, macs: int) -> EdgeModel:
        task = replace(self.task, budget=replace(self.task.budget, macs=macs, latency=None))
        return self.method.derive(task)

    def _fill(self, edge: EdgeModel, reducer: Reducer) -> float:
        """Return the largest share of a limit that weights and tokens take together."""
        reduced, budget = self._reduce(edge, reducer), self.task.budget
        shares = [0.0]
        if budget.macs is not None:
            shares.append(reduced.macs / budget.macs)
        if budget.latency is not None:
            if self.latency is None:
                raise ValueError("The budget limits latency; name the device's profile: splitting.profile=phone.")
            shares.append(self.latency.with_margin(reduced.latency(self.latency)) / budget.latency)
        return max(shares)


def _describe(edge: EdgeModel, keep: float, divergence: float) -> Candidate:
    return Candidate(keep, edge.params, count_macs(edge.shape), edge.macs, divergence)


class _Judge:
    """Compares candidates with a base on some public images."""

    def __init__(self, base: Base, images: ImageSet, judges: IntArray, precision: str) -> None:
        self.images, self.judges, self.precision = images, judges, precision
        self.base = self._predict(base.model, base.preprocess)

    def divergence(self, edge: EdgeModel) -> float:
        """Return the mean KL divergence from the base's to the candidate's outputs, among the candidate's classes."""
        base = _log_probabilities(self.base[:, np.array(edge.classes)])
        other = _log_probabilities(self._predict(edge.model, edge.preprocess))
        return float((np.exp(base) * (base - other)).sum(1).mean())

    def _predict(self, model: nn.Module, preprocess: Preprocess) -> NDArray[np.float32]:
        return predict(model, preprocess, self.images, self.judges, precision=self.precision)


def _log_probabilities(logits: NDArray[Any]) -> NDArray[np.float64]:
    return torch.from_numpy(logits).double().log_softmax(-1).numpy()
