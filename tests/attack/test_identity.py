"""Who takes another device's place, or answers for it, where devices have keys and where they have none."""

import dataclasses
import subprocess

import httpx
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, PushMessagesRequest, RegisterNodeFleetRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supernode.fleet_http_connection import FleetHttpClient, remove_content_from_message
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedprune.core.errors import ConfigError
from fedprune.federation import messages
from fedprune.federation.certificates import make_certificates, read_authority
from fedprune.federation.engine import CLIENT_APP
from fedprune.federation.keys import read_keys
from fedprune.federation.local import LocalGrid
from fedprune.federation.processes import LocalProcesses
from fedprune.federation.roster import Roster
from fedprune.federation.superlink import Connection, SuperLink
from fedprune.federation.window import WindowGrid
from tests.situations import held


class Nodes(LocalGrid):
    """Nodes that are there, and what each of them claims to be."""

    devices = None

    def __init__(self, claims):
        super().__init__(0)
        self.claims, self.sent = claims, []

    def get_node_ids(self):
        return list(self.claims)

    def push_messages(self, sent):
        for message in sent:
            self.number(message)
            self.sent.append(message)
        return [message.metadata.message_id for message in self.sent[-1:]]

    def pull_messages(self, identities):
        return [
            Message(messages.join_reply(self.claims[message.metadata.dst_node_id]), reply_to=message)
            for message in self.sent
            if message.metadata.message_id in identities
        ]

    def send_and_receive(self, sent, *, timeout=None):
        raise NotImplementedError


def meet(claims, devices):
    roster, nodes = Roster(), Nodes(claims)
    roster.meet(WindowGrid(nodes, size=2, nodes=3, patience=0.1, devices=devices), {0, 1, 2})
    return roster, nodes


def test_a_stranger_gets_no_place_where_devices_have_keys():
    """Device 2 is away; node 77, with a key of its own, claims to be it, and node 12 claims to be device 1."""
    roster, nodes = meet({11: 0, 12: 1, 77: 2}, devices={11: 0, 12: 1, 13: 2})
    assert roster.nodes == {0: 11, 1: 12}
    assert roster.missing == {2: "no node serves it"}
    assert nodes.sent == [], "no node is asked who it is"
    roster, _ = meet({11: 2, 77: 0}, devices={11: 0, 12: 1, 13: 2})
    assert roster.nodes == {0: 11}, "a node serves the device of its key, whatever it says"


def test_without_keys_identity_is_on_trust():
    roster, _ = meet({11: 0, 12: 1, 77: 2}, devices=None)
    assert roster.nodes[2] == 77


def test_no_two_messages_have_equal_content():
    """The id of a message is a hash of what is in it; who could guess it could answer in another's place."""
    _, nodes = meet({11: 0, 12: 1, 13: 2}, devices=None)
    nonces = {message.content.config_records["nonce"]["nonce"] for message in nodes.sent}
    assert len(nodes.sent) == len(nonces) == 3
    assert {len(nonce) for nonce in nonces} == {32}


@pytest.fixture
def make_key(tmp_path):
    """Make a key as the manual says; return its private file and its public line."""

    def make(name, kind=("-t", "ecdsa", "-b", "384")):
        file = tmp_path / f"{name}.key"
        subprocess.run(["ssh-keygen", "-q", *kind, "-N", "", "-f", str(file)], check=True)
        return file, file.with_suffix(".key.pub").read_text().strip()

    return make


