"""A pretrained vision transformer whose head is brought to the classes of the data set."""

from dataclasses import dataclass, field
from pathlib import Path

from fedprune.core.registry import register
from fedprune.data.public import PublicImages
from fedprune.vit.base import Base, BaseSource
from fedprune.vit.base_trained import fine_tuned
from fedprune.vit.head import Probe, keep_rows, set_head
from fedprune.vit.head_rows import read_class_map, rows_of
from fedprune.vit.pretrained import Pretrained
from fedprune.vit.training import Recipe

HEADS = ("match", "probe", "train")


@register("base", "timm")
@dataclass(frozen=True)
class TimmBase(Pretrained, BaseSource):
    """One of timm's vision transformers by name, its head matched by class name, fitted to the pool, or trained.

    Attributes:
        head: `match` takes the rows of the pretrained head whose classes are named like the data set's; nothing is
            trained. `probe` fits a linear head on features of the public pool, which takes a pass of the pool through
            the model. `train` fine-tunes all weights on the public pool, as base=trained does.
        class_map: For `match`, a JSON file that says for names of the data set's classes which row is meant:
            `{"my cat": "n02123045", "my dog": "Labrador retriever", "my cup": 504}`.
        probe: How a head is fitted, for `probe`.
        recipe: How all is fine-tuned, for `train`.
    """

    head: str = "match"
    class_map: str | None = None
    probe: Probe = field(default_factory=Probe)
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head not in HEADS:
            raise ValueError(f"head is {self.head!r}; choose one of {', '.join(HEADS)}.")
        if self.class_map is not None and self.head != "match":
            raise ValueError(f"class_map names rows of the pretrained head, which head={self.head} does not use.")

    def load(self, public: PublicImages, cache: Path) -> Base:
        """Load the model with a head for the classes of `public`; what is fitted or trained is so once.

        Raises:
            ModelError: weights cannot be had, do not fit, or know no class of a name; the message says which.
        """
        if self.head == "train":
            loaded = self.fetch(len(public.classes), self.recipe.seed)
            return fine_tuned(loaded, self.model, self.recipe, public, cache)
        loaded = self.fetch()
        if self.head == "probe":
            set_head(loaded.model, *self.probe.fit(loaded, public, cache))
        else:
            class_map = read_class_map(Path(self.class_map)) if self.class_map else {}
            keep_rows(loaded.model, rows_of(public.classes, loaded.architecture["num_classes"], class_map))
        return Base.of(loaded.model, loaded.preprocess)

    def files(self) -> list[Path]:
        """Return the local weights, if it is them that are loaded, and the class map."""
        return super().files() + ([Path(self.class_map).expanduser()] if self.class_map else [])
