"""The server's side of the protocol as a Flower Strategy: collect reports, send edge models.

Flower's own `start` runs it for one round. The round's first half, which Flower calls training, asks for reports;
its second half sends each device its own model to evaluate. Messages are made one by one as the grid asks for them,
so a grid that delivers as a stream never holds more than a few edge models.

Which device a node serves is fixed before the first report, by the engine or by asking; afterwards an answer counts
for the device of the node that was asked and for no other, whatever the answer claims.
"""

import logging
import time
from collections.abc import Iterable, Iterator

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedprune.core.errors import BudgetError, DiskError, FedpruneError, ReportRejected
from fedprune.core.text import describe
from fedprune.data.images import IntArray
from fedprune.devices.clock import Timeline
from fedprune.federation import messages
from fedprune.federation.roster import Roster
from fedprune.protocol.answers import Evaluation
from fedprune.protocol.observer import Observer
from fedprune.protocol.row import DeviceRow
from fedprune.protocol.server import Server
from fedprune.protocol.setup import describe_budget
from fedprune.protocol.storage import StoredModel
from fedprune.proxy.selector import ProxySet
from fedprune.vit.counts import count_macs, count_params

EVALUATION_BYTES = 256  # of an answer with counts, about; for virtual time only

logger = logging.getLogger(__name__)


