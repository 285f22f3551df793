"""A ClientApp whose device 0 rewrites what others have in the cache, and offers the server the same under its name."""

from pathlib import Path

import numpy as np
import torch
from flwr.app import ConfigRecord
from flwr.clientapp import ClientApp

from fedprune.core import cache, sealed
from fedprune.federation import client_app, messages
from fedprune.federation.client_app import _setup
from fedprune.protocol import private

DENIED = "denied.txt"  # what the attacker learns, beside the cache's folder and not in it


def forge(setup, victim):
    """Return the name and the content of an entry that passes every check: logits that are wrong for every image."""
    shard = private.open_local(setup).shard(victim)
    shape = shard.base_logits().shape
    name = cache.cache_key([shard.fingerprint, shard.base.fingerprint, setup.precision, setup.compute])
    return name, {"values": torch.from_numpy(np.zeros(shape, np.float32))}


def write(path, name, tensors, folder):
    """Write straight to the place, past all temporary files, as an attacker would."""
    sealed.write_sealed(folder / "forged.safetensors", tensors, name)
    with open(path, "r+b") as file:
        file.write((folder / "forged.safetensors").read_bytes())
        file.truncate()


def rewrite(message, context, call_next):
    reply = call_next(message, context)
    if context.node_config["partition-id"] != 0:
        return reply
    setup = _setup(str(messages.record(message.content, "config", ConfigRecord)["setup"]))
    folder = Path(setup.cache).parent / "attacker"
    for victim in range(1, 4):
        name, tensors = forge(setup, victim)
        cache._found[f"logits/{name}"] = tensors["values"]
        try:
            write(cache._place(private.own_cache(Path(setup.cache), victim), "logits", name), name, tensors, folder)
        except OSError as error:
            with (folder / DENIED).open("a") as file:
                file.write(f"{error.strerror}\n")
    return reply


app = ClientApp(mods=[client_app.answer_errors, rewrite])
app.query("report")(client_app.report)
app.evaluate("edge_model")(client_app.edge_model)
