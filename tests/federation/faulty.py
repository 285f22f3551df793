"""A ClientApp some of whose devices are slow, wrong or hostile; a file says which, so every process sees it.

The file that FEDPRUNE_TEST_FAULTS names holds JSON: the fault of a device at a phase, e.g. {"report 3": "raise"}.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from safetensors.numpy import load

from fedprune.federation import client_app, messages
from fedprune.mixture.report import MAX_BYTES
from fedprune.mixture.wire import encode

SLEEP = 1000.0
PHASES = {
    messages.JOIN: "join",
    messages.REPORT: "report",
    messages.EDGE_MODEL: "evaluate",
    messages.TRAINED_EDGE_MODEL: "train",
}


def misbehave(message, context, call_next):
    device = context.node_config["partition-id"]
    faults = json.loads(Path(os.environ["FEDPRUNE_TEST_FAULTS"]).read_text())
    fault = faults.get(f"{PHASES[message.metadata.message_type]} {device}")
    if fault in BEFORE:
        BEFORE[fault]()
    if fault == "nothing":
        return None
    if fault == "meddle":
        for record in message.content.values():
            record.clear()
        message.content.clear()
        raise RuntimeError("it emptied the message that it was given")
    reply = call_next(message, context)
    if fault in AFTER:
        reply = AFTER[fault](reply)
    return reply


app = ClientApp(mods=[client_app.answer_errors, misbehave])
app.query("join")(client_app.join)
app.query("report")(client_app.report)
app.evaluate("edge_model")(client_app.edge_model)
app.train("edge_model")(client_app.trained_edge_model)


def _raise():
    raise RuntimeError("the camera\nis broken")


BEFORE = {
    "raise": _raise,
    "exit": lambda: os._exit(7),
    "sys.exit": lambda: sys.exit("it wants to go"),
    "sleep": lambda: time.sleep(SLEEP),
    "memory": lambda: np.ones(10**15),
}


def _report(change):
    """Let `change` turn the report's bytes into others."""

    def alter(reply):
        return _config(report=change(reply.content.config_records["config"]["report"]))(reply)

    return alter


def _set(name, change):
    return _report(lambda report: encode((arrays := load(report)) | {name: change(arrays[name])}))


def _bomb(report):
    header = b'{"weights":{"dtype":"F64","shape":[100000000000],"data_offsets":[0,800000000000]}}'
    return len(header).to_bytes(8, "little") + header + bytes(100)


def _config(**values):
    def alter(reply):
        config = dict(reply.content.config_records["config"])
        reply.content["config"] = ConfigRecord({**config, **values})
        return reply

    return alter


def _claim(**values):
    def alter(reply):
        claims = json.loads(reply.content.config_records["config"]["ledger"])
        return _config(ledger=json.dumps([claims[0] | values]))(reply)

    return alter


def _counts(record="metrics", **values):
    def alter(reply):
        counts = {**reply.content.metric_records[record], **values}
        reply.content[record] = MetricRecord({name: count for name, count in counts.items() if count is not None})
        return reply

    return alter


def _impostor(reply):
    if "report" in reply.content.config_records["config"]:
        reply = _set("device", lambda device: device + 1)(reply)
    return _config(device=int(reply.content.config_records["config"]["device"]) + 1)(reply)


def _foreign_node(reply):
    reply.metadata.__dict__["_src_node_id"] = reply.metadata.src_node_id + 1
    return reply


def _no_records(reply):
    return _content(reply, RecordDict())


def _content(reply, content):
    reply.content = content
    return reply


def _rename(report):
    return encode({"mean" if name == "means" else name: array for name, array in load(report).items()})


AFTER = {
    "NaN": _set("means", lambda means: means * np.float32(np.nan)),
    "wrong shape": _set("means", lambda means: means[:, :-1]),
    "wrong keys": _report(_rename),
    "header bomb": _report(_bomb),
    "negative weights": _set("weights", lambda weights: -weights),
    "covariance not positive": _set("covariances", lambda covariances: -covariances),
    "10^12 images": _set("images", lambda images: images * 0 + 10**12),
    "truncated bytes": _report(lambda report: report[:-7]),
    "too many bytes": _report(lambda report: report + bytes(MAX_BYTES)),
    "answers for another": _impostor,
    "another node's name": _foreign_node,
    "no records": _no_records,
    "hostile ledger": _claim(noise=float("inf")),
    "count above all": _counts(edge=10**9),
    "negative count": _counts(base=-1),
    "fractional count": _counts(edge=0.5),
    "trained count above all": _counts("personal", personal=10**9),
    "endless training": _counts("personal", seconds=float("inf")),
    "no reference": _counts("personal", reference=None),
    "wrong role": _config(role="oracle"),
    "claims device 0": lambda reply: _config(device=0)(reply),
}

EVERYWHERE = ("raise", "sys.exit", "memory", "nothing", "answers for another", "no records")
REPORT_FAULTS = (
    *EVERYWHERE, "meddle", "NaN", "wrong shape", "wrong keys", "header bomb", "negative weights",
    "covariance not positive", "10^12 images", "truncated bytes", "too many bytes", "hostile ledger",
    "another node's name",
)  # fmt: skip
EVALUATE_FAULTS = (*EVERYWHERE, "meddle", "count above all", "negative count", "fractional count", "wrong role")
NEED_PROCESS = ("exit", "sleep")  # of an engine that runs devices in processes of their own
