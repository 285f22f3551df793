"""A main job in small: real glyphs, the packaged base, three devices."""

from pathlib import Path

import pytest

SMALL = [
    "data.train_per_class=12",
    "data.test_per_class=4",
    "partition.devices=3",
    "features.dimensions=8",
    "features.anchors=5",
    "mixture.components=2",
    "proxy_size=32",
    "quiet=true",
]


@pytest.fixture
def small(tmp_path: Path, shared_cache: Path) -> list[str]:
    """Settings of a run of seconds, in a runs folder of its own."""
    return [*SMALL, f"runs={tmp_path / 'runs'}", f"cache={shared_cache}"]