def test_keys_are_read_or_refused_in_a_sentence(make_key, tmp_path):
    (_, first), (_, second) = make_key("first"), make_key("second")
    _, foreign = make_key("foreign", ("-t", "ed25519"))
    file = tmp_path / "keys.csv"
    file.write_text(f"device,key\n1,{second}\n0,{first}\n")
    keys = read_keys(file, 2)
    assert sorted(keys) == [0, 1]
    assert all(key.startswith(b"-----BEGIN PUBLIC KEY-----") for key in keys.values())
    for text, words in {
        f"device,key\n0,{first}\n": "names 1 keys for 1 of 2 devices",
        f"device,key\n0,{first}\n1,{first}\n": "names 1 keys for 2 of 2 devices",
        f"device,key\n0,{first}\n0,{second}\n": "each of them once",
        f"device,key\n0,{first}\n2,{second}\n": "a number below 2",
        f"device,key\n0,{first}\n-1,{second}\n": "a number below 2",
        f"0,{first}\n1,{second}\n": "the two columns device,key",
        f"device,key\n0,{first}\n1,{second},more\n": "the two columns device,key",
        f"device,key\n0,{first}\n1\n": "the two columns device,key",
        f"device,key\n0,{first}\n1,ssh-rsa AAAA\n": "no public key",
        f"device,key\n0,{first}\n1,\ud7ff\n": "no public key",
        f"device,key\n0,{first}\n1,{foreign}\n": "ecdsa",
        "": "names 0 keys",
    }.items():
        file.write_text(text)
        with pytest.raises(ConfigError, match=words):
            read_keys(file, 2)
    file.write_bytes(b"device,key\n0,\xff\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_keys(file, 2)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_keys(tmp_path / "none.csv", 2)


@pytest.fixture
def superlink(tmp_path):
    files = make_certificates(tmp_path)
    with LocalProcesses(0, files, log=tmp_path / "log") as processes:
        connection = Connection(processes.address, processes.secret, read_authority(files), processes)
        connection._stop(connection.start_run(CLIENT_APP))  # waits until the SuperLink answers
        yield processes, connection


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_with_a_key_of_its_own_takes_no_place(superlink, make_key, configure, run_strategy, tmp_path):
    """Device 1 is away; a stranger, whom this SuperLink lets in, claims to be it. Device 0 goes on."""
    processes, connection = superlink
    lines = [make_key("device0"), make_key("device1")]
    keys = tmp_path / "keys.csv"
    keys.write_text("device,key\n" + "".join(f"{number},{line}\n" for number, (_, line) in enumerate(lines)))
    connection.nodes_of(read_keys(keys, 2))
    for device, port, options in (
        (0, 1, ("--auth-supernode-private-key", str(lines[0][0]))),
        (1, 2, ()),
    ):
        processes._start(
            "flower-supernode", *processes._client_tls(), "--superlink", processes.address,
            "--port", str(processes.port + port), *options,
            "--node-config", f"partition-id={device} num-partitions=2 simulated=true",
        )  # fmt: skip
    secret = tmp_path / "secret"
    secret.write_bytes(processes.secret)
    engine = SuperLink(address=processes.address, secret=str(secret), tls=str(tmp_path), patience=60.0)
    with_keys = dataclasses.replace(engine, device_keys=str(keys))
    rows = run_strategy(configure(2), with_keys, CLIENT_APP)
    assert rows[0]["status"] == "ok"
    assert (rows[1]["status"], rows[1]["reason"]) == ("failed", "no node serves it")
    on_trust = run_strategy(configure(2), engine, CLIENT_APP)
    assert on_trust[0] == rows[0]
    assert on_trust[1]["status"] == "ok", "docs/deployment.md says that identity is on trust here"
    held(
        "Nobody takes another device's place, where devices have keys",
        "a node with a key of its own claims the place of a device that is away",
        "on real processes; the same node without `--devices` (slow)",
        "no place; without the file it has one",
    )


class Attacker:
    """A node with a key of its own that speaks Flower's protocol by itself."""

    def __init__(self, connection):
        private, public = generate_key_pairs()
        version = RuntimeVersionHttpInterceptor(component_name="SuperNode")
        interceptors = [version, NodeAuthHttpInterceptor(private, public)]
        self.client = FleetHttpClient.from_server_address(
            connection.address, False, connection.authority, interceptors=interceptors
        )
        key = public_key_to_bytes(public)
        self.client.RegisterNode(RegisterNodeFleetRequest(public_key=key))
        self.node = self.client.ActivateNode(ActivateNodeRequest(public_key=key, heartbeat_interval=30)).node_id

    def answer(self, question):
        """Push an answer to a question that another node was asked; return whether the SuperLink takes it."""
        forged = Message(RecordDict({"config": ConfigRecord({"device": 0})}), reply_to=question)
        forged.metadata.__dict__["_message_id"] = forged.object_id
        request = PushMessagesRequest(
            node=Node(node_id=self.node), messages_list=[message_to_proto(remove_content_from_message(forged))],
            message_object_trees=[get_object_tree(forged)], clientapp_runtime_list=[0.1],
        )  # fmt: skip
        return bool(self.client.PushMessages(request).objects_to_push)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_node_reads_and_answers_no_message_of_another(superlink):
    _, connection = superlink
    attacker, victim = Attacker(connection), Attacker(connection).node
    with connection.grid(connection.start_run(CLIENT_APP)) as grid:
        question = Message(messages.join_request(), dst_node_id=victim, message_type=messages.JOIN)
        window = WindowGrid(grid, 1, 2, 60.0)
        assert list(window._send({}, question, None)) == []
        with pytest.raises(httpx.HTTPStatusError, match="401"):
            attacker.client.PullMessages(PullMessagesRequest(node=Node(node_id=victim)))
        # All but the nonce is known: the same question to the same node at the same time.
        guess = Message(messages.join_request(), dst_node_id=victim, message_type=messages.JOIN)
        guess.metadata.__dict__.update(question.metadata.__dict__)
        guess.content["nonce"] = ConfigRecord({"nonce": "0" * 32})
        guess.metadata.__dict__["_message_id"] = guess.object_id
        assert not attacker.answer(guess)
        assert attacker.answer(question), "with the nonce Flower would take it; without this, nothing was shown"
    held(
        "Nobody reads or answers what another device was asked",
        "a node reads another's messages, and answers one of which it knows all but the random number",
        "on real processes (slow)",
        "401; the answer is not taken",
    )
