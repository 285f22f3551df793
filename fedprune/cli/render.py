"""Render the committed tables and pages of prose again from the committed numbers.

Tests compare every table below `results/`, and every page that has a template there (`*.md.j2`), with what the numbers
give; this is how to bring them up to date. Numbers and manifests stay as they are. With `--figures`, figures of
measured numbers are drawn again too.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("results", nargs="?", type=Path, default=Path("results"), help="folder (default results)")
    parser.add_argument("--figures", action="store_true", help="draw figures again too")


def run(arguments: argparse.Namespace) -> int:
    """Render what is there; print a line each."""
    from fedprune.report.figure import draw
    from fedprune.report.prose import write_pages
    from fedprune.report.results import committed, read_csv, render_again
    from fedprune.report.style import save
    from fedprune.study.study import read_study

    for name, scale, path in committed(arguments.results, "table"):
        render_again(read_study(name), scale, path)
        print(path.with_suffix(".md"))
    for name, scale, path in committed(arguments.results, "figure") if arguments.figures else []:
        save(draw(read_study(name), scale, read_csv(path)), path.with_suffix(""))
        print(path.with_suffix(".png"))
    for path in write_pages(arguments.results):
        print(path)
    return 0
