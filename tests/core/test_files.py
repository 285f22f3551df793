import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from fedprune.core.cache import cached_array
from fedprune.core.errors import FedpruneError
from fedprune.core.files import write_atomic, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "record.json"
    write_text(path, "old")

    def fail(temporary):
        temporary.write_text("half of the ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(FedpruneError, match="No space left on device. Free space"):
        write_atomic(path, fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FedpruneError, match="Choose another folder"):
        write_text(tmp_path / "file" / "below" / "record.json", "text")


def _rewrite(path):
    number = 0
    while True:
        write_json(path, {"number": number, "filling": "x" * 200_000})
        number += 1


def test_a_kill_in_the_middle_of_writing_leaves_a_whole_file(tmp_path):
    import json

    path = tmp_path / "record.json"
    for attempt in range(5):
        process = multiprocessing.get_context("fork").Process(target=_rewrite, args=(path,))
        process.start()
        time.sleep(0.05 + 0.013 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if path.exists():
            assert len(json.loads(path.read_text())["filling"]) == 200_000
    assert path.exists()


def test_a_cached_array_is_computed_once(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return np.arange(6, dtype=np.float32).reshape(2, 3)

    first = cached_array(tmp_path, "features", ["key", 1], compute)
    second = cached_array(tmp_path, "features", ["key", 1], compute)
    assert len(calls) == 1
    np.testing.assert_array_equal(first, second)
    assert second.dtype == np.float32


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: b"", lambda data: data[:200] + b"?" + data[201:]]
)
def test_a_damaged_cache_file_is_computed_again(tmp_path, damage):
    def compute():
        return np.arange(1000.0)

    cached_array(tmp_path, "features", "key", compute)
    (file,) = (tmp_path / "features").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    np.testing.assert_array_equal(cached_array(tmp_path, "features", "key", compute), compute())
