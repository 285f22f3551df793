"""From which size on a token selector gains time: tokens x width x batch, in torch and in onnxruntime."""

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import torch

from benchmarks.tokens_accuracy import Row, Table
from benchmarks.tokens_speed import Run
from fedprune.core.registry import lookup
from fedprune.devices.profiling import model_runners
from fedprune.devices.timing import interleaved
from fedprune.tokens.counts import count_reduced_macs
from fedprune.tokens.reduced import ReducedModel, reduce
from fedprune.tokens.reducer import Reducer, Stage
from fedprune.tokens.selector import LearnedStage
from fedprune.vit.base import freeze
from fedprune.vit.base_file import create
from fedprune.vit.inspect import read_shape

KEYS = ("tokens", "width", "runtime", "batch", "reducer")
SIDES: Mapping[int, tuple[int, int]] = {17: (32, 8), 37: (96, 16), 197: (224, 16)}  # image and patch, by tokens
HEADS: Mapping[int, int] = {64: 4, 192: 3, 384: 6}  # by width
RUNS: tuple[Run, ...] = (("torch", 1), ("torch", 8), ("onnxruntime", 1), ("onnxruntime", 8))
KEEP = 0.7
MARKS = "spvit by marks"  # selects and packs by marks and then gathers, as a masked model must and this one need not


def breakeven_points(repeats: int, table: Table) -> Iterator[Row]:
    """Time a base of 12 blocks and three stages in it, in turns, in CPU time of one thread, as gains over the base."""
    for tokens in SIDES:
        for width in HEADS:
            models = _models(tokens, width)
            for runtime, batch in RUNS:
                size = {"tokens": tokens, "width": width, "runtime": runtime, "batch": batch}
                keys = [{**size, "reducer": name} for name in models if name != "base"]
                whole = all(table.find(key) for key in keys)
                seconds = {} if whole else _seconds(models, runtime, batch, repeats)
                yield from (table.add(key, partial(_row, models, seconds, str(key["reducer"]))) for key in keys)


def _row(models: Mapping[str, ReducedModel], seconds: Mapping[str, float], name: str) -> Row:
    macs = {each: count_reduced_macs(models[each]) for each in ("base", name)}
    return {
        "mac_gain": round(macs["base"] / macs[name], 4),
        "gain": round(seconds["base"] / seconds[name], 4),
        "base_milliseconds": round(1000 * seconds["base"], 3),
    }


def _models(tokens: int, width: int) -> dict[str, ReducedModel]:
    side, patch = SIDES[tokens]
    size = {"img_size": side, "patch_size": patch, "embed_dim": width, "num_heads": HEADS[width]}
    model = freeze(create({"model": "vit_tiny_patch16_224", **size}))

    def reduced(reducer: Reducer) -> ReducedModel:
        return freeze(reduce(model, read_shape(model), reducer))  # type: ignore[return-value]

    spvit, evit = lookup("tokens", "spvit"), lookup("tokens", "evit")
    models = {
        "base": reduced(lookup("tokens", "none")()),
        "spvit": reduced(spvit(keep=KEEP)),
        MARKS: reduced(spvit(keep=KEEP)),
        "spvit without package": reduced(spvit(keep=KEEP, package="none")),
        "evit": reduced(evit(keep=KEEP)),
    }
    for stage in models[MARKS].at.values():
        assert isinstance(stage, LearnedStage)
        object.__setattr__(stage, "gathered", partial(Stage.gathered, stage))
    return models


def _seconds(models: Mapping[str, ReducedModel], runtime: str, batch: int, repeats: int) -> dict[str, float]:
    side = next(iter(models.values())).shape.image_size
    pixels = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    calls = model_runners([(model, model.shape) for model in models.values()], runtime, pixels)
    seconds = np.median(interleaved(calls, rounds=(repeats, repeats)), axis=0)
    return dict(zip(models, seconds.tolist(), strict=True))
