"""Who is told how far long work has come: whatever takes more than a second says so from where it loops.

The loops stand deep in rooms that know nothing of runs, so that the listener is found as a logger is, and not handed
through every call on the way.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Listener(Protocol):
    """Hears of phases and of their steps."""

    def phase(self, name: str, total: int) -> None:
        """A phase of `total` steps begins; one of the same name that is over goes on with so many more."""

    def advance(self, name: str, status: str = "ok", steps: int = 1) -> None:
        """So many steps of a phase are done."""


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let `listener` hear of all that is tracked inside the block, in this thread."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def tracking(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Give a function that tells the listener, if there is one, of so many more of `total` steps of a phase."""
    listener = _listener.get()
    if listener is None or not total:
        yield lambda steps: None
        return
    listener.phase(name, total)
    yield lambda steps: listener.advance(name, steps=steps)


def batches(indices: NDArray[np.int64], size: int, name: str) -> Iterator[NDArray[np.int64]]:
    """Yield the indices in batches of at most `size`, and track them as steps of the phase `name`."""
    with tracking(name, len(indices)) as advance:
        for start in range(0, len(indices), size):
            batch = indices[start : start + size]
            yield batch
            advance(len(batch))
