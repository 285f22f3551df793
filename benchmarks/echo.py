"""A ClientApp that does next to nothing, and plain drivers around it: what an engine itself costs a message."""

import time
from collections.abc import Callable, Iterable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedprune.federation.inline import InlineGrid
from fedprune.federation.messages import record
from fedprune.federation.window import WindowGrid
from fedprune.federation.workers import WorkerGrid

ECHO = "benchmarks.echo:app"
MESSAGE_TYPE = "query.echo"

app = ClientApp()


@app.query("echo")
def echo(message: Message, context: Context) -> Message:
    """Answer with the device's number and the sum over the array that came."""
    return Message(answer(message.content, int(context.node_config["partition-id"])), reply_to=message)


def answer(content: RecordDict, device: int) -> RecordDict:
    """Do the client's work: decode the array and sum it up."""
    total = int(record(content, "model", ArrayRecord)["weights"].numpy().view(np.uint8)[:64].sum())
    return RecordDict({"metrics": MetricRecord({"total": total}), "config": ConfigRecord({"device": device})})


def request(device: int, megabytes: float) -> RecordDict:
    """Make the content of one message: an array of its own for each device, as an edge model is."""
    weights = np.full(max(16, int(megabytes * 2**18)), device, dtype=np.float32)
    return RecordDict({"model": ArrayRecord({"weights": Array(weights)})})


def drive(grid: Grid, nodes: Iterable[int], megabytes: float, phases: int) -> list[float]:
    """Send every node a message, `phases` times over; return each phase's seconds."""
    seconds = []
    nodes = list(nodes)
    for _ in range(phases):
        start = time.perf_counter()
        messages = (Message(request(node, megabytes), dst_node_id=node, message_type=MESSAGE_TYPE) for node in nodes)
        replies = sum(1 for reply in grid.send_and_receive(messages, timeout=3600) if not reply.has_error())
        if replies != len(nodes):
            raise RuntimeError(f"{replies} of {len(nodes)} devices answered")
        seconds.append(time.perf_counter() - start)
    return seconds


def plain_loop(devices: int, megabytes: float, phases: int) -> list[float]:
    """Do the same work in a loop without any framework's messages."""
    seconds = []
    for _ in range(phases):
        start = time.perf_counter()
        for device in range(devices):
            answer(request(device, megabytes), device)
        seconds.append(time.perf_counter() - start)
    return seconds


def inline(devices: int, megabytes: float, phases: int) -> list[float]:
    """Measure the inline engine."""
    grid = InlineGrid(app, devices)
    return drive(grid, grid.get_node_ids(), megabytes, phases)


def workers(devices: int, megabytes: float, phases: int) -> list[float]:
    """Measure the inline engine with two worker processes."""
    grid = WorkerGrid(ECHO, devices, 2)
    try:
        drive(grid, range(1, 3), 0, 1)  # the processes are started before anything is timed
        return drive(grid, grid.get_node_ids(), megabytes, phases)
    finally:
        grid.close()


def flower(devices: int, megabytes: float, phases: int) -> list[float]:
    """Measure Flower's own simulation, all messages at once, as its strategies send them."""
    return _simulate(lambda grid: grid, devices, megabytes, phases)


def ray(devices: int, megabytes: float, phases: int) -> list[float]:
    """Measure the ray engine: Flower's simulation behind a window of 32 messages."""
    return _simulate(lambda grid: WindowGrid(grid, 32, devices, 600.0), devices, megabytes, phases)


def _simulate(wrap: Callable[[Grid], Grid], devices: int, megabytes: float, phases: int) -> list[float]:
    from fedprune.federation.simulation import Ray

    seconds: list[float] = []

    def serve(grid: Grid) -> None:
        nodes = WindowGrid(grid, 32, devices, 600.0).get_node_ids()
        seconds.extend(drive(wrap(grid), nodes, megabytes, phases))

    Ray().simulate(serve, devices, ECHO)
    return seconds
