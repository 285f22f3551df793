"""A ClientApp that stalls between the server and its worker process: in the middle of an answer, or of a message."""

import gc
import os
import signal
import threading
import time
from multiprocessing.connection import Connection

from flwr.clientapp import ClientApp

from fedprune.federation import client_app, messages


def half_an_answer():
    """Write the length of an answer to every pipe that this process has, and then nothing."""
    for found in gc.get_objects():
        if isinstance(found, Connection):
            os.write(found.fileno(), (1000).to_bytes(4, "big"))
    time.sleep(1000)


def stop_soon():
    """Answer this message and read no other: the next one is larger than what a pipe holds."""
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGSTOP)).start()


FAULTS = {(0, messages.REPORT): half_an_answer, (1, messages.REPORT): stop_soon}


def stall(message, context, call_next):
    fault = FAULTS.get((context.node_config["partition-id"], message.metadata.message_type))
    if fault is not None:
        fault()
    return call_next(message, context)


app = ClientApp(mods=[client_app.answer_errors, stall])
app.query("report")(client_app.report)
app.evaluate("edge_model")(client_app.edge_model)
