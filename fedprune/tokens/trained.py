"""What a training on the pool gives to all devices: done once, on the server, and then read from the cache.

Where the backbone learns too, edge models are cut from it. Where time is limited, places and ratios are sought first.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from fedprune.core.cache import cache_key, keep, read_kept
from fedprune.core.registry import to_dict
from fedprune.tokens.block_to_stage import within_limit
from fedprune.tokens.counts import token_counts
from fedprune.tokens.dynamicvit import LearnedReducer
from fedprune.tokens.reduced import reduce
from fedprune.tokens.reducer import Reducer
from fedprune.tokens.training import Public, train
from fedprune.vit.base import Base
from fedprune.vit.weights_file import under

FORMAT = 3  # of what is stored; another number trains anew
BACKBONE, STAGES = "backbone.", "stages."


@dataclass(frozen=True)
class Trained:
    """What a training on the pool gives to all devices.

    Attributes:
        base: What edge models are cut from: the base itself, or the same architecture with trained weights.
        reducer: The reducer as it goes into models: at the places and ratios that were found, where time is limited.
        parameters: Those of the reducer's stages, named as `reduce` takes them; None where it has none to train.
        notes: What records tell about a search for places and ratios.
    """

    base: Base
    reducer: Reducer
    parameters: Mapping[str, Tensor] | None = None
    notes: Mapping[str, float] = field(default_factory=dict)


def trained(reducer: Reducer, base: Base, public: Public, cache: Path, seed: int = 0) -> Trained:
    """Return `base` and `reducer` as `reducer.train` asks for, trained once and then read from `cache`.

    Raises:
        BudgetError: no places and ratios keep the reducer's limit of milliseconds.
        ConfigError: its latency table cannot be had, or is another base's.
    """
    if isinstance(reducer, LearnedReducer) and reducer.latency.milliseconds is not None:
        found, milliseconds = within_limit(reducer, base, public, cache, seed)
        counts = token_counts(base.shape, found.stages(base.shape))
        left = {f"tokens_in_block_{index}": float(attending) for index, (_, attending, _, _) in enumerate(counts)}
        return replace(trained(found, base, public, cache, seed), notes={"tokens_table_ms": milliseconds, **left})
    if reducer.train != "all" and not (reducer.trained and reducer.stages(base.shape)):
        return Trained(base, reducer)
    key = cache_key([FORMAT, to_dict(reducer), base.fingerprint, public.identity, public.indices, seed])
    path = cache / "tokens" / f"{reducer.name}-{key[:24]}.safetensors"  # type: ignore[attr-defined]
    tensors = read_kept(path, key)
    if tensors is None:
        tensors = _train_anew(reducer, base, public, seed)
        keep(path, key, tensors)
    weights, stages = under(tensors, BACKBONE), under(tensors, STAGES)
    if not weights:
        return Trained(base, reducer, stages)
    model = copy.deepcopy(base.model)
    model.load_state_dict(weights)
    return Trained(Base.of(model, base.preprocess), reducer, stages or None)


def _train_anew(reducer: Reducer, base: Base, public: Public, seed: int) -> dict[str, Tensor]:
    everything = reducer.train == "all"
    model = reduce(copy.deepcopy(base.model) if everything else base.model, base.shape, reducer)
    train(model, base, public.images, public.indices, seed)
    tensors = {STAGES + name: value for name, value in model.stages.state_dict().items()}
    if everything:
        tensors |= {BACKBONE + name: value for name, value in model.backbone.state_dict().items()}
    return {name: value.detach().contiguous().clone() for name, value in tensors.items()}
