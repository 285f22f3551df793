"""Arguments of all commands that run planned cells; importing this file costs nothing."""

import argparse


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what all commands that run cells understand."""
    parser.add_argument("--workers", type=int, default=1, help="cells that run at the same time (default 1)")
    parser.add_argument("--launcher", help="Hydra launcher: joblib, submitit_local or submitit_slurm")
    parser.add_argument(
        "--launcher-setting", action="append", default=[], metavar="KEY=VALUE", help="e.g. hydra.launcher.n_jobs=4"
    )
