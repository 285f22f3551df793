"""Certificates for TLS between a SuperLink and its SuperNodes: read from a folder, or made for one run on loopback."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedprune.core.errors import FedpruneError

LIFE = datetime.timedelta(days=30)  # of certificates that are made for one run


@dataclass(frozen=True)
class Certificates:
    """Files for TLS, all PEM; `docs/deployment.md` says how to make them for real devices.

    Attributes:
        authority: Certificate that devices trust.
        certificate: The server's, signed by the authority.
        key: The server's private key.
    """

    authority: Path
    certificate: Path
    key: Path


def certificates_in(folder: Path) -> Certificates:
    """Name the files of a folder that holds `ca.crt`, and on the server's machine `server.crt` and `server.key`."""
    return Certificates(folder / "ca.crt", folder / "server.crt", folder / "server.key")


def read_authority(certificates: Certificates) -> bytes:
    """Read the certificate that is trusted.

    Raises:
        FedpruneError: it cannot be read.
    """
    try:
        return certificates.authority.read_bytes()
    except OSError as error:
        raise FedpruneError(
            f"Cannot read {certificates.authority}: {error.strerror}. engine.tls must be `local` or a folder "
            "with ca.crt, server.crt and server.key."
        ) from error


def make_certificates(folder: Path) -> Certificates:
    """Make an authority and a certificate for 127.0.0.1 in `folder`; the authority's key is thrown away."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("fedprune, for one run", authority_key, "fedprune, for one run", authority_key)
    authority = authority.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    authority = authority.add_extension(_SIGNS_CERTIFICATES, critical=True)
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
    server = _certificate("127.0.0.1", key, "fedprune, for one run", authority_key)
    server = server.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    server = server.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    files = certificates_in(folder)
    files.authority.write_bytes(authority.sign(authority_key, hashes.SHA256()).public_bytes(Encoding.PEM))
    files.certificate.write_bytes(server.sign(authority_key, hashes.SHA256()).public_bytes(Encoding.PEM))
    files.key.touch(mode=0o600)
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


_SIGNS_CERTIFICATES = x509.KeyUsage(
    key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
)  # fmt: skip


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clocks differ
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
