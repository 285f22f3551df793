"""List what can be chosen: data, methods, selectors, mechanisms, engines, tables, ..."""

import argparse
from pathlib import Path

from fedprune.core.discovery import describe
from fedprune.core.kinds import KINDS
from fedprune.core.yaml_file import read_yaml_file

OPTIONS = {kind.plural: name for name, kind in KINDS.items()}
BUNDLES = {"scales": "scale", "presets": "preset"}
STUDIES = {"tables": "table", "figures": "figure"}
ALL = {
    **{plural: f"Options for {name}= of `fedprune run`." for plural, name in OPTIONS.items()},
    "attacks": "Attacks for `fedprune attack --attack`.",
    "measurements": "What is measured beyond a record, for metrics of studies.",
    "devices": "Measured device profiles.",
    "scales": "How large: many settings at once, scale=.",
    "presets": "A paper's whole pipeline, preset=.",
    "tables": "Studies for `fedprune table` and `fedprune run -m`.",
    "figures": "Studies for `fedprune figure`.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("kind", nargs="?", choices=[*ALL], help="what to list; without it, what can be listed")


def run(arguments: argparse.Namespace) -> int:
    """Print the names, one a line with one sentence."""
    options = ALL if arguments.kind is None else _find(arguments.kind)
    width = max(map(len, options), default=0)
    for name, sentence in options.items():
        print(f"{name:<{width}}  {sentence}")
    return 0


def _find(plural: str) -> dict[str, str]:
    if plural in OPTIONS:
        return describe(OPTIONS[plural])
    if plural in STUDIES:
        from fedprune.study.names import study_names

        return study_names(STUDIES[plural])
    if plural in BUNDLES:
        from fedprune.experiment.choices import config_folder

        return {path.stem: _comment(path) for path in sorted((config_folder() / BUNDLES[plural]).glob("*.yaml"))}
    import fedprune.devices

    profiles = sorted((Path(fedprune.devices.__file__).parent / "profiles").glob("*.yaml"))
    return {path.stem: str(read_yaml_file(path)["title"]) for path in profiles}


def _comment(path: Path) -> str:
    """Return the first sentence of the comment at the top of a configuration file."""
    lines = [line.removeprefix("# ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    text = " ".join(line for line in lines if not line.startswith("@"))
    return text.split(". ")[0].removesuffix(".") + "."
