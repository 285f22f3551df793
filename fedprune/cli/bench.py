"""Measure how fast and how exact the parts are, from a checkout: `fedprune bench NAME` ends with one JSON line."""

import argparse
import importlib
import sys
from pathlib import Path

import fedprune
from fedprune.core.errors import FedpruneError

CHECKOUT = Path(fedprune.__file__).parents[1]  # where the package runs from; no checkout once it is installed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the benchmark's name; all that follows is the benchmark's own, and only that one is imported."""
    from fedprune.cli.main import commands

    names = commands(CHECKOUT / "benchmarks") if is_checkout() else {}
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    if names:
        parser.epilog = "benchmarks:\n" + "\n".join(f"  {name:<12} {sentence}" for name, sentence in names.items())
    parser.add_argument("name", metavar="NAME", nargs="?", choices=[*names] or None, help="one of the benchmarks below")
    parser.add_argument("rest", metavar="...", nargs=argparse.REMAINDER, help="its arguments; NAME --help lists them")


def is_checkout() -> bool:
    """Say whether the package runs from a checkout, which alone holds `benchmarks/`."""
    return (CHECKOUT / "benchmarks").is_dir() and (CHECKOUT / "pyproject.toml").is_file()


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark that was named.

    Raises:
        FedpruneError: the package does not run from a checkout, or no benchmark was named.
    """
    if not is_checkout():
        raise FedpruneError(
            "Benchmarks are no part of the installed package. Clone the repository, install it with `pip install -e .` "
            "and run `fedprune bench` again."
        )
    if arguments.name is None:
        raise FedpruneError("Name a benchmark; `fedprune bench --help` lists them.")
    sys.path.insert(0, str(CHECKOUT))  # in front, for other packages have been seen to install a `benchmarks` too
    benchmark = importlib.import_module(f"benchmarks.{arguments.name}")
    parser = argparse.ArgumentParser(prog=f"fedprune bench {arguments.name}", description=benchmark.__doc__)
    benchmark.add_arguments(parser)
    return int(benchmark.run(parser.parse_args(arguments.rest)))
