"""On a real SuperLink: a run that somebody else registered is never executed."""

import hashlib
import re
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from flwr.cli.build import build_fab_from_files
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import ListRunsRequest, StartRunRequest
from flwr.supercore.fab import Fab

from fedprune.core.errors import FedpruneError
from fedprune.federation.certificates import make_certificates
from fedprune.federation.engine import CLIENT_APP
from fedprune.federation.processes import LocalProcesses
from fedprune.federation.superlink import PYPROJECT, Connection
from tests.situations import held

EVIL = b"from pathlib import Path\n\nPath({proof!r}).touch()\napp = None\n"


def start_foreign_run(control, proof):
    """Start a run as anybody can who reaches the Control API: its app leaves a file behind where it is executed."""
    code = EVIL.replace(b"{proof!r}", repr(str(proof)).encode())
    content, _ = build_fab_from_files({"pyproject.toml": PYPROJECT.format(version="1.0.0").encode(), "device.py": code})
    fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
    return control.StartRun(StartRunRequest(fab=fab_to_proto(fab))).run_id


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_that_this_process_did_not_register_is_never_claimed(tmp_path):
    with LocalProcesses(1, log=tmp_path / "log") as processes:
        connection = Connection(processes.address, processes.secret, None, processes)
        warm = connection.start_run(CLIENT_APP)  # waits until the SuperLink answers
        connection._stop(warm)
        control = connection._control()
        foreign = start_foreign_run(control, tmp_path / "proof")
        ours = connection.start_run(CLIENT_APP)
        refused = pytest.raises(FedpruneError, match=rf"has a run \({foreign}\) that this process did not start")
        with refused, connection.grid(ours):
            pytest.fail("a grid was handed out")
        runs = control.ListRuns(ListRunsRequest()).run_dict
        assert runs[foreign].status.status != "running"
        assert runs[ours].status.status == "finished"
        again = connection.start_run(CLIENT_APP)  # what the first try left behind is in nobody's way
        with connection.grid(again) as grid:
            assert grid.run.run_id == again
            assert control.ListRuns(ListRunsRequest()).run_dict[foreign].status.status != "running"
        control.close()
    assert not (tmp_path / "proof").exists()
    held(
        "Only our run is served on a SuperLink",
        "another client's run is there first, with code of its own",
        "on real processes (slow)",
        "a sentence and an end; nothing of it is executed",
    )


NGINX = re.search(r"```nginx\n(.*?)```", (Path(__file__).parents[2] / "docs" / "deployment.md").read_text(), re.S)
LOGS = "pid {folder}/pid; error_log {folder}/error.log; daemon off; events {{}} http {{ access_log off;"
TEMPORARY = " ".join(f"{name}_temp_path {{folder}};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed; the documented gate needs it.")
def test_the_gate_of_the_manual_lets_devices_through_and_nothing_else(tmp_path):
    assert NGINX is not None
    files = make_certificates(tmp_path)
    with LocalProcesses(0, files, log=tmp_path / "log") as processes:
        gate = processes.port + 1
        server = NGINX[1].replace("8443", f"127.0.0.1:{gate}").replace("127.0.0.1:8000", processes.address)
        server = server.replace("server.crt", str(files.certificate)).replace("server.key", str(files.key))
        head = (LOGS + TEMPORARY).format(folder=tmp_path)
        (tmp_path / "nginx.conf").write_text(f"{head}\n{server}\n}}\n")
        inside = Connection(processes.address, processes.secret, files.authority.read_bytes(), processes)
        run = inside.start_run(CLIENT_APP)
        nginx = subprocess.Popen(["nginx", "-p", str(tmp_path), "-c", "nginx.conf"])
        try:
            outside = Connection(f"127.0.0.1:{gate}", processes.secret, inside.authority)
            processes._start(
                "flower-supernode", "--root-certificates", str(files.authority), "--superlink", outside.address,
                "--port", str(gate + 1), "--node-config", "partition-id=0 num-partitions=1",
            )  # fmt: skip
            with inside.grid(run) as grid:
                until = time.monotonic() + 120
                while not (nodes := list(grid.get_node_ids())) and time.monotonic() < until:
                    time.sleep(0.5)
                assert len(nodes) == 1
            with pytest.raises(FedpruneError, match="refuses a run: .*403"):
                outside.start_run(CLIENT_APP)
            with pytest.raises(httpx.HTTPStatusError, match="403"):
                outside._claim(run)
            held(
                "The manual's gate lets devices through and nothing else",
                "the Control and Runtime APIs through it",
                "nginx on loopback (slow)",
                "403; a node joins",
            )
        finally:
            nginx.terminate()
            nginx.wait()
