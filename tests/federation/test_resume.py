"""A run that is killed goes on with the same configuration, and ends with the same digest."""

import os
import random
import signal
import time
import traceback
from pathlib import Path

import pytest

from fedprune.cohorts.kmeans import KMeans
from fedprune.core.errors import FedpruneError
from fedprune.experiment.journal import REPORTS, ROWS
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer


def in_child(config):
    """Run in a fork: everything is imported already, so it starts at once."""
    child = os.fork()
    if child == 0:
        try:
            execute(config, Observer())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child


def kept_below(*folders):
    """Count finished files, and a journal's lines; a kill may leave behind a file whose name begins with a dot."""
    paths = [path for folder in folders for path in Path(folder).rglob("*") if path.name[0] != "." and path.is_file()]
    return sum(path.read_bytes().count(b"\n") if path.suffix == ".jsonl" else 1 for path in paths)


def kill_and_go_on(configure, tmp_path, kills, **how):
    """Kill at random moments, counted in what the run has written, so that a busy machine draws them too."""
    calm = configure(8, runs=str(tmp_path / "calm"), cache=str(tmp_path / "calm-cache"), **how)
    start = time.monotonic()
    assert os.waitpid(in_child(calm), 0)[1] == 0
    seconds, files = time.monotonic() - start, kept_below(calm.runs, calm.cache)
    expected = execute(calm, Observer()).digest
    draw = random.Random(0)
    killed = 0
    for attempt in range(kills):
        # A new folder now and then, so that early and late moments are both met.
        part = attempt // 4
        config = configure(8, runs=str(tmp_path / f"runs-{part}"), cache=str(tmp_path / f"cache-{part}"), **how)
        child = in_child(config)
        moment = draw.randrange(min(kept_below(config.runs, config.cache), files - 1), files)
        status = None
        while status is None and kept_below(config.runs, config.cache) < moment:
            ended, code = os.waitpid(child, os.WNOHANG)
            status = code if ended else None
            time.sleep(0.002)
        if status is None:
            time.sleep(draw.uniform(0, seconds / files))
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) or status == 0
        killed += os.WIFSIGNALED(status)
        if attempt % 4 == 3 or attempt == kills - 1:
            assert execute(config, Observer()).digest == expected, f"after kill {attempt}"
    assert killed >= kills / 2


def test_killed_three_times(configure, tmp_path):
    kill_and_go_on(configure, tmp_path, 3)


def test_killed_where_devices_share_models(configure, tmp_path):
    kill_and_go_on(configure, tmp_path, 2, cohorts=KMeans(count=3, minimum=2, levels=2))


@pytest.mark.slow
def test_killed_twenty_times(configure, tmp_path):
    kill_and_go_on(configure, tmp_path, 20)


class Cut(Observer):
    """Stops a run after a number of final rows, as a kill would."""

    def __init__(self, rows):
        self.left = rows

    def row(self, row):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_stopped_after_each_row(configure, tmp_path):
    whole = execute(configure(runs=str(tmp_path / "whole"), cache=str(tmp_path / "cache-0")), Observer())
    config = configure(runs=str(tmp_path / "cut"), cache=str(tmp_path / "cache-1"))
    for rows in (1, 1, 1):
        with pytest.raises(KeyboardInterrupt):
            execute(config, Cut(rows))
    record = execute(config, Observer())
    assert record.digest == whole.digest
    assert (record.folder / "ledger.json").read_text() == (whole.folder / "ledger.json").read_text()


def test_what_a_kill_left_half_written_is_done_again(configure, tmp_path):
    config = configure(cache=str(tmp_path / "cache"))
    with pytest.raises(KeyboardInterrupt):
        execute(config, Cut(3))
    folder = next((tmp_path / "runs").iterdir())
    for name, cut in ((ROWS, 50), (REPORTS, 200)):
        whole, last = (folder / name).read_bytes()[:-1].rsplit(b"\n", 1)
        (folder / name).write_bytes(whole + b"\n" + last[:cut])
    whole = execute(configure(runs=str(tmp_path / "whole"), cache=str(tmp_path / "cache")), Observer())
    assert execute(config, Observer()).digest == whole.digest


def test_two_processes_on_one_run(configure, tmp_path):
    config = configure(cache=str(tmp_path / "cache"))

    class Meanwhile(Observer):
        refusal = None

        def row(self, row):
            if self.refusal is None:
                try:
                    execute(config, Observer())
                except FedpruneError as error:
                    self.refusal = str(error)

    meanwhile = Meanwhile()
    execute(config, meanwhile)
    assert "Another process is working on" in meanwhile.refusal


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_afterwards(configure, tmp_path, monkeypatch):
    import errno

    from fedprune.core import files

    config = configure(cache=str(tmp_path / "cache"))
    whole = execute(configure(runs=str(tmp_path / "whole"), cache=str(tmp_path / "cache")), Observer())
    sync, calls = files._sync, []

    def full(path):
        calls.append(path)
        if len(calls) > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(path)

    with monkeypatch.context() as patch:
        patch.setattr(files, "_sync", full)
        with pytest.raises(FedpruneError, match="No space left on device"):
            execute(config, Observer())
    assert execute(config, Observer()).digest == whole.digest


@pytest.fixture
def not_root():
    """Give up root's right to write everywhere."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


def test_an_unwritable_folder_is_one_sentence(configure, not_root, tmp_path):
    with pytest.raises(FedpruneError, match="Cannot write .*: Permission denied"):
        execute(configure(runs="/locked/runs"), Observer())


def test_a_file_in_the_folder_s_place_is_one_sentence(configure, tmp_path):
    (tmp_path / "occupied").write_text("")
    with pytest.raises(FedpruneError, match="Cannot write"):
        execute(configure(runs=str(tmp_path / "occupied")), Observer())


def test_failed_devices_are_asked_again_and_rejected_ones_are_not(configure, set_faults, tmp_path, monkeypatch):
    from fedprune.federation import inline

    set_faults({"report 1": "raise", "report 2": "NaN"})
    monkeypatch.setattr(
        inline, "load_client_app", lambda _: __import__("tests.federation.faulty").federation.faulty.app
    )
    config = configure(cache=str(tmp_path / "cache"))
    with pytest.raises(KeyboardInterrupt):
        execute(config, Cut(3))
    set_faults({})
    record = execute(config, Observer())
    assert record.devices["status"].tolist() == ["ok", "ok", "rejected", "ok"]
    assert record.values["devices"] == {"ok": 3, "rejected": 1}
