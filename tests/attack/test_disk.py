"""A disk that is full at any write ends the run with a sentence; nothing final is written, the next try is whole."""

import errno
import json
import shutil

import pandas as pd
import pytest
from safetensors import SafetensorError

from fedprune.core import files
from fedprune.core.cache import cached_array
from fedprune.core.errors import DiskError, FedpruneError
from fedprune.experiment.journal import REPORTS, ROWS, SHAPES
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer
from tests.situations import held


class FullDisk:
    """Counts what is synced, a file and then its folder, and is full at the `fails_at`-th."""

    def __init__(self, monkeypatch):
        self.names, self.fails_at, self.sync = [], None, files._sync
        monkeypatch.setattr(files, "_sync", self)

    def __call__(self, path):
        self.names.append(str(path))
        if len(self.names) == self.fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.sync(path)


@pytest.fixture
def disk(monkeypatch):
    return FullDisk(monkeypatch)


def check(configure, disk, folder, fresh_cache=False, every=None):
    """Fail at one write after the other, look at what is left, then go on from there with room on the disk."""

    def run(name, fails_at=None):
        disk.names, disk.fails_at = [], fails_at
        cache = folder / (f"cache-{name}" if fresh_cache else "cache")
        return execute(configure(2, runs=str(folder / name), cache=str(cache), save_models=True), Observer())

    if not fresh_cache:
        run("warm")
    whole = run("whole")
    names = list(disk.names)
    for place in range(1, len(names) + 1) if every is None else every(names):
        where = names[place - 1]
        try:
            run(f"place-{place}", place)
        except FedpruneError as error:
            assert "No space left on device" in str(error), where  # noqa: PT017 (or the cache goes without)
            left = next((folder / f"place-{place}").iterdir())
            # The last sync is that of the folder in which the whole record already stands.
            assert place == len(names) or not (left / "record.json").exists(), where
            rows = [json.loads(line)["row"] for path in left.glob(ROWS) for line in path.read_text().splitlines()]
            assert all(row["status"] == "ok" for row in rows), where
            assert not list(left.rglob(".device*")), "a temporary file was left"
        else:
            assert "cache" in where, f"{where} could not be written, and the run did not say so"
        again = run(f"place-{place}")
        assert again.digest == whole.digest, where
        assert set(again.devices["status"]) == {"ok"}
        pd.testing.assert_frame_equal(timeless(again.devices), timeless(whole.devices))
        shutil.rmtree(folder / f"place-{place}")
    return names


def timeless(devices):
    return devices[[name for name in devices if not name.endswith("_seconds")]]


def a_few(names):
    """The first write of each kind."""
    kinds = [SHAPES, "models", ROWS, REPORTS, "devices.parquet"]
    return [next(place for place, name in enumerate(names, 1) if kind in name) for kind in kinds]


def test_a_full_disk_ends_the_run_and_no_device_is_to_blame(configure, disk, tmp_path):
    names = check(configure, disk, tmp_path, every=a_few)
    assert len(names) >= 20
    held(
        "A disk that is full is no device's failure",
        "every write of a run fails in turn",
        f"the first of each kind of the run's writes, {len(a_few(names))}; all of them in the slow tests",
        "a sentence, nothing final, the next try has the same digest",
    )


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_full_disk_at_every_write(configure, disk, tmp_path):
    check(configure, disk, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_full_disk_at_every_write_of_the_first_run(configure, disk, tmp_path):
    """With an empty cache; what cannot be kept there is computed again."""
    check(configure, disk, tmp_path, fresh_cache=True)


def test_an_array_that_cannot_be_cached_is_there_all_the_same(disk, tmp_path):
    disk.fails_at = 1
    assert cached_array(tmp_path, "test", 1, lambda: pd.Series([1.0]).to_numpy()).tolist() == [1.0]
    assert not list(tmp_path.rglob("*.npz"))


def test_safetensors_own_error_is_a_disk_error(tmp_path):
    def write(path):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(DiskError, match="No space left on device"):
        files.write_atomic(tmp_path / "model.safetensors", write)
    assert list(tmp_path.iterdir()) == []
