"""Clipping without noise: a baseline, not a protection."""

import dataclasses
from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.mixture.fit import MixtureFit
from fedprune.mixture.mixture import FeatureSpace, FloatArray
from fedprune.privacy.mechanism import Release
from fedprune.privacy.moments import clip
from fedprune.privacy.none import Unprotected


@register("mechanism", "clip_only")
@dataclass(frozen=True)
class ClipOnly(Unprotected):
    """The mixture of clipped records without noise: shows what clipping alone costs; no guarantee."""

    def release(
        self,
        projected: FloatArray,
        fit: MixtureFit,
        space: FeatureSpace,
        seed: int,
        labels: IntArray | None = None,
        class_count: int | None = None,
    ) -> Release:
        """Clip to the space's radius, fit and release."""
        release = super().release(clip(projected, space.radius), fit, space, seed, labels, class_count)
        first, *rest = release.entries
        entry = dataclasses.replace(first, mechanism="clip_only", clip=space.radius)
        return dataclasses.replace(release, entries=(entry, *rest))
