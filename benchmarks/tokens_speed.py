"""Exactness of reduced models, and what their MACs are worth in time on this machine."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.tokens_accuracy import Row, Table
from fedprune.core.registry import lookup
from fedprune.devices.timing import interleaved
from fedprune.tokens.counts import count_reduced_macs
from fedprune.tokens.ltmp import LtmpStage
from fedprune.tokens.reduced import ReducedModel, reduce
from fedprune.vit.base import freeze
from fedprune.vit.base_file import create
from fedprune.vit.counts import count_macs
from fedprune.vit.export import export_onnx, onnx_session
from fedprune.vit.inspect import read_shape

Run = tuple[str, int]  # runtime and batch size
RUNS: tuple[Run, ...] = (("torch", 1), ("torch", 16), ("onnxruntime", 1))
SPEED_KEYS = ("size", "reducer", "runtime", "batch")
REDUCERS = ("spvit", "dynamicvit", "evit", "tome", "ats", "evo_vit", "ppt", "ltmp", "sait", "heatvit")
KEEP: Mapping[str, float] = {"tome": 0.2, "evo_vit": 0.5, "sait": 0.6, "ltmp": 0.7}
LTMP_STEPS = (5, 4)  # merged and pruned in each block, as a trained LTMP at 0.7 of the MACs would


def speed_points(
    sizes: Sequence[str], repeats: int, table: Table, reducers: Sequence[str] = REDUCERS, runs: Sequence[Run] = RUNS
) -> Iterator[Row]:
    """Time reducers and the base in every runtime and batch size, interleaved: CPU time of one thread."""
    for size in sizes:
        models = _models(size, reducers)
        base = count_macs(models["base"].shape)
        for runtime, batch in runs:
            keys = {name: {"size": size, "reducer": name, "runtime": runtime, "batch": batch} for name in models}
            whole = all(table.find(key) for key in keys.values())
            seconds = {} if whole else _time(models, runtime, batch, repeats)
            for name, model in models.items():
                yield table.add(keys[name], partial(_row, model, base, seconds, name, batch))


def _row(model: ReducedModel, base: int, seconds: Mapping[str, float], name: str, batch: int) -> Row:
    macs = count_reduced_macs(model)
    return {
        "mac_gain": round(base / macs, 4),
        "throughput_gain": round(seconds["base"] / seconds[name], 4),
        "milliseconds": round(1000 * seconds[name], 2),
        "images_per_second": round(batch / seconds[name], 2),
    }


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the gains of each reducer, mean over sizes, for torch at the largest batch."""
    batch = max(int(row["batch"]) for row in rows)
    found: dict[str, float] = {}
    for name in dict.fromkeys(str(row["reducer"]) for row in rows if row["reducer"] != "base"):
        own = [
            row for row in rows if row["reducer"] == name and row["runtime"] == "torch" and int(row["batch"]) == batch
        ]
        for gain in ("throughput_gain", "mac_gain"):
            found[f"{gain}.{name}"] = round(sum(float(row[gain]) for row in own) / len(own), 3)
    return found


def largest_error(reducers: Sequence[str] = REDUCERS) -> float:
    """Return the largest difference between the reducers' masked and gathered logits, in float64."""
    worst = 0.0
    model = freeze(create({"model": "vit_tiny_patch16_224", "embed_dim": 48, "depth": 6})).double()
    shape = read_shape(model)
    images = torch.randn(2, 3, 224, 224, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for name in reducers:
        for ragged in (False, True):
            reduced = _reduce(model, name).set_ragged(ragged)
            with torch.inference_mode():
                reduced.masked = False
                gathered = reduced(images)
                reduced.masked = True
                worst = max(worst, float((reduced(images) - gathered).abs().max()))
    assert shape.tokens == 197
    return worst


def _models(size: str, reducers: Sequence[str]) -> dict[str, ReducedModel]:
    model = freeze(create({"model": f"deit_{size}_patch16_224"}))
    return {
        "base": reduce(model, read_shape(model), lookup("tokens", "none")()),
        **{name: _reduce(model, name) for name in reducers},
    }


def _reduce(model: nn.Module, name: str) -> ReducedModel:
    reduced = reduce(model, read_shape(model), lookup("tokens", name)(keep=KEEP.get(name, 0.7)))
    for stage in reduced.at.values():
        if isinstance(stage, LtmpStage):
            stage.fix(*LTMP_STEPS)
            stage.thresholds.requires_grad_(False).copy_(torch.tensor([0.98, 0.5]))
    return freeze(reduced)  # type: ignore[return-value]


def _time(models: Mapping[str, ReducedModel], runtime: str, batch: int, repeats: int) -> dict[str, float]:
    side = next(iter(models.values())).shape.image_size
    pixels = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        calls = [_call(model, runtime, pixels, Path(folder) / f"{name}.onnx") for name, model in models.items()]
        seconds = np.median(interleaved(calls, rounds=(repeats, repeats)), axis=0)
    return dict(zip(models, seconds.tolist(), strict=True))


def _call(model: ReducedModel, runtime: str, pixels: Tensor, path: Path) -> Any:
    if runtime == "onnxruntime":
        export_onnx(model, model.shape, path)
        session, inputs = onnx_session(path), {"pixels": pixels.numpy()}
        return lambda: session.run(None, inputs)

    def call() -> Tensor:
        with torch.inference_mode():
            return model(pixels)  # type: ignore[no-any-return]

    return call
