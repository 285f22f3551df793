"""The coordinates in which a base is scored and cut: its own, or each head's dimensions rotated."""

from fedprune.vit.base import Base
from fedprune.vit.lowrank import low_rank

ATTENTION = ("low_rank", "as_is")


def check_attention(attention: str) -> None:
    """Raise ValueError where `attention` is none of `ATTENTION`."""
    if attention not in ATTENTION:
        raise ValueError(f"attention is {attention!r}; choose one of {', '.join(ATTENTION)}.")


def rotated(base: Base, attention: str) -> Base:
    """Return the base in the coordinates that are scored and cut, one of `ATTENTION`; it computes the same."""
    return low_rank(base).base if attention == "low_rank" else base
