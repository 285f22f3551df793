"""The server's side of the protocol as a Flower Strategy: collect reports, send edge models.

Flower's own `start` runs it for one round. The round's first half, which Flower calls training, asks for reports;
its second half sends each device its own model to evaluate. Messages are made one by one as the grid asks for them,
so a grid that delivers as a stream never holds more than one edge model.
"""

import time
from collections.abc import Iterable, Iterator

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedprune.core.errors import BudgetError, FedpruneError, ReportRejected
from fedprune.data.images import IntArray
from fedprune.federation import messages
from fedprune.protocol.observer import Observer
from fedprune.protocol.row import DeviceRow
from fedprune.protocol.server import Server
from fedprune.protocol.setup import describe_budget
from fedprune.proxy.selector import ProxySet
from fedprune.vit.counts import count_macs, count_params
from fedprune.vit.storage import edge_arrays


class EdgeModels(Strategy):
    """Gives every device its own edge model, and collects one row a device.

    Attributes:
        rows: One row a device, by partition id; complete when the round is over.
    """

    def __init__(self, server: Server, observer: Observer) -> None:
        self.server = server
        self.observer = observer
        self.rows = {shard.device: self._first_row(shard.device) for shard in server.world.partition.shards}
        self._nodes: dict[int, int] = {}

    def summary(self) -> None:
        """Say nothing: the observer tells the story."""

    def initial_arrays(self) -> ArrayRecord:
        """Return what `start` takes as initial arrays: the public feature space."""
        return messages.space_record(self.server.space)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every node for its report."""
        nodes = list(grid.get_node_ids())
        self.observer.phase("reports", len(nodes))
        for node in nodes:
            yield Message(
                messages.report_request(self.server.world.setup, arrays), dst_node_id=node, message_type=messages.REPORT
            )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check every report; a wrong one is its own device's affair alone."""
        for reply in replies:
            self.observer.advance("reports", self._receive(reply))
        return None, None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Choose all proxy sets, compute the evidence that they need, then derive and send model after model."""
        waiting = [device for device in sorted(self._nodes) if self.rows[device].edge_correct is None]
        proxies = self._choose_proxies(waiting)
        self.observer.phase("deriving", len(waiting))
        self.observer.phase("evaluating", len(waiting))
        for device in waiting:
            yield from self._edge_model_messages(device, proxies[device])
            self.observer.advance("deriving", self.rows[device].status)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Fill each device's row from its counts, then close the rows of those that never answered."""
        for reply in replies:
            self._evaluated(reply)
        for row in self.rows.values():
            if row.edge_correct is None:
                row.fail("failed", "it did not answer")
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

    def _receive(self, reply: Message) -> str:
        if reply.has_error():
            # An error reply names its node alone; the device's row is closed as one that did not answer.
            return "failed"
        device = messages.reply_device(reply)
        row = self.rows[device]
        upload = messages.read_upload(reply.content)
        row.upload_bytes = sum(len(data) for data in upload.values())
        try:
            self.server.receive(device, upload)
        except ReportRejected as rejection:
            row.fail("rejected", str(rejection))
            return "rejected"
        self._nodes[device] = reply.metadata.src_node_id
        self.observer.report(device, upload, messages.read_ledger(reply.content))
        return "ok"

    def _choose_proxies(self, devices: list[int]) -> dict[int, ProxySet]:
        proxies = {device: self.server.choose_proxy(device) for device in devices}
        for device, proxy in proxies.items():
            self.rows[device].extra.update({f"proxy_{name}": value for name, value in proxy.diagnostics.items()})
        needed = [proxy.indices for proxy in proxies.values()]
        if self.server.options.oracle:
            needed += [self.server.oracle_proxy(device) for device in devices]
        if needed:
            self.observer.phase("evidence", 1)
            self.server.prepare(needed)
            self.observer.advance("evidence")
        return proxies

    def _edge_model_messages(self, device: int, proxy: ProxySet) -> Iterator[Message]:
        try:
            yield self._edge_model_message(device, proxy.indices, "edge")
            if self.server.options.oracle:
                yield self._edge_model_message(device, self.server.oracle_proxy(device), "oracle")
        except BudgetError as refusal:
            self.rows[device].fail("refused", str(refusal))
        except FedpruneError as error:
            self.rows[device].fail("failed", str(error))

    def _edge_model_message(self, device: int, proxy: IntArray, role: str) -> Message:
        start = time.perf_counter()
        edge = self.server.derive(device, proxy)
        arrays = edge_arrays(edge)
        if role == "edge":
            row = self.rows[device]
            row.derive_seconds = time.perf_counter() - start
            row.params, row.macs = count_params(edge.shape), count_macs(edge.shape)
            row.download_bytes = sum(values.nbytes for values in arrays.values())
            row.extra.update({f"method_{name}": value for name, value in edge.notes.items()})
            self.observer.edge_model(device, edge)
        content = messages.edge_model_message(self.server.world.setup, edge.shape, edge.classes, arrays, role)
        return Message(content, dst_node_id=self._nodes[device], message_type=messages.EDGE_MODEL)

    def _evaluated(self, reply: Message) -> None:
        if reply.has_error():
            return
        row = self.rows[messages.reply_device(reply)]
        role = reply.content.config_records["config"]["role"]
        try:
            counts = messages.read_evaluation(reply.content)
        except ValueError as error:
            row.fail("failed", str(error))
            return
        if role == "oracle":
            row.oracle_correct = counts.edge
        else:
            row.base_correct, row.subclassifier_correct = counts.base, counts.subclassifier
            row.edge_correct = counts.edge
            self.observer.advance("evaluating")
        if row.oracle_correct is not None or not self.server.options.oracle:
            self.observer.row(row)
