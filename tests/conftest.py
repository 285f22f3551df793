"""Shared by all tests: one thread, and the real images and weights where there are any."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest

import fedprune.vit  # noqa: F401  (declares torchvision's missing operators before a test imports timm)

# How long an example takes on a busy machine is no property of the code.
hypothesis.settings.register_profile(
    "fedprune", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("fedprune")

REAL_DATA = Path(os.environ.get("FEDPRUNE_DATA", Path(__file__).parents[2] / "shared" / "data"))

# A main job of seconds: real glyphs, the packaged base, three devices.
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


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets (`cifar100/train.parquet`, ...)."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"There are no real images at {REAL_DATA}; set FEDPRUNE_DATA to the folder that holds them.")
    return REAL_DATA


@pytest.fixture(scope="session")
def photographs(real_data: Path):
    """24 labelled photographs of ImageNet's validation set."""
    from fedprune.data.images import ArrayImages
    from fedprune.data.parquet import Parquet

    dataset = Parquet(root=str(real_data / "imagenet_sample"), test_file="validation.parquet").load()
    chosen = np.arange(24)
    return ArrayImages(dataset.test.read(chosen), dataset.test.labels[chosen])


@pytest.fixture(scope="session")
def vit_tiny(real_data: Path):
    """The real ViT-Tiny; who changes it makes it as it was."""
    from fedprune.vit.base import Base
    from fedprune.vit.base_timm import TimmBase

    files = sorted((real_data.parent / "models").glob("vit_tiny_patch16_224.*safetensors"))
    if not files:
        pytest.skip(f"There are no weights of vit_tiny_patch16_224 in {real_data.parent / 'models'}.")
    loaded = TimmBase(model="vit_tiny_patch16_224", weights=str(files[0])).fetch(1000)
    return Base.of(loaded.model, loaded.preprocess)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all runs of the session, as the runs of a sweep share one."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def small(tmp_path: Path, shared_cache: Path) -> list[str]:
    """Settings of a run of seconds, in a runs folder of its own."""
    return [*SMALL, f"runs={tmp_path / 'runs'}", f"cache={shared_cache}"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Captured logs travel between processes as UTF-8, and tests of hostile text log what is none."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
