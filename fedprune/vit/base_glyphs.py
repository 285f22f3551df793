"""The packaged micro DeiT for `data=glyphs`, and how it was made."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedprune.core.errors import ModelError
from fedprune.core.registry import register
from fedprune.data.glyphs import CHARACTERS, SIDE, Glyphs
from fedprune.data.public import PublicImages
from fedprune.vit.base import Architecture, Base, BaseSource, Preprocess
from fedprune.vit.base_file import create, load_base, save_base
from fedprune.vit.training import Epoch, Labelled, Recipe, tell, train

PACKAGED = Path(__file__).parent / "weights" / "glyphs.safetensors"
PREPROCESS = Preprocess(SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
ARCHITECTURE: Architecture = {
    "model": "deit_tiny_patch16_224",
    "img_size": SIDE,
    "patch_size": 8,
    "embed_dim": 64,
    "depth": 6,
    "num_heads": 4,
    "num_classes": len(CHARACTERS),
}


@register("base", "glyphs")
@dataclass(frozen=True)
class GlyphBase(BaseSource):
    """The micro DeiT for data=glyphs that the package ships, made by `fedprune base`."""

    def architecture(self) -> Architecture:
        """Return that of the packaged model."""
        return ARCHITECTURE

    def files(self) -> list[Path]:
        """Return the packaged weights."""
        return [PACKAGED]

    def load(self, public: PublicImages, cache: Path) -> Base:
        """Load the packaged weights.

        Raises:
            ModelError: `public` has other classes than the drawn characters.
        """
        if public.classes != tuple(CHARACTERS):
            raise ModelError(
                f"base=glyphs knows the {len(CHARACTERS)} characters of data=glyphs, not the classes of "
                f"data={public.name}. Choose base=timm base.head=probe, which fits a head to the public pool, or "
                "base=trained, which trains all weights."
            )
        return load_base(PACKAGED)


def make_glyph_base(
    folder: Path, recipe: Recipe, source: Glyphs, per_class: int, progress: Callable[[Epoch], None] = tell
) -> list[Epoch]:
    """Train the micro DeiT on characters that are drawn afresh for each epoch, and write it to `folder`.

    Training and validation images come from streams of their own: they are none of a `Glyphs` data set's.

    Args:
        folder: Gets `glyphs.safetensors` (float16), the checkpoint to go on from, and the log.
        recipe: The hyper-parameters.
        source: How characters are drawn, and the seed of the drawing.
        per_class: Images of each character an epoch.
        progress: Called after each epoch.
    """
    model = create(ARCHITECTURE, recipe.seed)

    def drawn(count: int, *purpose: str | int) -> Labelled:
        images = source.draw(count, "base", *purpose)
        return Labelled(images, np.arange(len(images)))

    validation = drawn(20, "validation")
    log = train(model, PREPROCESS, lambda epoch: drawn(per_class, epoch), validation, recipe, folder, progress)
    save_base(folder / PACKAGED.name, model, ARCHITECTURE, PREPROCESS, half=True)
    return log
