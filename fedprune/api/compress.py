"""Compress a model for whoever has one, some images and a budget: the same parts that derive a device's model."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedprune.api.calibration import cut_images, labelled, with_rows
from fedprune.api.compression import configure
from fedprune.api.dense import dense_model
from fedprune.api.formats import SUFFIXES, write_model
from fedprune.api.judge import Figures, judge
from fedprune.api.settings import single
from fedprune.core.errors import ConfigError, ModelError
from fedprune.core.files import write_json, write_text
from fedprune.core.threads import with_threads
from fedprune.data.loose import loose_images
from fedprune.data.public import PublicImages
from fedprune.devices.budget import Budget
from fedprune.devices.budgets import budget_without
from fedprune.experiment.config import RunConfig
from fedprune.protocol.deriving import EDGE, RecoveryImages, Task
from fedprune.protocol.public import PublicWorld
from fedprune.protocol.server import Server
from fedprune.protocol.storage import StoredModel
from fedprune.vit.base import Base
from fedprune.vit.card import card_of, markdown_of
from fedprune.vit.head_rows import rows_of
from fedprune.vit.pretrained import Pretrained
from fedprune.vit.shape import Shape
from fedprune.vit.surgery import EdgeModel

TOLD = ("method", "recovery", "tokens", "seed", "precision", "threads")  # settings that a card repeats
CHECKED = 8  # images that an exported file is checked on


@dataclass(frozen=True)
class Compressed:
    """A compressed model with what is known of it.

    Attributes:
        model: A plain module, in evaluation mode.
        stored: The same taken apart, as files hold it.
        before: Figures of the dense model.
        after: Figures of this one.
        images: How many held-out images are behind both.
        card: What `save` writes beside the model.
        remarks: What a user should know, a sentence each.
        sample: Some held-out images, preprocessed, to check other formats with.
    """

    model: nn.Module
    stored: StoredModel
    before: Figures
    after: Figures
    images: int
    card: Mapping[str, Any]
    remarks: tuple[str, ...]
    sample: Tensor = field(repr=False)

    def save(self, folder: str | Path, format: str = "safetensors") -> list[Path]:
        """Write the model as `model.safetensors`, its card, and the model in one more format where one is asked for.

        Args:
            folder: Where.
            format: `safetensors`, `onnx` or `executorch`.

        Raises:
            ConfigError: there is no such format.
            MissingExtra: the format needs a package that is not installed.
        """
        if format not in SUFFIXES:
            raise ConfigError(f"There is no format {format!r}. There are: {', '.join(SUFFIXES)}.")
        folder, card = Path(folder), dict(self.card)
        paths = [folder / f"model{SUFFIXES[each]}" for each in dict.fromkeys(("safetensors", format))]
        for each, path in zip(dict.fromkeys(("safetensors", format)), paths, strict=True):
            error = write_model(self.stored, each, path, self.sample)
            if error is not None:
                card["largest_difference_from_torch"] = error
        write_json(folder / "model.json", card)
        write_text(folder / "model.md", markdown_of(card, "model"))
        return [*paths, folder / "model.json", folder / "model.md"]


def compress(
    model: str | Path | nn.Module,
    images: Any,
    *settings: str,
    removed: float | None = None,
    params: int | None = None,
    macs: int | None = None,
    memory: int | None = None,
    milliseconds: float | None = None,
    classes: Sequence[int | str] | None = None,
    heal: int | str = 0,
    held_out: Any = None,
    cache: str | Path | None = None,
    **options: Any,
) -> Compressed:
    """Prune a vision transformer on a few images into the largest one found that keeps every limit.

    No labels are needed: where a class is not told, the model's own answer stands for it. At most `proxy_size` images
    (1,000) are learned from; others judge the result.

    Args:
        model: A timm name, a safetensors file or a module, see `api.dense.dense_model`; a module stays as it is.
        images: A folder, a parquet file, or images in memory, see `data.loose.loose_images`.
        *settings: Settings in the words of `fedprune run`, for instance `"method.stream=as_is"`, `"seed=1"`.
        removed: Share of the parameters that goes.
        params: Most parameters.
        macs: Most multiply-accumulates for one image.
        memory: Most bytes of float32 weights and peak activations.
        milliseconds: Most time for one image under the device profile that the setting `splitting.profile` names.
        classes: Rows of the head that stay, by number, by name or WordNet id where the head is ImageNet's; all without.
        heal: Steps of training towards the dense model, or how long to train: `"90s"`, `"10min"`.
        held_out: Images to judge by, in place of a fifth of `images`.
        cache: Folder for what another call on the same images can use again; without one nothing is kept.
        **options: Settings by key, as for `fedprune.run`; they win over `settings`.

    Raises:
        FedpruneError: in a sentence, what is wrong and what to change.
    """
    words = single(settings, options)
    config = configure(model, heal, milliseconds, words)
    threads = config.threads if any(word.startswith("threads=") for word in words) else torch.get_num_threads()
    with with_threads(threads), _folder(cache) as folder:
        config = replace(config, cache=str(folder), threads=threads)
        how = config.base if isinstance(config.base, Pretrained) else Pretrained()
        base = dense_model(model, how)
        rows = None if classes is None else _rows(classes, base.shape.classes)
        budget = budget_of(base.shape, removed, params, macs, memory, milliseconds)
        side, head = base.preprocess.image_size, base.shape.classes
        loose, remark = with_rows(loose_images(images, side), head)
        others, also = (None, "") if held_out is None else with_rows(loose_images(held_out, side), head)
        judges = None if others is None else others.images
        cut = cut_images(loose, judges, config.proxy_size, config.recovery.validates, config.seed)
        edge = derive(config, base, cut.public, budget, rows)
        runtime = "torch" if milliseconds is None else config.splitting.runtime
        before, after = judge(base, edge, cut.held_out, config.precision, config.compute, runtime)
        sample = base.preprocess(cut.held_out.read(np.arange(min(CHECKED, len(cut.held_out)))))
    measured = {"images": len(cut.held_out), "before": asdict(before), "after": asdict(after)}
    stored, remarks = StoredModel.of(edge), tuple(filter(None, dict.fromkeys((remark, also))))
    card = card_of(
        stored.shape,
        stored.card,
        budget={name: limit for name, limit in asdict(budget).items() if limit is not None},
        measured=measured,
        cut_from=Path(model).name if isinstance(model, str | Path) else type(model).__name__,
        learned_from=len(cut.public.pool),
        config={key: value for key, value in config.to_dict().items() if key in TOLD},
    )
    return Compressed(edge.model, stored, before, after, len(cut.held_out), card, remarks, sample)


def derive(
    config: RunConfig, base: Base, public: PublicImages, budget: Budget, rows: tuple[int, ...] | None
) -> EdgeModel:
    """Derive a model as a run's server does for its first device, the whole pool being the proxy set.

    Raises:
        BudgetError: no legal model is small enough.
    """
    public = labelled(public, base, rows, config.precision, config.compute)
    server = Server(PublicWorld.of(config.setup(), public, base), config.server_options())
    validation = np.arange(len(public.validation)) if config.recovery.validates else None
    return server.derive_within(Task(0, EDGE, server.world.pool, budget, rows, RecoveryImages(validation=validation)))


def budget_of(
    shape: Shape,
    removed: float | None,
    params: int | None,
    macs: int | None,
    memory: int | None,
    milliseconds: float | None,
) -> Budget:
    """Return the limits as a device reports them.

    Raises:
        ConfigError: there is none, or one is out of range.
    """
    if removed is not None:
        if not 0 <= removed < 1:
            raise ConfigError(f"removed is {removed:g}; it is a share from 0 to below 1, for instance 0.5.")
        left = budget_without(shape, removed, "params").params
        params = left if params is None or left is None else min(left, params)
    limits = {"params": params, "macs": macs, "memory": memory, "milliseconds": milliseconds}
    if wrong := [name for name, limit in limits.items() if limit is not None and not limit > 0]:
        raise ConfigError(f"{wrong[0]} is {limits[wrong[0]]}; a limit is above 0.")
    if all(limit is None for limit in limits.values()):
        raise ConfigError(
            "There is no limit. Give removed (a share of the parameters), params, macs, memory or milliseconds."
        )
    return Budget(params, macs, memory, None if milliseconds is None else milliseconds / 1000)


def _rows(classes: Sequence[int | str], head: int) -> tuple[int, ...]:
    """Return the rows of a head that are meant, in rising order."""
    rows = []
    for each in classes:
        if isinstance(each, str) and not each.isdigit():
            try:
                rows += rows_of([each], head)
            except ModelError as error:
                reason = str(error).split(". ")[0]
                raise ConfigError(
                    f"{reason}. Give its WordNet id or the number of its row, 0 to {head - 1}."
                ) from error
        elif 0 <= int(each) < head:
            rows.append(int(each))
        else:
            raise ConfigError(f"There is no class {each}: the model has {head}, numbered from 0.")
    if not rows:
        raise ConfigError("classes is empty. Name the classes that stay, or leave it out to keep all.")
    return tuple(sorted(set(rows)))


@contextmanager
def _folder(cache: str | Path | None) -> Iterator[Path]:
    if cache is not None:
        yield Path(cache)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
