"""Shared by all tests: one thread, and the real images and weights where there are any."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest

import fedprune.vit  # noqa: F401  (declares torchvision's missing operators before a test imports timm)

REAL_DATA = Path(os.environ.get("FEDPRUNE_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets (`cifar100/train.parquet`, ...)."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"There are no real images at {REAL_DATA}; set FEDPRUNE_DATA to the folder that holds them.")
    return REAL_DATA


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all runs of the session, as the runs of a sweep share one."""
    return tmp_path_factory.mktemp("cache")
