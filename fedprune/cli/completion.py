"""Tab completion of settings: keys, the options of a kind, the fields of the option that stands on the line.

argcomplete asks; what is slow to import is not imported for an answer.
"""

import argparse
import dataclasses
import os
from collections.abc import Sequence


def typed_words() -> list[str] | None:
    """Return the words behind the command's name where a shell asks how its line may go on."""
    return os.environ["COMP_LINE"].split()[1:] if "_ARGCOMPLETE" in os.environ else None


def answer(parser: argparse.ArgumentParser) -> None:
    """Tell the shell how its line may go on, and exit."""
    import argcomplete

    argcomplete.autocomplete(parser)


def add_settings(parser: argparse.ArgumentParser, example: str, nargs: str = "*", metavar: str = "key=value") -> None:
    """Add the words that are settings, completed by `complete_setting`."""
    added = parser.add_argument("overrides", nargs=nargs, metavar=metavar, help=example)
    added.completer = complete_setting  # type: ignore[attr-defined]


def complete_setting(prefix: str, parsed_args: argparse.Namespace, **kwargs: object) -> list[str]:
    """Return what the word that begins with `prefix` may become.

    Args:
        prefix: What has been typed of the word.
        parsed_args: The words before it, of which `overrides` holds the settings.
        kwargs: What else argcomplete tells.
    """
    from fedprune.core.registry import schema
    from fedprune.experiment.choices import allowed
    from fedprune.experiment.compose import CHOICES, GROUPS, SETTINGS
    from fedprune.study.names import study_names

    if "/" in prefix:  # a study
        return [*study_names()]
    key, equals, _ = prefix.partition("=")
    kind, dot, _ = key.partition(".")
    if equals:
        return [f"{key}={name}" for name in (allowed(key) if key in CHOICES else ())]
    if dot:
        option = _chosen(kind, parsed_args.overrides or ())
        fields = dataclasses.fields(schema(kind, option)) if kind in GROUPS and option in allowed(kind) else ()
        return [f"{kind}.{field.name}=" for field in fields]
    return [f"{setting}=" for setting in sorted({*CHOICES, *(each.name for each in SETTINGS)})]


def _chosen(kind: str, words: Sequence[str]) -> str:
    from fedprune.experiment.choices import usual_choices

    named = [word.partition("=")[2] for word in words if word.startswith(f"{kind}=")]
    return [usual_choices().get(kind, ""), *named][-1]
