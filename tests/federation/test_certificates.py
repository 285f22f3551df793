"""Certificates for one run on loopback: their authority vouches for the server, and no other does."""

import socket
import ssl
import stat
import threading

import pytest

from fedprune.core.errors import FedpruneError
from fedprune.federation.certificates import certificates_in, make_certificates, read_authority
from fedprune.federation.superlink import SuperLink


@pytest.fixture
def two(tmp_path):
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    return [make_certificates(folder) for folder in folders]


def greet(server_files, authority):
    """Return what a client that trusts `authority` hears from a server on 127.0.0.1."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(server_files.certificate, server_files.key)
    client = ssl.create_default_context(cafile=authority)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve():
        try:
            with server.wrap_socket(theirs, server_side=True) as secure:
                secure.sendall(b"hello")
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname="127.0.0.1") as secure:
            return secure.recv(16)
    finally:
        ours.close()
        thread.join()


def test_their_authority_vouches_for_the_server_and_no_other_does(two):
    one, other = two
    assert greet(one, one.authority) == b"hello"
    with pytest.raises(ssl.SSLCertVerificationError):
        greet(one, other.authority)


def test_nobody_else_may_read_the_key(two):
    assert stat.S_IMODE(two[0].key.stat().st_mode) == 0o600


def test_a_folder_without_certificates_is_one_sentence(tmp_path):
    with pytest.raises(FedpruneError, match=r"ca\.crt: No such file"):
        read_authority(certificates_in(tmp_path))


def test_a_deployment_has_certificates_of_its_own():
    with pytest.raises(ValueError, match="tls=local is for loopback"):
        SuperLink(address="example.org:8000", secret="secret", tls="local")
