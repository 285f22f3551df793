"""Measure how fast and how exact the parts are: `fedprune bench NAME` ends with one JSON line."""

import argparse
import importlib
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the benchmark's name; all that follows is the benchmark's own, and only that one is imported."""
    from fedprune.cli.main import commands

    names = commands(Path(__file__).parent / "benchmarks")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "benchmarks:\n" + "\n".join(f"  {name:<12} {sentence}" for name, sentence in names.items())
    parser.add_argument("name", metavar="NAME", choices=names, help="one of the benchmarks below")
    parser.add_argument("rest", metavar="...", nargs=argparse.REMAINDER, help="its arguments; NAME --help lists them")


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark that was named."""
    benchmark = importlib.import_module(f"fedprune.cli.benchmarks.{arguments.name}")
    parser = argparse.ArgumentParser(prog=f"fedprune bench {arguments.name}", description=benchmark.__doc__)
    benchmark.add_arguments(parser)
    return int(benchmark.run(parser.parse_args(arguments.rest)))
