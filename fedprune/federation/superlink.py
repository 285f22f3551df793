"""The superlink engine: Flower's SuperLink and SuperNodes, as on real devices."""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from flwr.app import Context
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import SubStatus
from flwr.common.serde import context_from_proto, context_to_proto, fab_to_proto, run_from_proto
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest, StopRunRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullTaskInputRequest, PushTaskOutputRequest
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

import fedprune
from fedprune.core.errors import FedpruneError
from fedprune.core.registry import register
from fedprune.federation.certificates import Certificates, certificates_in, make_certificates, read_authority
from fedprune.federation.engine import CLIENT_APP, Engine
from fedprune.federation.keys import read_keys
from fedprune.federation.logs import log_path
from fedprune.federation.processes import LocalProcesses
from fedprune.federation.strategy import EdgeModels
from fedprune.federation.window import WindowGrid

START_PATIENCE = 180.0  # seconds that the processes have to start and connect
NODE_START = 10.0  # seconds that each SuperNode on loopback may add to it

PYPROJECT = """[project]
name = "fedprune"
version = "{version}"
description = "The ClientApp of fedprune, which must be installed on each device"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedprune"

[tool.flwr.app.components]
serverapp = "device:app"
clientapp = "device:app"
"""


@register("engine", "superlink")
@dataclass(frozen=True)
class SuperLink(Engine):
    """Real SuperLink and SuperNode processes: on loopback, or those of a deployment.

    Attributes:
        address: Of a deployed SuperLink, `host:port`; empty starts one on loopback with a SuperNode for each device.
        secret: File with the deployed SuperLink's SuperExec secret.
        device_keys: CSV file with each device's public key; empty believes every node which device it serves.
        tls: Folder with `ca.crt`, `server.crt` and `server.key`; `local` makes certificates for this run on loopback;
            empty is unencrypted, for loopback only.
        window: Most messages on their way, which bounds memory, and on loopback the processes at work; 0 is one for
            each CPU there, and 32 on a deployment.
        timeout: Seconds that a device has for an answer.
        patience: Seconds that deployed devices have to connect; who comes later does not take part.
    """

    address: str = ""
    secret: str = ""
    device_keys: str = ""
    tls: str = ""
    window: int = 0
    timeout: float = 3600.0
    patience: float = START_PATIENCE

    def __post_init__(self) -> None:
        if self.window < 0 or min(self.timeout, self.patience) <= 0:
            raise ValueError("engine.window must not be negative; engine.timeout and engine.patience must be above 0")
        if bool(self.address) != bool(self.secret):
            raise ValueError("engine.address and engine.secret belong together: give both, or neither for loopback")
        if self.device_keys and not (self.address and self.tls):
            raise ValueError("engine.device_keys is for a deployment with engine.tls; Flower takes keys over TLS only")
        if self.address and self.tls == "local":
            raise ValueError("engine.tls=local is for loopback; a deployment needs the folder with its ca.crt")

    def run(self, strategy: EdgeModels, devices: int, client_app: str = CLIENT_APP) -> None:
        """Run `strategy` to its end.

        Raises:
            ConfigError: the devices' keys cannot be read.
            FedpruneError: the SuperLink does not answer, or no device connects.
        """
        keys = read_keys(Path(self.device_keys), devices) if self.device_keys else None
        with TemporaryDirectory(prefix="fedprune-tls-") as folder:
            certificates = self._certificates(Path(folder))
            authority = read_authority(certificates) if certificates else None
            if self.address:
                secret = Path(self.secret).read_bytes()
                self._serve(strategy, devices, client_app, Connection(self.address, secret, authority), keys)
                return
            log = log_path()
            nodes_log = log.with_name("nodes.log") if log else None
            with LocalProcesses(devices, certificates, nodes_log) as processes:
                connection = Connection(processes.address, processes.secret, authority, processes)
                self._serve(strategy, devices, client_app, connection)

    def _certificates(self, folder: Path) -> Certificates | None:
        if self.tls == "local":
            return make_certificates(folder)
        return certificates_in(Path(self.tls)) if self.tls else None

    def _serve(
        self,
        strategy: EdgeModels,
        devices: int,
        client_app: str,
        connection: "Connection",
        keys: Mapping[int, bytes] | None = None,
    ) -> None:
        run = connection.start_run(client_app)
        # On loopback each message is a process of this machine, and each node has to be started by it.
        window = self.window or (32 if self.address else os.cpu_count() or 1)
        patience = self.patience if self.address else self.patience + devices * NODE_START
        try:
            with connection.grid(run) as grid:
                nodes = None if keys is None else connection.nodes_of(keys)
                strategy.run(WindowGrid(grid, window, devices, patience, nodes), self.timeout)
        except httpx.HTTPError as error:
            raise FedpruneError(
                f"The SuperLink at {connection.address} was lost: {error}. The same command goes on from here."
            ) from error


