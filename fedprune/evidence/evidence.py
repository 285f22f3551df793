"""Evidence: how important every unit of a base is, read once an image and shared by all devices.

A device's importance is a weighted mean over its proxy set's rows. The rows of a proxy set are read in ascending
order and reduced by themselves, so a device's result is the same to the last bit whether it is derived alone, among
others, or in another order; reading only the rows with weight does less work than a product with the whole pool.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from fedprune.core.cache import cache_key, cached_array
from fedprune.core.progress import tracking
from fedprune.data.images import ImageSet, IntArray
from fedprune.evidence.bank import Bank
from fedprune.evidence.directions import stream_directions
from fedprune.evidence.measure import Pass, family_width, measure
from fedprune.evidence.statistics import LOSS_FAMILIES, centre, statistic_named
from fedprune.vit.base import Base
from fedprune.vit.units import Units, unpack

_SEGMENT = 512  # images a segment of the bank, at most: what a killed run computes again
_CHUNK = 256  # rows in memory while a mean is taken
Shared = TypeVar("Shared")


class Evidence:
    """Per-image scores of a base's units over one set of images, computed when first asked for.

    Args:
        base: The model that is read; never changed.
        images: The server's images with labels.
        cache: Folder for the score banks.
        images_id: Fingerprint of the images' content.
        loss: Which loss is differentiated, see `losses.image_losses`.
        classes: The sub-classifier's classes if the loss asks only these; such rows cannot be shared by devices
            with other classes, each of whom pays a pass of its own.
        precision: `fp32`, `bf16` (autocast) or `fp64`.
        batch_size: Images a batch.
        device: Where torch computes.
    """

    def __init__(
        self,
        base: Base,
        images: ImageSet,
        cache: Path,
        *,
        images_id: str,
        loss: str = "labels",
        classes: tuple[int, ...] | None = None,
        precision: str = "fp32",
        batch_size: int = 32,
        device: str = "cpu",
    ) -> None:
        self.base, self.images = base, images
        self.how = Pass(loss, classes, precision, batch_size, device)
        self._measured = 0
        self._cache, self._images_id = cache, images_id
        self._banks: dict[str, Bank] = {}
        self._variants: dict[tuple[str, Pass], Evidence] = {}
        self._shared: dict[Hashable, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return what goes along to another process: all but the last means, which are cheap."""
        return {name: value for name, value in vars(self).items() if name != "_mean"}

    @property
    def measured(self) -> int:
        """Image passes made by this object and its variants: what the evidence has cost."""
        return self._measured + sum(variant.measured for variant in self._variants.values())

    def under(self, loss: str, classes: tuple[int, ...] | None = None) -> "Evidence":
        """Return the evidence of the same base and images under another loss."""
        return self._variant(self.base, replace(self.how, loss=loss, classes=classes))

    def on(self, base: Base) -> "Evidence":
        """Return the evidence of another base over the same images, measured in the same way."""
        return self._variant(base, self.how)

    def once(self, key: Hashable, compute: Callable[[], Shared]) -> Shared:
        """Return what `compute` gives, computed once for all devices that carry this evidence."""
        if key not in self._shared:
            self._shared[key] = compute()
        value: Shared = self._shared[key]
        return value

    def directions(self, kind: str, indices: IntArray) -> NDArray[np.float64]:
        """Return directions of the base's residual stream (D, D - 1) over these images, see `evidence.directions`."""
        base, how = self.base, replace(self.how, classes=None)

        def compute() -> NDArray[np.float64]:
            self._measured += len(indices)
            return stream_directions(kind, base.model, base.shape, base.preprocess, self.images, indices, how)

        self._cache.mkdir(parents=True, exist_ok=True)
        with FileLock(self._cache / f"evidence-{base.fingerprint}.lock"):
            key = [1, base.fingerprint, self._images_id, kind, indices, how]
            return cached_array(self._cache, "directions", key, compute)

    def _variant(self, base: Base, how: Pass) -> "Evidence":
        key = (base.fingerprint, how)
        if key == (self.base.fingerprint, self.how):
            return self
        if key not in self._variants:
            self._variants[key] = Evidence(
                base,
                self.images,
                self._cache,
                images_id=self._images_id,
                loss=how.loss,
                classes=how.classes,
                precision=how.precision,
                batch_size=how.batch_size,
                device=how.device,
            )
        return self._variants[key]

    def prepare(self, indices: IntArray, statistics: Iterable[str] = ("taylor_abs",)) -> None:
        """Compute what is missing for these images, in one pass; give the union of many proxy sets at once."""
        wanted = {family for name in statistics for family in statistic_named(name).families}
        banks = {family: self._bank(family) for family in sorted(wanted)}
        if not any(len(bank.missing(indices)) for bank in banks.values()):
            return
        self._cache.mkdir(parents=True, exist_ok=True)
        with FileLock(self._cache / f"evidence-{self.base.fingerprint}.lock"):
            needs: dict[tuple[str, ...], list[int]] = {}
            missing = {family: set(bank.missing(indices).tolist()) for family, bank in banks.items()}
            for index in sorted(set().union(*missing.values())):
                families = tuple(family for family in banks if index in missing[family])
                needs.setdefault(families, []).append(index)
            for families, group in sorted(needs.items()):
                self._measure(np.array(group, dtype=np.int64), families)

    def rows(
        self, statistic: str, indices: IntArray, means: NDArray[np.floating] | None = None
    ) -> NDArray[np.floating]:
        """Return each image's values (len(indices), row length); see `vit.units` for the order of units.

        Args:
            statistic: A name of `statistics.STATISTICS`.
            indices: Images.
            means: What a centred statistic is centred on; by default the mean over `indices`.
        """
        kind = statistic_named(statistic)
        self.prepare(indices, (statistic,))
        rows: NDArray[np.floating] = self._bank(kind.family).read(indices)
        if kind.centred:
            means = self.mean_row("activation_mean", indices) if means is None else means
            rows = centre(rows, self._bank("shift").read(indices), means, self.base.shape)
        return kind.transform(rows)

    def mean(self, statistic: str, indices: IntArray, weights: NDArray[np.floating] | None = None) -> Units:
        """Return the weighted mean over images as one number a unit; repeated images count as often."""
        return unpack(self.mean_row(statistic, indices, weights), self.base.shape)

    def mean_row(
        self, statistic: str, indices: IntArray, weights: NDArray[np.floating] | None = None
    ) -> NDArray[np.float64]:
        """Return the weighted mean over images of any statistic, those of layers and features included."""
        weights = np.ones(len(indices)) if weights is None else np.asarray(weights, dtype=np.float64)
        unique, inverse = np.unique(indices, return_inverse=True)
        sums = np.bincount(inverse, weights)
        return self._mean(statistic, unique.tobytes(), (sums / sums.sum()).tobytes()).copy()

    @cached_property
    def _mean(self) -> Callable[[str, bytes, bytes], NDArray[np.float64]]:
        """The last few means."""
        return lru_cache(maxsize=8)(self._compute_mean)

    def _compute_mean(self, statistic: str, indices: bytes, weights: bytes) -> NDArray[np.float64]:
        index, weight = np.frombuffer(indices, dtype=np.int64), np.frombuffer(weights, dtype=np.float64)
        kind = statistic_named(statistic)
        self.prepare(index, (statistic,))
        means = self.mean_row("activation_mean", index, weight) if kind.centred else None
        total = np.zeros(family_width(kind.family, self.base.shape))
        for start in range(0, len(index), _CHUNK):
            part = slice(start, start + _CHUNK)
            # einsum rather than BLAS: the same sum whatever the number of threads
            total += np.einsum("i,ij->j", weight[part].astype(np.float32), self.rows(statistic, index[part], means))
        return total

    def _measure(self, indices: IntArray, families: tuple[str, ...]) -> None:
        """Compute the rows of `families` for `indices` and append them, a segment at a time."""
        base = self.base
        with tracking("evidence", len(indices)) as advance:
            for start in range(0, len(indices), _SEGMENT):
                part = indices[start : start + _SEGMENT]
                read = []
                for batch, rows in measure(
                    base.model, base.shape, base.preprocess, self.images, part, families, self.how
                ):
                    read.append(rows)
                    advance(len(batch))
                for family in families:
                    self._bank(family).append(part, np.concatenate([rows[family] for rows in read]))
                self._measured += len(part)

    def _bank(self, family: str) -> Bank:
        if family not in self._banks:
            how = self.how if family in LOSS_FAMILIES else replace(self.how, loss="labels", classes=None)
            key = cache_key([2, self.base.fingerprint, self._images_id, family, how])
            folder = self._cache / "evidence" / f"{family}-{key[:16]}"
            self._banks[family] = Bank(folder, family_width(family, self.base.shape))
        return self._banks[family]
