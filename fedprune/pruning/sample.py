"""A fixed sample of the pool: what stands for "all images" where one evidence serves every device."""

from fedprune.core.random import stream
from fedprune.data.images import IntArray


def pool_sample(pool: IntArray, size: int) -> IntArray:
    """Return at most `size` images of the pool, ascending; the same for every device, seed and method."""
    if len(pool) <= size:
        return pool
    chosen: IntArray = stream(0, "pool sample").choice(pool, size, replace=False)
    chosen.sort()
    return chosen
