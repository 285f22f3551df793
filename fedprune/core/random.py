"""Named random streams: every draw comes from a stream that the seed and a purpose name.

A stream depends on nothing else, so results do not change with the order in which devices answer, with the
number of workers, or with a draw added elsewhere.
"""

import hashlib
import json

import numpy as np


def stream_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for the stream that `purpose` names, e.g. `("mixture", 3)` for device 3."""
    text = json.dumps([seed, *purpose])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def stream(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return NumPy's generator for the stream that `purpose` names."""
    return np.random.default_rng(stream_seed(seed, *purpose))
