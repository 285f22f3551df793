"""How many threads torch computes with."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


@contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads inside this context."""
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def one_thread() -> AbstractContextManager[None]:
    """Let torch compute with one thread inside this context."""
    return with_threads(1)
