"""Clipping without noise: a baseline, not a protection."""

import dataclasses
from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.privacy.mechanism import Records, Release
from fedprune.privacy.moments import clip
from fedprune.privacy.none import Unprotected


@register("mechanism", "clip_only")
@dataclass(frozen=True)
class ClipOnly(Unprotected):
    """The mixture of clipped records without noise: shows what clipping alone costs; no guarantee."""

    def release(self, records: Records) -> Release:
        """Clip to the space's radius, fit and release."""
        radius = records.space.radius
        release = super().release(dataclasses.replace(records, points=clip(records.points, radius)))
        first, *rest = release.entries
        entry = dataclasses.replace(first, mechanism="clip_only", clip=radius)
        return dataclasses.replace(release, entries=(entry, *rest))
