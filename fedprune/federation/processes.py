"""Flower's own processes on loopback: one SuperLink, one SuperNode a device; started, watched and ended by pid."""

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from fedprune.core.errors import FedpruneError
from fedprune.federation.certificates import Certificates
from fedprune.federation.logs import DEVICE_LOG, log_path

GRACE = 10.0  # seconds between asking a process to end and ending it


@dataclass
class LocalProcesses:
    """A SuperLink and its SuperNodes in process groups of their own, in a folder that goes with them.

    Attributes:
        devices: How many SuperNodes.
        certificates: For TLS; None leaves loopback unencrypted.
        log: File that takes what all of them print.
    """

    devices: int
    certificates: Certificates | None = None
    log: Path | None = None
    port: int = 0
    secret: bytes = b""
    _folder: "tempfile.TemporaryDirectory[str] | None" = None
    _processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where the SuperLink listens."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> "LocalProcesses":
        try:
            self._start_all()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Ask all processes to end, then end what is left of their groups, and remove the folder."""
        for process in reversed(self._processes):
            _signal_group(process, signal.SIGTERM)
        for process in reversed(self._processes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            _signal_group(process, signal.SIGKILL)  # and whatever it started that did not follow
            process.wait()
        if self._folder is not None:
            self._folder.cleanup()

    def check(self) -> None:
        """Look whether the SuperLink is alive.

        Raises:
            FedpruneError: it has ended.
        """
        if self._processes and self._processes[0].poll() is not None:
            raise FedpruneError(
                f"flower-superlink ended with exit code {self._processes[0].returncode}. "
                f"Look at {self.log or 'its log'}."
            )

    def _start_all(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fedprune-superlink-")
        self.secret = secrets.token_bytes(32)
        secret_file = Path(self._folder.name) / "secret"
        secret_file.touch(mode=0o600)
        secret_file.write_bytes(self.secret)
        self.port, *node_ports = _free_ports(self.devices + 1)
        # The ServerApp is this process, so the SuperLink must start none; no environment is built for any app.
        self._start(
            "flower-superlink", *self._server_tls(), "--isolation", "process", "--port", str(self.port),
            "--superexec-auth-secret-file", str(secret_file), "--disable-runtime-dependency-installation",
        )  # fmt: skip
        for device, port in enumerate(node_ports):
            config = f"partition-id={device} num-partitions={self.devices} simulated=true"
            self._start(
                "flower-supernode", *self._client_tls(), "--superlink", self.address, "--port", str(port),
                "--node-config", config,
            )  # fmt: skip

    def _start(self, command: str, *arguments: str) -> None:
        assert self._folder is not None
        environment = {
            **os.environ,
            "FLWR_HOME": self._folder.name,
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            DEVICE_LOG: str(log_path() or ""),
        }
        with open(self.log or os.devnull, "ab") as log:
            process = subprocess.Popen(
                [str(Path(sys.executable).parent / command), *arguments],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=end_with_parent,
            )  # fmt: skip
        self._processes.append(process)

    def _server_tls(self) -> list[str]:
        if self.certificates is None:
            return ["--insecure"]
        files = self.certificates
        return [
            "--ssl-ca-certfile", str(files.authority), "--ssl-certfile", str(files.certificate),
            "--ssl-keyfile", str(files.key),
        ]  # fmt: skip

    def _client_tls(self) -> list[str]:
        if self.certificates is None:
            return ["--insecure"]
        return ["--root-certificates", str(self.certificates.authority)]


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def end_with_parent() -> None:
    """Ask Linux to end this process when the one that started it is killed; elsewhere it ends with `__exit__` only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
