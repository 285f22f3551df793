"""Which key belongs to which device: the file that binds the devices of a deployment to their SuperNodes."""

import csv
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, uses_nist_ec_curve

from fedprune.core.errors import ConfigError


def read_keys(path: Path, devices: int) -> dict[int, bytes]:
    """Read the public key of each device, in the form in which a SuperLink keeps it (PEM).

    Args:
        path: CSV file with the columns `device`, a number, and `key`, a line as `ssh-keygen -t ecdsa` writes it.
        devices: How many devices there are; the file names each of them once.

    Raises:
        ConfigError: the file cannot be read, names a device twice or not at all, or two devices have one key.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"The devices' keys {path} cannot be read: {error}.") from error
    keys: dict[int, bytes] = {}
    for line, row in enumerate(rows, start=2):
        if set(row) != {"device", "key"} or None in row.values():
            raise ConfigError(f"{path}, line {line}: write the two columns device,key.")
        if not row["device"].isdecimal() or int(row["device"]) >= devices or int(row["device"]) in keys:
            raise ConfigError(f"{path}, line {line}: device must be a number below {devices}, each of them once.")
        keys[int(row["device"])] = _read_key(row["key"], f"{path}, line {line}")
    if len(keys) < devices or len(set(keys.values())) < devices:
        raise ConfigError(
            f"{path} names {len(set(keys.values()))} keys for {len(keys)} of {devices} devices; "
            "each device needs a key of its own."
        )
    return keys


def _read_key(text: str, place: str) -> bytes:
    try:
        key = load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{place}: this is no public key as ssh-keygen writes it.") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not uses_nist_ec_curve(key):
        raise ConfigError(f"{place}: Flower takes keys of `ssh-keygen -t ecdsa` only.")
    return public_key_to_bytes(key)
