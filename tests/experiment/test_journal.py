"""What a journal keeps of many devices: little memory, few files, and what earlier versions kept counts."""

import json
import tracemalloc
from base64 import b64decode
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprune.core import files
from fedprune.core.files import write_bytes, write_json
from fedprune.experiment.journal import REPORTS, ROWS, Journal, count_kept, model_file
from fedprune.experiment.run import execute
from fedprune.mixture.report import check_report, pack_report
from fedprune.protocol.answers import Upload
from fedprune.protocol.device import make_report
from fedprune.protocol.kept import IndexSets, Rows, reports_of
from fedprune.protocol.observer import Observer
from fedprune.protocol.private import own_cache
from fedprune.protocol.round import Round, take_report
from fedprune.protocol.row import first_row
from fedprune.protocol.server import Server
from fedprune.protocol.simulation import open_simulation
from tests.federation.test_resume import Cut

DEVICES, AT_REST = 2000, 2000  # bytes


@pytest.fixture
def simulation(small_config):
    return open_simulation(small_config.setup())


def test_a_device_at_rest_takes_less_than_two_kilobytes(simulation, small_config, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_sync", lambda _: None)
    world, upload = simulation.public, make_report(simulation.shard(0), simulation.public.space)
    report = check_report(upload.report, world.expected(0))
    journal = Journal(tmp_path / "run", "run", False, Observer())
    tracemalloc.start()
    rows = Rows({device: first_row(device, world.base.shape) for device in range(DEVICES)}, journal)
    server = Server(world, small_config.server_options(), reports_of(journal, world))
    state = Round(server, rows, journal, small_config.personal)
    for device in range(DEVICES):
        blob = pack_report(replace(report, device=device))
        assert take_report(state, device, lambda blob=blob: Upload(blob, upload.ledger)) == "ok"
    assert tracemalloc.get_traced_memory()[0] / DEVICES < AT_REST
    for device in range(DEVICES):
        state.rows.close(device)
    assert tracemalloc.get_traced_memory()[0] / DEVICES < AT_REST / 2
    tracemalloc.stop()
    assert server.reports[7].mixture.means.tolist() == report.mixture.means.tolist()
    assert state.rows[7].upload_bytes == len(upload.report)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [REPORTS, ROWS]


def test_a_run_that_an_earlier_version_began_goes_on(configure, tmp_path):
    config = configure(cache=str(tmp_path / "cache"))
    with pytest.raises(KeyboardInterrupt):
        execute(config, Cut(2))
    for line in (config.folder / REPORTS).read_text().splitlines():
        entry = json.loads(line)
        path = config.folder / "reports" / f"device-{entry.pop('device'):03d}"
        write_bytes(path.with_suffix(".safetensors"), b64decode(entry.pop("report")))
        write_json(path.with_suffix(".json"), entry)
    for line in (config.folder / ROWS).read_text().splitlines():
        entry = json.loads(line)
        write_json(config.folder / "rows" / f"device-{entry.pop('device'):03d}.json", entry)
    for name in (REPORTS, ROWS):
        (config.folder / name).unlink()
    assert count_kept(config.folder) == (4, 2)
    whole = execute(configure(runs=str(tmp_path / "whole"), cache=str(tmp_path / "cache")), Observer())

    class Phases(Observer):
        asked = None

        def phase(self, name, total):
            self.asked = {**(self.asked or {}), name: total}

    phases = Phases()
    assert execute(config, phases).digest == whole.digest
    assert phases.asked == {"reports": 0, "deriving": 2, "evaluating": 2}


def test_no_folder_has_more_than_a_thousand_devices_own_files(tmp_path):
    for place in (model_file, own_cache):
        folders = Counter(place(tmp_path, device).parent for device in range(5000))
        assert list(folders.values()) == [1000] * 5


@given(st.sampled_from([1, 255, 256, 65_535, 65_536, 2**32]), st.data())
def test_sets_of_images_come_back_as_they_were(images, data):
    wanted = data.draw(st.dictionaries(st.integers(0, 5), st.lists(st.integers(0, images - 1))))
    kept = IndexSets(images)
    for device, chosen in wanted.items():
        kept[device] = np.array(chosen, dtype=np.int64)
    assert {device: chosen.tolist() for device, chosen in kept.items()} == wanted
    assert all(chosen.dtype == np.int64 for chosen in kept.values())
