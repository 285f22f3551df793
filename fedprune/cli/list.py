"""List what can be chosen: data, methods, selectors, mechanisms, engines, tables, ..."""

import argparse
from pathlib import Path

from fedprune.core.discovery import describe
from fedprune.core.kinds import KINDS
from fedprune.core.yaml_file import read_yaml_file

OPTIONS = {kind.plural: name for name, kind in KINDS.items()}
BUNDLES = {"scales": "scale", "presets": "preset"}
STUDIES = {"tables": "table", "figures": "figure"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("kind", choices=[*OPTIONS, "devices", *BUNDLES, *STUDIES], help="what to list")


def run(arguments: argparse.Namespace) -> int:
    """Print the names, one a line with one sentence."""
    options = _find(arguments.kind)
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
        from fedprune.experiment.compose import config_folder

        return {path.stem: _comment(path) for path in sorted((config_folder() / BUNDLES[plural]).glob("*.yaml"))}
    import fedprune.devices

    profiles = sorted((Path(fedprune.devices.__file__).parent / "profiles").glob("*.yaml"))
    return {path.stem: str(read_yaml_file(path)["title"]) for path in profiles}


def _comment(path: Path) -> str:
    """Return the first sentence of the comment at the top of a configuration file."""
    lines = [line.removeprefix("# ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    text = " ".join(line for line in lines if not line.startswith("@"))
    return text.split(". ")[0].removesuffix(".") + "."