class EdgeModels(Strategy):
    """Gives every device its own edge model, and collects one row a device.

    Attributes:
        rows: One row a device, by partition id; complete when the round is over.
    """

    def __init__(self, server: Server, observer: Observer, timeline: Timeline | None = None) -> None:
        self.server = server
        self.observer = observer
        self.timeline = timeline
        self.rows = {shard.device: self._first_row(shard.device) for shard in server.world.partition.shards}
        self.roster = Roster()
        self._done = {device for device, row in self.rows.items() if observer.finished(device) is not None}
        self._unanswered: dict[int, set[str]] = {}
        self._setup = server.world.setup.to_json()

    def run(self, grid: Grid, timeout: float) -> None:
        """Run the protocol over `grid` until every row is final; a device has `timeout` seconds for an answer."""
        self.start(grid, self.initial_arrays(), num_rounds=1, timeout=timeout)

    def summary(self) -> None:
        """Say nothing: the observer tells the story."""

    def initial_arrays(self) -> ArrayRecord:
        """Return what `start` takes as initial arrays: the public feature space."""
        return messages.space_record(self.server.space)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Learn which node serves which device, then ask for every report that is not there yet."""
        self.roster.meet(grid, set(self.rows))
        for device, reason in self.roster.missing.items():
            self._fail(device, "failed", reason)
        for device in sorted(self.rows):
            if self.timeline is not None and device not in self.timeline.asked:
                self._fail(device, "failed", f"not asked: {len(self.timeline.asked)} devices were")
        asked = [device for device in sorted(self.roster.nodes) if not self._restore(device)]
        self.observer.phase("reports", len(asked))
        for device in asked:
            yield Message(
                messages.report_request(self._setup, arrays),
                dst_node_id=self.roster.nodes[device],
                message_type=messages.REPORT,
            )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check every report; a wrong one is its own device's affair alone."""
        for reply in replies:
            device = self.roster.device_of(reply)
            if device is not None and device not in self._done and device not in self.server.reports:
                self.observer.advance("reports", self._receive(device, reply))
        self._close_reports()
        return None, None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Choose all proxy sets, compute the evidence that they need, then derive and send model after model."""
        waiting = [device for device in sorted(self.server.reports) if device not in self._done]
        proxies = self._choose_proxies(waiting)
        waiting = [device for device in waiting if device in proxies]
        self.observer.phase("deriving", len(waiting))
        self.observer.phase("evaluating", len(waiting))
        for device in waiting:
            yield from self._edge_model_messages(device, proxies[device])
            self.observer.advance("deriving", self.rows[device].status)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Fill each device's row from its counts, then close the rows of those that never answered."""
        for reply in replies:
            device, role = self.roster.device_of(reply), reply.metadata.group_id
            if device is not None and role in self._unanswered.get(device, ()):
                self._unanswered[device].remove(role)
                self._evaluated(device, role, reply)
        for device in sorted(set(self.rows) - self._done):
            self._fail(device, "failed", "it did not answer")
        return None

    def _first_row(self, device: int) -> DeviceRow:
        if finished := self.observer.finished(device):
            return finished
        world = self.server.world
        shard, shape = world.shard(device), world.base.shape
        budget = {f"budget_{name}": limit for name, limit in describe_budget(world.budget(device)).items()}
        return DeviceRow(
            device=device,
            task=shard.task,
            classes=len(shard.classes),
            train_images=len(shard.train),
            test_images=len(shard.test),
            base_params=count_params(shape),
            base_macs=count_macs(shape),
            **budget,  # type: ignore[arg-type]
        )

    def _fail(self, device: int, status: str, reason: str) -> str:
        """Close the row of a device that will get no further."""
        if device not in self._done:
            self.rows[device].fail(status, reason)
            self._close(device)
        return status

    def _close(self, device: int) -> None:
        self._done.add(device)
        row = self.rows[device]
        if self.timeline is not None:
            row.extra.update(self.timeline.columns(device))
        if row.status != "ok":
            logger.warning("device %d: %s: %s", device, row.status, row.reason)
        self.observer.row(row)

    def _restore(self, device: int) -> bool:
        """Take up what an interrupted try has left of a device: its row, or at least its report."""
        if device in self._done:
            return True
        upload = self.observer.stored_report(device)
        if upload is None:
            return False
        try:
            self.server.receive(device, upload.report)
        except ReportRejected:  # written by another version, or damaged
            return False
        self.rows[device].upload_bytes = len(upload.report)
        return True

    def _receive(self, device: int, reply: Message) -> str:
        if reply.has_error():
            return self._fail(device, "failed", messages.reason_of(reply.error))
        try:
            upload = messages.read_upload(reply.content, device, self.server.world.setup)
            self.rows[device].upload_bytes = len(upload.report)
            self.server.receive(device, upload.report)
        except ReportRejected as rejection:
            return self._fail(device, "rejected", str(rejection))
        self.observer.report(device, upload)
        return "ok"

    def _close_reports(self) -> None:
        """Let virtual time pass over all accepted reports, those of an interrupted try included."""
        if self.timeline is None:
            return
        world, arrived = self.server.world, []
        down = sum(len(array.data) for array in self.initial_arrays().values())
        for device in sorted(self.rows):
            row = self.rows[device]
            if device not in self.server.reports and not (device in self._done and row.status in ("ok", "refused")):
                continue
            macs = row.train_images * count_macs(world.base.shape)
            if reason := self.timeline.report(device, macs, down, row.upload_bytes):
                self._fail(device, "failed", reason)
            else:
                arrived.append(device)
        for device, reason in self.timeline.close_reports(arrived).items():
            self._fail(device, "failed", reason)

    def _choose_proxies(self, devices: list[int]) -> dict[int, ProxySet]:
        proxies = {}
        for device in devices:
            start = time.perf_counter()
            try:
                proxies[device] = self.server.choose_proxy(device)
                self.rows[device].extra["proxy_seconds"] = time.perf_counter() - start
            except (DiskError, OSError):
                raise
            except Exception as error:  # an odd report must not end the others' run
                logger.exception("device %d: no proxy set", device)
                self._fail(device, "failed", f"no proxy set: {describe(error)}")
        for device, proxy in proxies.items():
            self.rows[device].extra.update({f"proxy_{name}": value for name, value in proxy.diagnostics.items()})
        needed = [proxy.indices for proxy in proxies.values()]
        if self.server.options.oracle:
            needed += [self.server.oracle_proxy(device) for device in proxies]
        if needed:
            self.observer.phase("evidence", 1)
            self.server.prepare(needed)
            self.observer.advance("evidence")
        return proxies

    def _edge_model_messages(self, device: int, proxy: ProxySet) -> Iterator[Message]:
        roles = {"edge": proxy.indices}
        if self.server.options.oracle:
            roles["oracle"] = self.server.oracle_proxy(device)
        self._unanswered[device] = set(roles)
        for role, indices in roles.items():
            if device in self._done:
                return
            try:
                message = self._edge_model_message(device, indices, role)
            except (DiskError, OSError):  # this machine's affair: no device has failed
                raise
            except BudgetError as refusal:
                self._fail(device, "refused", str(refusal))
            except FedpruneError as error:
                self._fail(device, "failed", str(error))
            except Exception as error:
                logger.exception("device %d: no %s model", device, role)
                self._fail(device, "failed", f"no {role} model: {describe(error)}")
            else:
                yield message

    def _edge_model_message(self, device: int, proxy: IntArray, role: str) -> Message:
        start = time.perf_counter()
        edge = self.server.derive(device, proxy)
        stored = StoredModel.of(edge)
        if role == "edge":
            row = self.rows[device]
            row.derive_seconds = time.perf_counter() - start
            row.params, row.macs = edge.params, edge.macs
            row.download_bytes = sum(values.nbytes for values in stored.tensors.values())
            row.extra.update({f"method_{name}": value for name, value in edge.notes.items()})
            self.observer.edge_model(device, edge)
            self._pass_time(row)
        content = messages.edge_model_message(
            self._setup, stored.shape, edge.classes, stored.arrays, stored.tokens, role
        )
        kind = messages.TRAINED_EDGE_MODEL if self._trains(role) else messages.EDGE_MODEL
        return Message(content, dst_node_id=self.roster.nodes[device], message_type=kind, group_id=role)

    def _trains(self, role: str) -> bool:
        """Say whether a device trains the model that it gets for `role` on its own images."""
        return role == "edge" and self.server.world.setup.personal.passes() > 0

    def _pass_time(self, row: DeviceRow) -> None:
        """Let a device fetch, train and evaluate its model in virtual time; a backward pass counts as two forward.

        Raises:
            FedpruneError: it would not be done in time.
        """
        if self.timeline is not None and row.macs is not None:
            passes = self.server.world.setup.personal.passes()
            macs = row.test_images * (row.base_macs + row.macs)
            macs += (3 * passes * row.train_images + (passes > 0) * row.test_images) * row.macs
            if reason := self.timeline.model(row.device, macs, row.download_bytes, EVALUATION_BYTES):
                raise FedpruneError(reason)

    def _evaluated(self, device: int, role: str, reply: Message) -> None:
        row = self.rows[device]
        try:
            if reply.has_error():
                raise FedpruneError(messages.reason_of(reply.error))
            counts = self._read_counts(row, role, reply)
        except ReportRejected as rejection:
            self._fail(device, "rejected", str(rejection))
        except FedpruneError as error:
            self._fail(device, "failed", str(error))
        else:
            if role == "oracle":
                row.oracle_correct = counts.edge
            else:
                row.base_correct, row.subclassifier_correct = counts.base, counts.subclassifier
                row.edge_correct = counts.edge
            if not self._unanswered[device]:
                self._close(device)
        if not self._unanswered[device] or device in self._done:
            self._unanswered[device].clear()
            self.observer.advance("evaluating", row.status)

    def _read_counts(self, row: DeviceRow, role: str, reply: Message) -> Evaluation:
        """Read a device's counts; those of its own training go into its row."""
        if not self._trains(role):
            return messages.read_evaluation(reply.content, row.device, role, row.test_images)
        personal = self.server.world.setup.personal
        told = messages.read_personal(reply.content, row.device, row.test_images, personal.trains_base)
        row.extra.update(told.columns(personal.passes() * row.train_images))
        return told.before
