"""A pretrained base that is fine-tuned on the public pool, once, and then found in the cache."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedprune.core.cache import cache_key
from fedprune.core.errors import ModelError
from fedprune.core.registry import register
from fedprune.data.public import PublicImages
from fedprune.vit.base import Architecture, Base, BaseSource, state_arrays
from fedprune.vit.base_file import load_base, save_base
from fedprune.vit.pretrained import Loaded, Pretrained
from fedprune.vit.training import Epoch, Labelled, Recipe, tell, train, trained_once

WEIGHTS = "base.safetensors"

logger = logging.getLogger(__name__)


@register("base", "trained")
@dataclass(frozen=True)
class TrainedBase(BaseSource):
    """A pretrained model, fine-tuned on the public pool alone; trained once, then taken from the cache.

    Attributes:
        source: The pretrained model.
        recipe: How it is fine-tuned.
    """

    source: Pretrained = field(default_factory=lambda: Pretrained(model="vit_tiny_patch16_224", image_size=96))
    recipe: Recipe = field(default_factory=Recipe)

    def architecture(self) -> Architecture:
        """Return that of the pretrained model."""
        return self.source.architecture()

    def load(self, public: PublicImages, cache: Path, progress: Callable[[Epoch], None] = tell) -> Base:
        """Return the fine-tuned base, after training it where the cache does not hold it.

        Raises:
            ModelError: the pretrained weights cannot be had.
        """
        loaded = self.source.fetch(len(public.classes), self.recipe.seed)
        return fine_tuned(loaded, self.source.model, self.recipe, public, cache, progress)


def fine_tuned(
    loaded: Loaded,
    name: str,
    recipe: Recipe,
    public: PublicImages,
    cache: Path,
    progress: Callable[[Epoch], None] = tell,
) -> Base:
    """Fine-tune a pretrained model on the public pool, or take the outcome from the cache.

    Args:
        loaded: The pretrained model; it is trained in place.
        name: What it is called in the cache.
        recipe: The hyper-parameters.
        public: Its pool is trained on, its validation cut chooses the epoch.
        cache: Gets the base and the log of its training.
        progress: Called after each epoch.
    """
    weights = state_arrays(loaded.model)
    key = cache_key([weights, loaded.architecture, loaded.preprocess, recipe, public.fingerprint])
    folder = cache / "bases" / f"{public.name}-{name}-{key[:16]}"

    def make() -> None:
        pool, validation = (Labelled(images, np.arange(len(images))) for images in (public.pool, public.validation))
        train(loaded.model, loaded.preprocess, lambda _: pool, validation, recipe, folder, progress, key)
        save_base(folder / WEIGHTS, loaded.model, loaded.architecture, loaded.preprocess, half=False, key=key)

    return trained_once(folder, lambda: _stored(folder / WEIGHTS, key), make)


def _stored(path: Path, key: str) -> Base | None:
    """Return the base that was trained for `key`, if there is one that is sound."""
    if not path.exists():
        return None
    try:
        return load_base(path, key)
    except ModelError as error:
        logger.warning("%s It is trained again.", error)
        return None
