"""The device's side of the protocol as a Flower ClientApp.

It stands in a module of its own, because only then does Flower keep what a process has loaded between messages.
"""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedprune.federation import messages
from fedprune.protocol.device import evaluate, make_report
from fedprune.protocol.options import import_options
from fedprune.protocol.setup import Setup, World, open_world
from fedprune.vit.shape import Shape
from fedprune.vit.storage import edge_from_arrays

app = ClientApp()


@app.query("report")
def report(message: Message, context: Context) -> Message:
    """Answer with the guarded mixture of this device's private images, and its budget."""
    world, device = _open(message, context)
    space = messages.read_space(message.content.array_records["space"])
    upload = make_report(world, device, space)
    return Message(messages.report_reply(device, upload), reply_to=message)


@app.evaluate("edge_model")
def edge_model(message: Message, context: Context) -> Message:
    """Answer with the counts of the edge model, and of the base, on this device's private test images."""
    world, device = _open(message, context)
    config = message.content.config_records["config"]
    arrays = {name: array.numpy() for name, array in message.content.array_records["model"].items()}
    model = edge_from_arrays(Shape.from_json(str(config["shape"])), arrays)
    rows = tuple(int(row) for row in config["rows"])  # type: ignore[union-attr]
    evaluation = evaluate(world, device, model, rows)
    return Message(messages.evaluation_reply(device, str(config["role"]), evaluation), reply_to=message)


def _open(message: Message, context: Context) -> tuple[World, int]:
    import_options()
    setup = Setup.from_json(str(message.content.config_records["config"]["setup"]))
    return open_world(setup), int(context.node_config["partition-id"])
