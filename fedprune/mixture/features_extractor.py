"""Features of a small ResNet of its own, trained on the public pool, as TAP-ViTs' authors released it in May 2025."""

import logging
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fedprune.core.cache import cache_key
from fedprune.core.errors import ModelError
from fedprune.core.progress import batches
from fedprune.core.random import stream, stream_seed
from fedprune.core.ranges import at_least
from fedprune.core.registry import register
from fedprune.core.sealed import Damaged, read_sealed, write_sealed
from fedprune.data.images import ImageSet, IntArray
from fedprune.data.public import PublicImages
from fedprune.mixture.features import Extractor, FeatureArray, Features
from fedprune.vit.base import Base, Preprocess, evaluating, freeze
from fedprune.vit.base_file import create
from fedprune.vit.precision import autocast
from fedprune.vit.training import Labelled, Recipe, tell, train, trained_once

WEIGHTS = "extractor.safetensors"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as there
BATCH = 64  # images a forward pass

logger = logging.getLogger(__name__)


@register("features", "extractor")
@dataclass(frozen=True)
class ExtractorFeatures(Features):
    """Features of a small ResNet of its own, trained to tell the public pool's classes (TAP-ViTs as released).

    From the authors' public code of May 2025: a ResNet-18, one linear layer from its 512 pooled features to the 128
    that mixtures are fitted to, and a linear classifier behind, trained together on public images with their labels.
    Ours: the recipe, which the code does not tell; images as large as the data set has them; the epoch is chosen on the
    public validation cut. Trained once for a pool and then found in the cache.

    Attributes:
        model: timm's name of the network.
        width: Features of an image.
        train_images: Pool images that it learns from, at most.
        recipe: How it is trained, in fp32.
    """

    model: str = "resnet18"
    width: int = 128
    train_images: int = 100_000
    recipe: Recipe = field(
        default_factory=lambda: Recipe(epochs=5, learning_rate=1e-3, label_smoothing=0.0, flip=False, precision="fp32")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "width", "train_images")
        if self.recipe.precision != "fp32":
            raise ValueError(f"recipe.precision is {self.recipe.precision!r}; the extractor is trained in fp32.")

    @property
    def learns(self) -> bool:
        """Yes, from the pool's images and labels."""
        return True

    def extractor(self, base: Base, public: PublicImages, cache: Path) -> Extractor:
        """Return the network, after training it where the cache does not hold it.

        Raises:
            ModelError: timm has no such network, or the training diverged.
        """
        side = public.pool.read(np.arange(1)).shape[1]
        preprocess = Preprocess(side, MEAN, STD)
        key = cache_key(["extractor", self.model, self.width, self.train_images, self.recipe, public.fingerprint])
        folder = cache / "extractors" / f"{public.name}-{self.model}-{key[:16]}"

        def stored() -> ResNet | None:
            try:
                tensors, _ = read_sealed(folder / WEIGHTS, key)
            except FileNotFoundError:
                return None
            except Damaged as error:
                logger.warning("%s It is trained again.", error)
                return None
            network = self._network(len(public.classes))
            network.load_state_dict(tensors)
            return ResNet(freeze(network), preprocess, key)

        def make() -> None:
            network, validation = self._network(len(public.classes)), public.validation
            pool = Labelled(public.pool, self._learns_from(len(public.pool)))
            judged = Labelled(validation, np.arange(len(validation)))
            told = partial(tell, what="extractor")
            train(network, preprocess, lambda _: pool, judged, self.recipe, folder, told, key, "extractor")
            write_sealed(folder / WEIGHTS, network.state_dict(), key)

        return trained_once(folder, stored, make)

    def _learns_from(self, count: int) -> IntArray:
        """Draw the pool images; none alone in a batch, which has no variance to normalise by.

        Raises:
            ModelError: there is only one.
        """
        kept = min(count, self.train_images)
        kept -= kept % self.recipe.batch_size == 1 and self.recipe.batch_size > 1
        if kept < 2 or self.recipe.batch_size < 2:
            raise ModelError("The extractor learns from two images a batch at least. Raise pool_share or batch_size.")
        return np.sort(stream(self.recipe.seed, "extractor images").permutation(count)[:kept])

    def _network(self, classes: int) -> "Classifier":
        body = create({"model": self.model, "num_classes": self.width}, self.recipe.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(self.recipe.seed, "extractor head"))
            return Classifier(body, nn.Linear(self.width, classes))


class Classifier(nn.Module):
    """A network and a linear classifier behind it, (images, 3, side, side) to (images, classes)."""

    def __init__(self, body: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.head(self.body(pixels))
        return logits


@dataclass(frozen=True)
class ResNet(Extractor):
    """A trained network; what its classifier reads are the features.

    Attributes:
        network: It, frozen.
        preprocess: What turns image bytes into its input.
        key: What it was trained from.
    """

    network: nn.Module
    preprocess: Preprocess
    key: str

    @property
    def fingerprint(self) -> str:
        """Name of all that it was trained from."""
        return self.key

    def extract(
        self, images: ImageSet, indices: IntArray, precision: str = "fp32", device: str = "cpu"
    ) -> FeatureArray:
        """Return the features (n, D) that the classifier reads."""
        network = evaluating(self.network, device)
        body, width = network.get_submodule("body"), network.get_parameter("head.weight").shape[1]
        found = [np.empty((0, width), dtype=np.float32)]
        with torch.inference_mode(), autocast(precision, width, device):
            for batch in batches(indices, BATCH, "features"):
                pixels = self.preprocess(images.read(batch)).to(device)
                found.append(body(pixels).float().cpu().numpy())
        return np.concatenate(found)
