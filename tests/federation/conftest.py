"""A small real experiment: glyphs, the packaged base, a few devices with a few images each."""

import dataclasses
import json
import os
import tempfile
from pathlib import Path

import pytest
import torch

# Worker processes take their environment from when the first of them was started, so the file's name is fixed here.
FAULTS = Path(tempfile.mkdtemp(prefix="fedprune-tests-")) / "faults.json"
os.environ["FEDPRUNE_TEST_FAULTS"] = str(FAULTS)

torch.set_num_threads(1)

SMALL = (
    "partition.choice=random", "partition.devices=4", "data.train_per_class=16", "data.test_per_class=4",
    "partition.max_train=40", "partition.max_test=24", "proxy_size=16", "oracle=false", "recovery=none",
    "method=global", "quiet=true",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_faults():
    FAULTS.write_text("{}")


@pytest.fixture
def set_faults():
    def set_them(faults):
        FAULTS.write_text(json.dumps(faults))

    return set_them


@pytest.fixture(scope="session")
def small_config(tmp_path_factory):
    from fedprune.experiment.compose import compose

    folder = tmp_path_factory.mktemp("small")
    return compose([*SMALL, f"runs={folder / 'runs'}", f"cache={folder / 'cache'}"])


@pytest.fixture
def configure(small_config, tmp_path):
    """Make a configuration with a fresh folder of runs; `devices`, `cache` and the rest as asked."""

    def make(devices=4, **changes):
        partition = dataclasses.replace(small_config.partition, devices=devices)
        return dataclasses.replace(small_config, partition=partition, **{"runs": str(tmp_path / "runs"), **changes})

    return make


@pytest.fixture
def run_strategy():
    """Run a configuration over an engine with any ClientApp, without a folder for it; return rows by device."""

    def run(config, engine, client_app="tests.federation.faulty:app"):
        strategy = strategy_of(config)
        engine.run(strategy, len(strategy.rows), client_app)
        return {device: timeless(row) for device, row in strategy.rows.items()}

    return run


def strategy_of(config, observer=None):
    """Return the strategy of a configuration's run, ready to begin, without a folder for it."""
    from fedprune.federation.strategy import EdgeModels
    from fedprune.protocol.observer import Observer
    from fedprune.protocol.simulation import open_simulation

    setup = config.setup()
    state = open_simulation(setup).round(config.server_options(), observer or Observer(), config.clock)
    return EdgeModels(state, setup)


def timeless(row):
    return {key: value for key, value in row.to_dict().items() if not key.endswith("_seconds")}
