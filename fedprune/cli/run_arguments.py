"""Arguments of all commands that plan many runs; importing this file costs nothing."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def refuse_typos(words: Sequence[str]) -> None:
    """Compose what the settings among `words` give first, before anything is imported that takes seconds.

    Raises:
        ConfigError: a setting is wrong.
    """
    from fedprune.experiment.compose import compose, expand

    settings = [word for word in words if "=" in word and not word.startswith("hydra") and not Path(word).is_file()]
    compose(expand(settings)[0])


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how to run, be it one run or many. As everywhere in this file, what was not given is false."""
    parser.add_argument("--force", action="store_true", help="run afresh, in a new folder, where files or code changed")
    parser.add_argument(
        "--track", help="live curves below runs/.tracking: tensorboard, mlflow or wandb (optional extras)"
    )


def add_plan_arguments(parser: argparse._ActionsContainer) -> None:
    """Add which runs are meant."""
    parser.add_argument("--scale", help="the same as scale=SCALE (default glyphs)")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="the same as seed=SEED,SEED")
    parser.add_argument("--smoke", action="store_true", help="the tiny version: it runs, its numbers mean nothing")
    parser.add_argument(
        "--status", "--dry-run", action="store_true", help="only check every cell and show where it stands; run nothing"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="cells that run at the same time here (default 1)")
    parser.add_argument("--allow-missing", action="store_true", help="exit with 0 although something is missing")


def add_table_arguments(parser: argparse._ActionsContainer) -> None:
    """Add how a table is made and shown."""
    parser.add_argument("--metric", action="append", help="a column of a sweep's table; may be repeated")
    parser.add_argument(
        "--write", type=Path, metavar="FOLDER", help="also write CSV, markdown, LaTeX and a manifest there"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="show these tidy rows in place of runs")
    parser.add_argument("--format", choices=["markdown", "latex", "csv"], help="what is printed (default markdown)")
