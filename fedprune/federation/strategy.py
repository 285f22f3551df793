"""The round as a Flower Strategy: what Flower asks of a strategy, in the round's words, and its messages.

Flower's own `start` runs it for one of Flower's rounds. The first half, which Flower calls training, asks for reports;
the second half sends each device its own model to evaluate. Messages are made one by one as the grid asks for them,
so a grid that delivers as a stream never holds more than a few edge models.

Which device a node serves is fixed before the first report, by the engine or by asking; afterwards an answer counts
for the device of the node that was asked and for no other, whatever the answer claims.
"""

from collections.abc import Iterable, Mapping
from functools import partial

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedprune.core.errors import FedpruneError
from fedprune.federation import messages
from fedprune.federation.roster import Roster
from fedprune.protocol.answers import Evaluation, PersonalEvaluation, Upload
from fedprune.protocol.deliveries import Delivery, deliveries
from fedprune.protocol.round import Round, ask, close_reports, end, take_evaluation, take_report
from fedprune.protocol.row import DeviceRow
from fedprune.protocol.setup import Setup


class EdgeModels(Strategy):
    """Gives every device its own edge model, and collects one row a device.

    Args:
        state: The round, which has not begun yet.
        setup: What devices are told with every request.
    """

    def __init__(self, state: Round, setup: Setup) -> None:
        self.state = state
        self.setup = setup
        self.roster = Roster()
        self._told = setup.to_json()

    @property
    def rows(self) -> Mapping[int, DeviceRow]:
        """One row a device, by number; complete when the round is over."""
        return self.state.rows

    def run(self, grid: Grid, timeout: float) -> None:
        """Run the protocol over `grid` until every row is final; a device has `timeout` seconds for an answer."""
        self.start(grid, self.initial_arrays(), num_rounds=1, timeout=timeout)

    def summary(self) -> None:
        """Say nothing: the observer tells the story."""

    def initial_arrays(self) -> ArrayRecord:
        """Return what `start` takes as initial arrays: the public feature space."""
        return messages.space_record(self.state.server.world.space)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Learn which node serves which device, then ask for every report that is not there yet."""
        self.roster.meet(grid, set(self.rows))
        for device in ask(self.state, self.roster.missing):
            yield self._message(device, messages.report_request(self._told, arrays), messages.REPORT)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hand every report to the round."""
        for reply in replies:
            if (device := self.roster.device_of(reply)) is not None:
                take_report(self.state, device, partial(self._upload, reply, device))
        close_reports(self.state, sum(len(array.data) for array in self.initial_arrays().values()))
        return None, None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send model after model as the round derives them."""
        for delivery in deliveries(self.state):
            yield self._model(delivery)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Hand every device's counts to the round, and end it."""
        for reply in replies:
            device, role = self.roster.device_of(reply), reply.metadata.group_id
            if device is not None:
                take_evaluation(self.state, device, role, partial(self._counts, reply, device, role))
        end(self.state)
        return None

    def _model(self, delivery: Delivery) -> Message:
        stored = delivery.stored
        content = messages.edge_model_message(
            self._told, stored.shape, delivery.classes, stored.arrays, stored.tokens, delivery.role
        )
        kind = messages.TRAINED_EDGE_MODEL if self.state.trains(delivery.role) else messages.EDGE_MODEL
        return self._message(delivery.device, content, kind, delivery.role)

    def _message(self, device: int, content: RecordDict, kind: str, role: str | None = None) -> Message:
        return Message(content, dst_node_id=self.roster.nodes[device], message_type=kind, group_id=role)

    def _upload(self, reply: Message, device: int) -> Upload:
        return messages.read_upload(_content(reply), device, self.setup)

    def _counts(self, reply: Message, device: int, role: str, images: int | None) -> Evaluation | PersonalEvaluation:
        if self.state.trains(role):
            return messages.read_personal(_content(reply), device, images, self.state.personal.trains_base)
        return messages.read_evaluation(_content(reply), device, role, images)


def _content(reply: Message) -> RecordDict:
    """Return what a device has answered.

    Raises:
        FedpruneError: it has failed, with its reason.
    """
    if reply.has_error():
        raise FedpruneError(messages.reason_of(reply.error))
    return reply.content
