"""Which node serves which device."""

from collections import defaultdict
from collections.abc import Mapping

from flwr.app import Message
from flwr.serverapp import Grid

from fedprune.core.errors import ReportRejected
from fedprune.federation import messages

JOIN_TIMEOUT = 600.0


class Roster:
    """The nodes by device, fixed once and before anything else is asked.

    Where the engine knows the nodes' devices (`grid.devices`), by itself or by the nodes' keys, no node is asked and
    none is believed. Elsewhere identity is on trust: each node says which device it serves, and the transport vouches
    that later answers come from the same node. When several nodes claim one device, none of them gets it: which of
    them lies cannot be told, and the order of answers must not decide. But who alone claims a device gets its place,
    whose ever it is; `docs/deployment.md` says how keys prevent that.

    Attributes:
        nodes: The node of each device that has one.
        missing: Why, for each device that has none.
    """

    def __init__(self) -> None:
        self.nodes: dict[int, int] = {}
        self.missing: dict[int, str] = {}
        self._devices: dict[int, int] = {}

    def meet(self, grid: Grid, devices: set[int]) -> None:
        """Learn the node of each device, from the engine or by asking the nodes."""
        present = list(grid.get_node_ids())
        known: Mapping[int, int] | None = getattr(grid, "devices", None)
        serves = self._ask(grid, present) if known is None else known
        claims: dict[int, list[int]] = defaultdict(list)
        for node in present:
            if node in serves:
                claims[serves[node]].append(node)
        for device in sorted(devices):
            nodes = claims[device]
            if len(nodes) == 1:
                self.nodes[device] = nodes[0]
            elif nodes:
                self.missing[device] = f"{len(nodes)} nodes claim to serve it, so none of them may"
            else:
                self.missing[device] = "no node serves it"
        self._devices = {node: device for device, node in self.nodes.items()}

    def device_of(self, reply: Message) -> int | None:
        """Return the device of the node that sent `reply`; the engine vouches for the node."""
        return self._devices.get(reply.metadata.src_node_id)

    def _ask(self, grid: Grid, nodes: list[int]) -> dict[int, int]:
        requests = (Message(messages.join_request(), dst_node_id=node, message_type=messages.JOIN) for node in nodes)
        claims = {}
        for reply in grid.send_and_receive(requests, timeout=JOIN_TIMEOUT):
            if reply.has_error():
                continue
            try:
                claims[reply.metadata.src_node_id] = messages.read_claim(reply.content)
            except ReportRejected:
                continue
        return claims
