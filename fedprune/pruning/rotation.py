"""The coordinates in which a base is scored and cut: its own, or a residual stream and heads that are rotated."""

from typing import Any

from fedprune.data.images import IntArray
from fedprune.evidence.directions import DIRECTIONS
from fedprune.evidence.evidence import Evidence
from fedprune.pruning.sample import pool_sample
from fedprune.vit.base import Base
from fedprune.vit.lowrank import low_rank
from fedprune.vit.stream import rotate

ATTENTION = ("low_rank", "as_is")
STREAM = ("rotated", "as_is")
SAMPLE = 256  # pool images behind the directions of a rotated stream


def check_coordinates(method: Any) -> None:
    """Raise ValueError where a method's `attention`, `stream` or `directions` is unknown."""
    for name, known in (("attention", ATTENTION), ("stream", STREAM), ("directions", DIRECTIONS)):
        if getattr(method, name) not in known:
            raise ValueError(f"{name} is {getattr(method, name)!r}; choose one of {', '.join(known)}.")


def in_coordinates(
    evidence: Evidence, pool: IntArray, attention: str, stream: str, directions: str, loss: str
) -> Evidence:
    """Return the evidence of the base in these coordinates; it computes the same. Directions are the whole pool's.

    Args:
        evidence: That of the base as it is.
        pool: Indices of the whole pool.
        attention: One of `ATTENTION`.
        stream: One of `STREAM`.
        directions: Those of a rotated stream, one of `DIRECTIONS`.
        loss: What directions of gradients (`geo`) differentiate.
    """
    base = evidence.base
    if stream == "rotated":
        asked = evidence.under(loss) if directions == "geo" else evidence
        base = asked.once(("stream", directions), lambda: _rotated(asked, pool, directions))
    return evidence.on(low_rank(base).base if attention == "low_rank" else base)


def _rotated(evidence: Evidence, pool: IntArray, directions: str) -> Base:
    return rotate(evidence.base, evidence.directions(directions, pool_sample(pool, SAMPLE)))
