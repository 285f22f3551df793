"""The coordinates in which a base is scored and cut: its own, or a residual stream and heads that are rotated."""

from dataclasses import dataclass, field, replace

from fedprune.data.images import IntArray
from fedprune.evidence.directions import DIRECTIONS
from fedprune.evidence.evidence import Evidence
from fedprune.pruning.method import Method, PruningTask
from fedprune.pruning.sample import pool_sample
from fedprune.vit.base import Base
from fedprune.vit.lowrank import low_rank
from fedprune.vit.stream import rotate

ATTENTION = ("low_rank", "as_is")
STREAM = ("rotated", "as_is")
SAMPLE = 256  # pool images behind the directions of a rotated stream


@dataclass(frozen=True)
class Rotatable(Method):
    """A method that works on the base in whatever coordinates: what it asks of units, and what they are, stay apart.

    Attributes:
        attention: `low_rank`: the base with each head's query-key and value dimensions rotated to singular directions
            (NuWa, equations 5 and 9 to 12; see `vit.lowrank`); `as_is`: the base's own dimensions.
        stream: `rotated`: the base with its embedding dimensions rotated to directions of the pool's stream, see
            `vit.stream`; `as_is`: the base's own dimensions.
        directions: Which directions those are: `pca`, `geo`, `random` or `axes`, see `evidence.directions`.
    """

    attention: str = field(default="as_is", kw_only=True)
    stream: str = field(default="as_is", kw_only=True)
    directions: str = field(default="pca", kw_only=True)

    def __post_init__(self) -> None:
        for name, known in (("attention", ATTENTION), ("stream", STREAM), ("directions", DIRECTIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}.")

    @property
    def turning_loss(self) -> str:
        """The loss behind directions of gradients (`geo`), see `evidence.losses`."""
        return "labels"

    @property
    def turns_by_labels(self) -> bool:
        """Whether its directions ask labels."""
        return self.stream == "rotated" and self.directions == "geo" and self.turning_loss == "labels"

    def in_coordinates(self, task: PruningTask) -> PruningTask:
        """Return the same task over the base in these coordinates, and over evidence measured on it."""
        return _on(task, self.turned(task.evidence, task.pool))

    def in_stream(self, task: PruningTask) -> PruningTask:
        """Return the same with heads as they are: for a method that takes them apart itself."""
        return _on(task, self._turned_stream(task.evidence, task.pool))

    def turned(self, evidence: Evidence, pool: IntArray) -> Evidence:
        """Return the evidence of the base in these coordinates; it computes the same. Directions are the whole pool's.

        Args:
            evidence: That of the base as it is.
            pool: Indices of the whole pool.
        """
        evidence = self._turned_stream(evidence, pool)
        return evidence.on(low_rank(evidence.base).base) if self.attention == "low_rank" else evidence

    def _turned_stream(self, evidence: Evidence, pool: IntArray) -> Evidence:
        if self.stream == "as_is":
            return evidence
        asked = evidence.under(self.turning_loss) if self.directions == "geo" else evidence
        return evidence.on(asked.once(("stream", self.directions), lambda: _rotated(asked, pool, self.directions)))


def _on(task: PruningTask, evidence: Evidence) -> PruningTask:
    return replace(task, base=evidence.base, evidence=evidence)


def _rotated(evidence: Evidence, pool: IntArray, directions: str) -> Base:
    return rotate(evidence.base, evidence.directions(directions, pool_sample(pool, SAMPLE)))