@dataclass(frozen=True)
class Connection:
    """This process as the ServerApp of a run on a SuperLink, in place of a process that the SuperLink starts."""

    address: str
    secret: bytes
    authority: bytes | None
    processes: LocalProcesses | None = None

    def start_run(self, client_app: str) -> int:
        """Register a run whose app is no more than an import of `client_app`; wait for the SuperLink if need be.

        Returns:
            The run's number: the only run that is ever claimed.

        Raises:
            FedpruneError: it does not answer.
        """
        module, _, attribute = client_app.partition(":")
        files: dict[str, bytes | Path] = {
            "pyproject.toml": PYPROJECT.format(version=fedprune.__version__).encode(),
            "device.py": f"from {module} import {attribute} as app  # noqa: F401\n".encode(),
        }
        content, _ = build_fab_from_files(files)
        fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
        until = time.monotonic() + START_PATIENCE
        while True:
            try:
                with closing(self._control()) as control:
                    return int(control.StartRun(StartRunRequest(fab=fab_to_proto(fab))).run_id)
            except httpx.HTTPStatusError as error:
                raise FedpruneError(f"The SuperLink at {self.address} refuses a run: {error}.") from error
            except httpx.TransportError as error:
                if self.processes is not None:
                    self.processes.check()
                if time.monotonic() > until:
                    raise FedpruneError(f"No SuperLink answers at {self.address}: {error}.") from error
                time.sleep(0.3)

    @contextmanager
    def grid(self, run: int) -> Iterator[HttpGrid]:
        """Claim the server task of `run` and yield Flower's grid for it; report its end afterwards.

        Raises:
            FedpruneError: the SuperLink has a run that this process did not register; nothing of it is executed.
        """
        try:
            token = self._claim(run)
        except BaseException:
            self._stop(run)  # or the next try would meet it
            raise
        grid = HttpGrid(self.address, self.authority is None, self.authority, token=token)
        client = grid._runtime_client
        heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
        heartbeat.start()
        task = client.PullTaskInput(PullTaskInputRequest())
        context: Context = context_from_proto(task.context)
        TaskIdentity.task_id, TaskIdentity.run_id = task.task_id, task.run.run_id
        TaskIdentity.node_id = context.node_id
        grid.set_run(run_from_proto(task.run))
        status, details = SubStatus.FAILED, "fedprune was stopped"
        try:
            yield grid
            status, details = SubStatus.COMPLETED, ""
        finally:
            client.PushTaskOutput(
                PushTaskOutputRequest(context=context_to_proto(context), sub_status=status, details=details)
            )
            heartbeat.stop()
            grid.close()

    def nodes_of(self, keys: Mapping[int, bytes]) -> dict[int, int]:
        """Return the device of the node of each key; a key that the SuperLink does not know is registered.

        The SuperLink lets a node speak only with a signature of the key that it was registered with.
        """
        with closing(self._control()) as control:
            nodes = {node.public_key: node.node_id for node in control.ListNodes(ListNodesRequest()).nodes_info}
            for key in keys.values():
                if key not in nodes:
                    nodes[key] = control.RegisterNode(RegisterNodeRequest(public_key=key)).node_id
        return {int(nodes[key]): device for device, key in keys.items()}

    def _control(self) -> ControlHttpClient:
        return ControlHttpClient.from_server_address(
            server_address=self.address,
            insecure=self.authority is None,
            root_certificates=self.authority,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr-cli")],
        )

    def _stop(self, run: int) -> None:
        with suppress(httpx.HTTPError), closing(self._control()) as control:
            control.StopRun(StopRunRequest(run_id=run))

    def _claim(self, run: int) -> str:
        client = RuntimeHttpClient.from_server_address(
            server_address=self.address,
            insecure=self.authority is None,
            root_certificates=self.authority,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperExec"),
                SuperExecAuthHttpInterceptor(
                    master_secret=self.secret, protected_methods=frozenset({"/flwr.proto.Runtime/AcquireTask"})
                ),
            ],
        )
        until = time.monotonic() + START_PATIENCE
        try:
            while time.monotonic() < until:
                task = client.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-serverapp"]))
                if task.HasField("task") and task.token:
                    if task.task.run_id == run:
                        return str(task.token)
                    raise FedpruneError(
                        f"The SuperLink at {self.address} has a run ({task.task.run_id}) that this process did not "
                        "start; nothing of it was executed. Close its Control API to others (docs/deployment.md) and "
                        "try again."
                    )
                time.sleep(0.2)
        finally:
            client.close()
        raise FedpruneError(f"The SuperLink at {self.address} gave no run to serve. Is another ServerApp taking them?")
