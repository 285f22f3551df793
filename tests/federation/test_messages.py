"""Whatever bytes and records a device sends, the server's side of a message answers with a value or a rejection."""

import copy
import logging
import resource
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedprune.core.errors import ReportRejected
from fedprune.core.text import MAX_REASON, describe
from fedprune.federation import client_app, messages
from fedprune.federation.inline import InlineGrid
from fedprune.federation.local import copied
from fedprune.protocol.round import take_report
from tests.federation.conftest import strategy_of

SCALARS = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=20), st.binary(max_size=20), st.booleans()
)
NAMES = st.one_of(
    st.sampled_from(["report", "config", "metrics", "personal", "device", "ledger", "role", "edge", "base"]), st.text()
)
NUMBERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats())


def is_record(kind, values):
    try:
        return kind(values)
    except (TypeError, ValueError):
        return kind({})


CONFIGS = st.dictionaries(NAMES, SCALARS, max_size=5).map(lambda values: is_record(ConfigRecord, values))
METRICS = st.dictionaries(NAMES, NUMBERS, max_size=6).map(lambda values: is_record(MetricRecord, values))
ARRAYS = st.dictionaries(
    NAMES, st.binary(max_size=64).map(lambda data: Array("float32", (1,), "numpy.ndarray", data)), max_size=9
).map(ArrayRecord)
CONTENTS = st.dictionaries(NAMES, st.one_of(CONFIGS, METRICS, ARRAYS), max_size=4).map(RecordDict)


@settings(max_examples=300, deadline=None)
@given(CONTENTS)
def test_reading_any_records_gives_a_value_or_a_rejection(small_config, content):
    setup = small_config.setup()
    for read in (
        lambda: messages.read_claim(content),
        lambda: messages.read_upload(content, 0, setup),
        lambda: messages.read_evaluation(content, 0, "edge", 10),
        lambda: messages.read_personal(content, 0, 10, True),
    ):
        with suppress(ReportRejected):
            read()


@given(st.one_of(st.text(), st.binary().map(str), st.text().map(ValueError)))
@settings(max_examples=200, deadline=None)
def test_a_reason_is_one_short_printable_line(value):
    line = describe(value)
    assert len(line) <= MAX_REASON
    assert line.isprintable()


@given(st.dictionaries(st.sampled_from(["images", "base", "subclassifier", "edge"]), NUMBERS, max_size=5))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_counts_are_whole_and_within_the_images(counts):
    content = RecordDict({"metrics": MetricRecord(counts), "config": ConfigRecord({"device": 3, "role": "edge"})})
    try:
        evaluation = messages.read_evaluation(content, 3, "edge", 24)
    except ReportRejected:
        return
    assert set(counts) == {"images", "base", "subclassifier", "edge"}
    for name, value in counts.items():
        assert type(value) is int
        assert 0 <= value <= 24
        assert getattr(evaluation, name) == value


def test_a_copy_shares_no_container_with_the_original():
    content = RecordDict(
        {"a": ArrayRecord({"x": Array(np.arange(3))}), "c": ConfigRecord({"l": [1, 2]}), "m": MetricRecord({"n": 1})}
    )
    before = copy.deepcopy(content)
    twin = copied(content)
    assert twin == before
    twin["a"]["x"].data = b""
    twin["c"]["l"].append(3)
    twin["m"]["n"] = 5
    del twin["a"]
    assert content == before


def true_reply(strategy, device):
    grid = InlineGrid(client_app.app, len(strategy.rows))
    requests = list(strategy.configure_train(1, strategy.initial_arrays(), ConfigRecord(), grid))
    [reply] = grid.send_and_receive([requests[device]])
    assert not reply.has_error()
    return reply


def mutated(data, random):
    """Damage serialised bytes: flip, overwrite, cut, repeat or splice a part."""
    data = bytearray(data)
    for _ in range(random.integers(1, 4)):
        place, length = random.integers(0, len(data)), int(random.integers(1, 17))
        match random.integers(0, 5):
            case 0:
                data[place] ^= 1 << random.integers(0, 8)
            case 1:
                data[place : place + length] = random.bytes(length)
            case 2:
                del data[place : place + length]
            case 3:
                data[place:place] = data[place : place + length]
            case _:
                del data[max(1, place) :]
    return bytes(data)


@pytest.fixture(autouse=True)
def quiet():
    logger = logging.getLogger("fedprune.protocol")
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(logging.NOTSET)


def fuzz(config, inputs):
    genuine = message_to_proto(true_reply(strategy_of(config), 1)).SerializeToString()
    random = np.random.default_rng(0)
    seen = {"unreadable": 0, "ok": 0, "rejected": 0, "failed": 0}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    strategy = strategy_of(config)
    state, server, fresh = strategy.state, strategy.state.server, copy.deepcopy(strategy.rows)
    for _ in range(inputs):
        try:
            reply = message_from_proto(MessageProto.FromString(mutated(genuine, random)))
        except Exception:  # Flower's own reading; the grids turn it into the device's failure
            seen["unreadable"] += 1
            continue
        state.rows[1], state.done = copy.copy(fresh[1]), set()
        server.reports.clear()
        status = take_report(state, 1, partial(strategy._upload, reply, 1))
        seen[status] += 1
        assert set(server.reports) <= {1}
        assert (status == "ok") == (1 in server.reports)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 300, f"{grown:.0f} MB more"
    assert all(strategy.rows[device] == fresh[device] for device in fresh if device != 1)
    assert min(seen["unreadable"], seen["ok"], seen["rejected"]) > 0, seen
    return seen


def test_damaged_bytes_give_a_report_or_a_rejection(small_config):
    fuzz(small_config, 3000)


@pytest.mark.slow
def test_100000_damaged_replies_give_a_report_or_a_rejection(small_config):
    fuzz(small_config, 100_000)
