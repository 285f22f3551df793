"""The packaged micro DeiT, fine-tuned on the public pool of another data set of small images."""

from dataclasses import dataclass, field
from pathlib import Path

from fedprune.core.registry import register
from fedprune.data.public import PublicImages
from fedprune.vit.base import Architecture, Base, BaseSource
from fedprune.vit.base_file import create, load_base
from fedprune.vit.base_glyphs import ARCHITECTURE, PACKAGED
from fedprune.vit.base_trained import fine_tuned
from fedprune.vit.pretrained import Loaded
from fedprune.vit.training import Recipe


@register("base", "trained_glyphs")
@dataclass(frozen=True)
class TrainedGlyphBase(BaseSource):
    """The packaged micro DeiT with a new head, fine-tuned on the public pool; needs no download.

    Attributes:
        recipe: How it is fine-tuned. By default many passes, since it is meant for a few hundred small images.
    """

    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=40, learning_rate=1e-3, flip=False))

    def architecture(self) -> Architecture:
        """Return that of the packaged model."""
        return ARCHITECTURE

    def files(self) -> list[Path]:
        """Return the packaged weights."""
        return [PACKAGED]

    def load(self, public: PublicImages, cache: Path) -> Base:
        """Return the fine-tuned base, after training it where the cache does not hold it."""
        architecture: Architecture = {**ARCHITECTURE, "num_classes": len(public.classes)}
        model = create(architecture, self.recipe.seed)
        packaged = load_base(PACKAGED)
        weights = packaged.model.state_dict()
        head = {name: value for name, value in model.state_dict().items() if name.startswith("head.")}
        model.load_state_dict(weights | head)
        loaded = Loaded(model, architecture, packaged.preprocess)
        return fine_tuned(loaded, "glyphs", self.recipe, public, cache)
