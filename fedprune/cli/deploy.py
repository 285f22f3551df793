"""Run an experiment on Flower's own SuperLink and SuperNodes: on this machine, or on devices that are deployed.

`fedprune deploy --local 4 method=random` starts one SuperLink and four SuperNodes on loopback, runs the experiment
over them and ends them. `fedprune deploy --superlink HOST:PORT --secret FILE` serves devices that connect from
elsewhere; `docs/deployment.md` says how to set them up.
"""

import argparse
from pathlib import Path

from fedprune.cli.completion import add_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--local", type=int, metavar="N", help="start a SuperLink and N SuperNodes on loopback")
    where.add_argument("--superlink", metavar="HOST:PORT", help="use the SuperLink that listens there")
    parser.add_argument("--secret", type=Path, help="file with the SuperExec secret of that SuperLink")
    parser.add_argument(
        "--devices", metavar="FILE", type=Path, help="keys.csv with the public key of each device, which it must own"
    )
    parser.add_argument(
        "--tls", metavar="FOLDER", help="folder with ca.crt, server.crt and server.key; `local` makes them for --local"
    )
    add_settings(parser, "settings as for `fedprune run`")


def run(arguments: argparse.Namespace) -> int:
    """Run as `fedprune run` does, with engine=superlink."""
    from fedprune.cli import run as run_command
    from fedprune.core.errors import ConfigError

    settings = ["engine=superlink"]
    if arguments.local is not None:
        settings.append(f"partition.devices={arguments.local}")
    elif arguments.secret is None:
        raise ConfigError("A deployed SuperLink needs --secret, the file that it was started with.")
    else:
        settings += [f"engine.address='{arguments.superlink}'", f"engine.secret='{arguments.secret.resolve()}'"]
    if arguments.devices is not None:
        settings.append(f"engine.device_keys='{arguments.devices.resolve()}'")
    if arguments.tls is not None:
        tls = arguments.tls if arguments.tls == "local" else Path(arguments.tls).resolve()
        settings.append(f"engine.tls='{tls}'")
    return run_command.run_overrides([*settings, *arguments.overrides])
