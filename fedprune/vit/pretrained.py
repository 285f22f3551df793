"""timm's pretrained vision transformers by name, with weights from timm or from a local file."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from fedprune.core.errors import ModelError
from fedprune.core.random import stream_seed
from fedprune.core.ranges import at_least
from fedprune.vit.base import Architecture, Preprocess
from fedprune.vit.inspect import read_shape
from fedprune.vit.weights_file import check_names, read_weights

WEIGHTS_VARIABLE = "FEDPRUNE_MODELS"


@dataclass(frozen=True)
class Loaded:
    """A model with pretrained weights, not yet frozen, and what is needed to rebuild and feed it."""

    model: nn.Module
    architecture: Architecture
    preprocess: Preprocess


@dataclass(frozen=True)
class Pretrained:
    """One of timm's vision transformers by name, weights from timm or from a local safetensors file.

    Attributes:
        model: timm's name, e.g. `deit_tiny_patch16_224`.
        weights: Local safetensors file, absolute, relative to here, or to the folder that the environment variable
            FEDPRUNE_MODELS names. Without it, a file in that folder whose name starts with `model` and a dot, and
            without that timm's own download.
        image_size: Side of the input in pixels; another one than the pretrained resamples the position embedding.
        mean: Mean of each channel; by default what timm's configuration of the weights says.
        std: Standard deviation of each channel; by default likewise.
    """

    model: str = "deit_tiny_patch16_224"
    weights: str | None = None
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "image_size")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != 3:
                raise ValueError(f"{name} needs one value a channel (3), not {len(values)}.")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError("std must be above 0.")

    def architecture(self) -> Architecture:
        """Return timm's name and the size of the input, where it is set."""
        return {"model": self.model} | ({"img_size": self.image_size} if self.image_size else {})

    def fetch(self, classes: int | None = None, seed: int = 0) -> Loaded:
        """Load the pretrained model with its own head, or with one for `classes`, drawn from `seed` if it is another.

        Raises:
            ModelError: weights cannot be had or belong to another architecture.
        """
        if not timm.is_model(self.model.split(".")[0]):
            close = ", ".join(timm.list_models(f"*{self.model.split('_')[0]}*tiny*")[:8])
            raise ModelError(f"timm has no model {self.model!r}. Choose another name, for instance: {close}.")
        outline = check_architecture(self.model)
        path = self._local_file()
        stored = read_weights(path) if path else None
        if path and stored:
            check_names(outline, stored, path, self.model)
        own = len(stored.get("head.weight", ())) if stored else _published_classes(self.model)
        arguments: dict[str, Any] = {"num_classes": own if classes is None else classes}
        if self.image_size is not None:
            arguments["img_size"] = self.image_size
        overlay: dict[str, Any] = {}
        if path and stored:
            overlay = {"state_dict": dict(stored), "num_classes": own, "source": "timm"}
        model = self._create(arguments, overlay, seed, path)
        settings: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
        settings.pop("state_dict", None)
        mean, std = tuple(self.mean or settings["mean"]), tuple(self.std or settings["std"])
        side = int(model.patch_embed.img_size[0])  # type: ignore[union-attr, index]
        return Loaded(model, {"model": self.model, **arguments}, Preprocess(side, mean, std))

    def files(self) -> list[Path]:
        """Return the local weights, if it is them that are loaded."""
        path = self._local_file()
        return [path] if path else []

    def _create(self, arguments: dict[str, Any], overlay: dict[str, Any], seed: int, path: Path | None) -> nn.Module:
        from huggingface_hub.errors import HfHubHTTPError

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(seed, "initial weights"))
            try:
                model: nn.Module = timm.create_model(
                    self.model, pretrained=True, pretrained_cfg_overlay=overlay, **arguments
                )
            except (RuntimeError, ValueError, TypeError, AssertionError, KeyError, OSError, HfHubHTTPError) as error:
                if overlay:
                    raise ModelError(
                        f"The weights in {path} do not fit {self.model!r}: {_first_line(error)} "
                        "Name the model that they belong to, or other weights."
                    ) from error
                raise ModelError(
                    f"timm cannot load pretrained weights for {self.model!r} ({type(error).__name__}). Check the "
                    "network, or set the base's weights to a local safetensors file."
                ) from error
        return model

    def _local_file(self) -> Path | None:
        """Return the local weights to use, if any."""
        shelf = os.environ.get(WEIGHTS_VARIABLE)
        folder = Path(shelf).expanduser() if shelf else None
        if self.weights is None:
            found = sorted(folder.glob(f"{self.model}.*safetensors")) if folder else []
            return found[0] if found else None
        places = [Path(self.weights).expanduser(), *([folder / self.weights] if folder else [])]
        for place in places:
            if place.is_file():
                return place
        raise ModelError(
            f"There is no file {self.weights}. Set the base's weights to a safetensors file, or {WEIGHTS_VARIABLE} to "
            "the folder that holds it."
        )


def check_architecture(name: str) -> nn.Module:
    """Return an outline (without memory) of timm's model, if it is one that can be pruned here.

    Raises:
        ModelError: the message names the model and the reason.
    """
    with torch.device("meta"):
        model: nn.Module = timm.create_model(name, pretrained=False)
        if not model.num_classes:  # weights without a classifier; one is made for the data set's classes
            model = timm.create_model(name, pretrained=False, num_classes=1)
        read_shape(model)
    return model


def _published_classes(name: str) -> int:
    settings = timm.get_pretrained_cfg(name)
    return int(settings.num_classes) if settings else 0


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "mismatch" in line), lines[0] if lines else type(error).__name__)
