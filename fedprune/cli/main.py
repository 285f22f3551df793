"""The `fedprune` command: every file of this room with `add_arguments` and `run` is a sub-command.

Help is read from the files' docstrings, so that it answers at once; a command imports what it needs when it runs.
"""

import argparse
import ast
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import fedprune
from fedprune.cli import completion
from fedprune.core.errors import FedpruneError
from fedprune.core.text import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 done with failures, 2 refused with a sentence."""
    names = commands(Path(__file__).parent)
    parser = Parser(prog="fedprune", description=(fedprune.__doc__ or "").split("\n")[0])
    parser.add_argument("--version", action="version", version=fedprune.__version__)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    typed = completion.typed_words()
    asked = next((word for word in typed or (sys.argv[1:] if arguments is None else arguments) if word in names), None)
    for name, sentence in names.items():
        subparser = subparsers.add_parser(name, help=sentence.replace("%", "%%"), description=sentence)
        if name == asked:  # only the command that is asked for is imported
            command = importlib.import_module(f"fedprune.cli.{name}")
            command.add_arguments(subparser)
            subparser.set_defaults(run=command.run)
            subparser.more_help = getattr(command, "more_help", None)
    if typed is not None:
        completion.answer(parser)
    parsed, rest = parser.parse_known_args(arguments)
    settings = [word for word in rest if not word.startswith("-")]
    if len(settings) < len(rest) or not hasattr(parsed, "overrides"):
        parser.parse_args(arguments)  # says what is wrong with the rest, if there is any
    else:
        parsed.overrides += settings  # argparse leaves settings aside that stand behind an option
    try:
        return int(parsed.run(parsed))
    except FedpruneError as error:
        print(f"fedprune: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fedprune: stopped; the same command goes on from here.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has left, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class Parser(argparse.ArgumentParser):
    """A parser that may have more to say at the end of its help, made only when somebody asks."""

    more_help: Callable[[], str] | None = None

    def format_help(self) -> str:
        """Return the help."""
        return super().format_help() + (f"\n{self.more_help()}" if self.more_help else "")


def commands(folder: Path) -> dict[str, str]:
    """Return the commands in `folder` by name, each with the first sentence of its file's docstring."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if {"add_arguments", "run"} <= functions:
            found[path.stem] = (ast.get_docstring(tree) or "").split("\n")[0]
    return found


if __name__ == "__main__":
    sys.exit(main())
