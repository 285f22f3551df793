"""The device's side of the protocol as a Flower ClientApp.

It stands in a module of its own, because only then does Flower keep what a process has loaded between messages.
"""

import logging
import os
import time
from functools import lru_cache
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedprune.core.text import describe
from fedprune.federation import messages
from fedprune.federation.logs import join_log
from fedprune.protocol.device import evaluate, make_report, personalise
from fedprune.protocol.private import PrivateShard, open_local
from fedprune.protocol.setup import Setup
from fedprune.protocol.storage import Loaded, StoredModel
from fedprune.vit.shape import Shape

LEDGER = "FEDPRUNE_LEDGER"  # on a real device: file in which it books what it releases, over all runs
RAISED = 2  # Flower's code for a ClientApp that raised

logger = logging.getLogger("fedprune.device")


def answer_errors(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Answer with an error when the app raises, in the same words on every engine, and log what happened."""
    device, start = context.node_config.get("partition-id"), time.perf_counter()
    try:
        reply = call_next(message, context)
    except (Exception, SystemExit) as error:
        logger.exception("device %s: %s failed", device, message.metadata.message_type)
        return Message(Error(RAISED, describe(error)), reply_to=message)
    if not isinstance(reply, Message):  # Flower's simulation would wait for one until its time is up
        reason = f"it answered with a {type(reply).__name__} and not with a message"
        return Message(Error(RAISED, reason), reply_to=message)
    logger.info("device %s: %s, %.3f s", device, message.metadata.message_type, time.perf_counter() - start)
    return reply


join_log()
app = ClientApp(mods=[answer_errors])


@app.query("join")
def join(message: Message, context: Context) -> Message:
    """Answer with the device that this node serves."""
    return Message(messages.join_reply(_device(context)), reply_to=message)


@app.query("report")
def report(message: Message, context: Context) -> Message:
    """Answer with the guarded mixture of this device's private images, and its budget."""
    device = _device(context)
    space = messages.read_space(messages.record(message.content, "space", ArrayRecord))
    simulated, own = bool(context.node_config.get("simulated")), os.environ.get(LEDGER)
    upload = make_report(
        _shard(message, device), space, simulated=simulated, own_ledger=Path(own) if own and not simulated else None
    )
    return Message(messages.report_reply(device, upload), reply_to=message)


@app.evaluate("edge_model")
def edge_model(message: Message, context: Context) -> Message:
    """Answer with the counts of the edge model, and of the base, on this device's private test images."""
    device = _device(context)
    (model, _), rows = _edge_model(message)
    evaluation = evaluate(_shard(message, device), model, rows)
    role = str(messages.record(message.content, "config", ConfigRecord)["role"])
    return Message(messages.evaluation_reply(device, role, evaluation), reply_to=message)


@app.train("edge_model")
def trained_edge_model(message: Message, context: Context) -> Message:
    """Train the edge model on this device's private images; answer with its counts before and after, no weights."""
    device = _device(context)
    evaluation = personalise(_shard(message, device), *_edge_model(message))
    return Message(messages.personal_reply(device, evaluation), reply_to=message)


def _edge_model(message: Message) -> tuple[Loaded, tuple[int, ...]]:
    """Return the edge model in a message, and the base class of each of its outputs."""
    config = messages.record(message.content, "config", ConfigRecord)
    arrays = {name: array.numpy() for name, array in messages.record(message.content, "model", ArrayRecord).items()}
    stored = StoredModel.received(Shape.from_json(str(config["shape"])), arrays, str(config["tokens"]))
    return stored.build(), tuple(int(row) for row in config["rows"])  # type: ignore[union-attr]


def _shard(message: Message, device: int) -> PrivateShard:
    """Return what this device holds of the data that the message's setup names."""
    setup = _setup(str(messages.record(message.content, "config", ConfigRecord)["setup"]))
    torch.set_num_threads(setup.threads)
    return open_local(setup).shard(device)


@lru_cache(maxsize=2)
def _setup(text: str) -> Setup:
    return Setup.from_json(text)


def _device(context: Context) -> int:
    return int(context.node_config["partition-id"])
